#pragma once
/* As large as those of glibc, and no smaller than those of bionic. */
typedef struct {
  long words[6];
} pthread_mutex_t;
typedef struct {
  long words[6];
} pthread_cond_t;
typedef long pthread_t;
typedef int pthread_key_t;
int pthread_cond_broadcast(pthread_cond_t *);
int pthread_cond_destroy(pthread_cond_t *);
int pthread_cond_init(pthread_cond_t *, const void *);
int pthread_cond_wait(pthread_cond_t *, pthread_mutex_t *);
int pthread_create(pthread_t *, const void *, void *(*)(void *), void *);
void *pthread_getspecific(pthread_key_t);
int pthread_join(pthread_t, void **);
int pthread_key_create(pthread_key_t *, void (*)(void *));
int pthread_key_delete(pthread_key_t);
int pthread_mutex_destroy(pthread_mutex_t *);
int pthread_mutex_init(pthread_mutex_t *, const void *);
int pthread_mutex_lock(pthread_mutex_t *);
int pthread_mutex_unlock(pthread_mutex_t *);
int pthread_setspecific(pthread_key_t, const void *);
