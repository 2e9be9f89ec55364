/* Threads that share the parallel loops of one handle's kernels. */
#ifndef POCKETVIT_POOL_H
#define POCKETVIT_POOL_H

#include "tvm_standins.h"

/* NULL is a pool of the calling thread alone; all functions take it. */
typedef struct pv_pool pv_pool;

/* A pool of at most `threads` threads, of which the one that enters is one. 0: as many as there
 * are big cores, and no more than four. NULL where that makes one, or no thread can be had. */
pv_pool *pv_pool_create(int32_t threads);
void pv_pool_destroy(pv_pool *pool); /* nobody may be inside */
int32_t pv_pool_threads(const pv_pool *pool);

/* Between the two, parallel loops of the calling thread run on the pool, whose threads wait for
 * them awake. Outside they sleep. One thread at a time may be inside. */
void pv_pool_enter(pv_pool *pool);
void pv_pool_leave(pv_pool *pool);

/* Runs a parallel loop on the pool that the calling thread is inside of, and alone where it is in
 * none. What kernels call: TVMBackendParallelLaunch. Returns 0, or -1 when a task failed. */
int pv_parallel(pv_task task, void *closure, int num_task);

#endif
