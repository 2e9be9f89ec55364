/* pool_check THREADS RUNS: parallel loops on pools, checked; also built with the sanitizers.
 * Two threads each have a pool of their own at the same time; a third uses none. */
#include "pool.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { CALLERS = 3, LOOPS = 50, MOST = 64 };

uint64_t pv_now(void) { /* of pocketvit.c */
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static int32_t threads;
static int runs;

typedef struct { /* a closure, on the caller's stack as those of kernels are */
  const int32_t *input;
  int32_t *output;
  int failing; /* task, or -1 */
} loop;

static int square(int task, pv_parallel_env *env, void *closure) {
  const loop *self = closure;
  int32_t share = (MOST + env->num_task - 1) / env->num_task;
  for (int32_t i = task * share; i < (task + 1) * share && i < MOST; ++i)
    self->output[i] += self->input[i] * self->input[i];
  return task == self->failing ? 7 : 0;
}

static void expect(int holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "violated: %s\n", what);
  exit(1);
}

static void run(pv_pool *pool, int round) {
  int32_t input[MOST], output[MOST];
  pv_pool_enter(pool);
  for (int i = 0; i < LOOPS; ++i) {
    for (int k = 0; k < MOST; ++k) input[k] = i + k, output[k] = round;
    loop closure = {input, output, i % 10 == 9 ? 0 : -1};
    int status = pv_parallel(square, &closure, 0);
    expect((status != 0) == (closure.failing == 0), "a failure is reported");
    for (int k = 0; k < MOST; ++k)
      expect(output[k] == round + (i + k) * (i + k), "every task runs once");
    if (i == LOOPS / 2 && round % 50 == 0) usleep(1000); /* workers fall asleep meanwhile */
  }
  pv_pool_leave(pool);
}

static void *caller(void *argument) {
  int32_t wanted = argument ? threads : 1;
  for (int life = 0; life < 10; ++life) {
    pv_pool *pool = pv_pool_create(wanted);
    expect(pv_pool_threads(pool) == wanted, "the threads that were asked for are there");
    for (int i = 0; i < runs; ++i) run(pool, i);
    pv_pool_destroy(pool);
  }
  return NULL;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  threads = atoi(argv[1]);
  runs = atoi(argv[2]);
  pthread_t callers[CALLERS];
  for (int i = 0; i < CALLERS; ++i)
    pthread_create(&callers[i], NULL, caller, i ? (void *)callers : NULL);
  for (int i = 0; i < CALLERS; ++i) pthread_join(callers[i], NULL);
  for (int i = 0; i < 1000; ++i) pv_pool_destroy(pv_pool_create(threads)); /* never used */
  return 0;
}
