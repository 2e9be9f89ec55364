/* A parallel loop is a job of one task per thread. Every thread, the caller included, takes the
 * task of its own number, then any that nobody has taken: one that comes late costs only its help,
 * and otherwise the same core sees the same part of every tensor. */
#include "pool.h"

#include "cores.h"
#include "network.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 16, MAX_DECIDED = 4 };

/* How long a thread waits awake for the next loop of an inference: longer than most of what runs
 * between two. */
enum { AWAKE_NANOSECONDS = 1000000, POLLS_PER_CLOCK = 32, POLLS_BEFORE_YIELD = 1000 };

/* The fields of `state`, one word so that they change together. */
#define TASKS UINT64_C(0xffff)     /* a bit for each task of the job that nobody has taken */
#define RUNNING UINT64_C(0x10000)  /* more jobs come soon */
#define ONE_JOB (UINT64_C(1) << 32) /* above: the job's number, modulo 2^32 */

typedef struct {
  pv_pool *pool;
  int32_t number; /* from 1: the caller is 0 */
  pthread_t thread;
} worker;

struct pv_pool {
  int32_t threads; /* with the caller */
  pv_cores cores;  /* that workers stay on; none: wherever they are put */
  worker workers[MAX_THREADS - 1];
  pthread_mutex_t mutex; /* the two are for sleep alone */
  pthread_cond_t wake;
  pv_task task; /* the two are written while all tasks of the job before are done */
  void *closure;
  _Alignas(PV_ALIGNMENT) _Atomic uint64_t state;
  _Atomic int32_t sleepers;
  atomic_bool stopping;
  _Alignas(PV_ALIGNMENT) _Atomic int32_t unfinished; /* tasks */
  atomic_bool failed;
};

/* The pool that a thread is inside of. A key, because Android has thread-local variables of shared
 * libraries only from API 29. */
static pthread_key_t current;
static int has_key;

__attribute__((constructor)) static void make_key(void) {
  has_key = pthread_key_create(&current, NULL) == 0;
}

__attribute__((destructor)) static void delete_key(void) {
  if (has_key) pthread_key_delete(current);
}

/* Lets some ten nanoseconds pass. */
static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb"); /* most cores do not even notice yield */
#endif
}

static uint32_t job_of(uint64_t state) { return (uint32_t)(state / ONE_JOB); }

/* Takes a task of the job, the preferred one if it is there; -1 when none is left. */
static int32_t take(pv_pool *pool, int32_t preferred) {
  uint64_t state = atomic_load(&pool->state);
  while (state & TASKS) {
    int32_t task = state >> preferred & 1 ? preferred : __builtin_ctz((uint32_t)state);
    uint64_t left = state & ~(UINT64_C(1) << task);
    if (atomic_compare_exchange_weak(&pool->state, &state, left)) return task;
  }
  return -1;
}

static void work(pv_pool *pool, int32_t number) {
  for (int32_t task; (task = take(pool, number)) >= 0;) {
    pv_parallel_env env = {NULL, pool->threads};
    if (pool->task(task, &env, pool->closure) != 0) atomic_store(&pool->failed, 1);
    atomic_fetch_sub(&pool->unfinished, 1);
  }
}

/* Starts the next job, and wakes who sleeps. */
static void publish(pv_pool *pool, uint64_t tasks) {
  uint32_t job = job_of(atomic_load(&pool->state)) + 1;
  atomic_store(&pool->state, job * ONE_JOB | RUNNING | tasks);
  if (atomic_load(&pool->sleepers) > 0) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
  }
}

/* Waits for another job than `last`, during an inference awake for a while. Returns its number. */
static uint32_t await_job(pv_pool *pool, uint32_t last) {
  uint64_t start = pv_now(), state = RUNNING;
  while (state & RUNNING && pv_now() - start < AWAKE_NANOSECONDS) {
    for (int i = 0; i < POLLS_PER_CLOCK && state & RUNNING; ++i) {
      state = atomic_load(&pool->state);
      if (job_of(state) != last) return job_of(state);
      relax();
    }
    sched_yield(); /* the caller may have been put on this very core */
  }
  /* Either this thread sees the new job or its publisher sees a sleeper, because both write before
   * they read, in one order for all. */
  pthread_mutex_lock(&pool->mutex);
  atomic_fetch_add(&pool->sleepers, 1);
  while (job_of(atomic_load(&pool->state)) == last) pthread_cond_wait(&pool->wake, &pool->mutex);
  atomic_fetch_sub(&pool->sleepers, 1);
  pthread_mutex_unlock(&pool->mutex);
  return job_of(atomic_load(&pool->state));
}

static void *serve(void *argument) {
  const worker *self = argument;
  pv_pool *pool = self->pool;
  if (pool->cores.count > 0) pv_stay_on(&pool->cores);
  for (uint32_t job = 0;;) {
    job = await_job(pool, job);
    if (atomic_load(&pool->stopping)) return NULL;
    work(pool, self->number);
  }
}

pv_pool *pv_pool_create(int32_t threads) {
  void *block = NULL;
  if (threads == 1 || !has_key) return NULL;
  pv_cores cores = pv_big_cores();
  if (threads == 0) threads = cores.count < MAX_DECIDED ? cores.count : MAX_DECIDED;
  if (threads > MAX_THREADS) threads = MAX_THREADS;
  if (cores.count < threads) cores.count = 0; /* the others have to help */
  if (threads < 2 || posix_memalign(&block, PV_ALIGNMENT, sizeof(pv_pool))) return NULL;
  pv_pool *pool = memset(block, 0, sizeof(pv_pool));
  pool->cores = cores;
  pthread_mutex_init(&pool->mutex, NULL); /* these two cannot fail without attributes */
  pthread_cond_init(&pool->wake, NULL);
  int32_t started = 0;
  for (; started < threads - 1; ++started) {
    worker *next = &pool->workers[started];
    next->pool = pool;
    next->number = started + 1;
    if (pthread_create(&next->thread, NULL, serve, next) != 0) break;
  }
  pool->threads = started + 1;
  if (started > 0) return pool;
  pv_pool_destroy(pool);
  return NULL;
}

void pv_pool_destroy(pv_pool *pool) {
  if (!pool) return;
  atomic_store(&pool->stopping, 1);
  publish(pool, 0);
  for (int32_t i = 0; i < pool->threads - 1; ++i) pthread_join(pool->workers[i].thread, NULL);
  pthread_cond_destroy(&pool->wake);
  pthread_mutex_destroy(&pool->mutex);
  free(pool);
}

int32_t pv_pool_threads(const pv_pool *pool) { return pool ? pool->threads : 1; }

void pv_pool_enter(pv_pool *pool) {
  if (!pool || pthread_setspecific(current, pool) != 0) return;
  publish(pool, 0); /* whoever sleeps is awake for the first loop */
}

void pv_pool_leave(pv_pool *pool) {
  if (!pool) return;
  atomic_fetch_and(&pool->state, ~RUNNING);
  pthread_setspecific(current, NULL);
}

int pv_parallel(pv_task task, void *closure, int num_task) {
  pv_pool *pool = has_key ? pthread_getspecific(current) : NULL;
  (void)num_task; /* 0: as many as there are threads */
  if (!pool) {
    pv_parallel_env alone = {NULL, 1};
    return task(0, &alone, closure);
  }
  pool->task = task;
  pool->closure = closure;
  atomic_store(&pool->failed, 0);
  atomic_store(&pool->unfinished, pool->threads);
  publish(pool, (UINT64_C(1) << pool->threads) - 1);
  work(pool, 0);
  for (int polls = 0; atomic_load(&pool->unfinished) > 0; ++polls) {
    if (polls < POLLS_BEFORE_YIELD) relax();
    else sched_yield();
  }
  return atomic_load(&pool->failed) ? -1 : 0;
}
