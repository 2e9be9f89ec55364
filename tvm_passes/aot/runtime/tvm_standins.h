/* Signatures of the runtime functions that kernels call (tvm/runtime/c_backend_api.h). */
#ifndef POCKETVIT_TVM_STANDINS_H
#define POCKETVIT_TVM_STANDINS_H

#include <stdint.h>

typedef struct {
  void *sync_handle;
  int32_t num_task;
} pv_parallel_env;

typedef int (*pv_task)(int task_id, pv_parallel_env *env, void *closure);
typedef void (*pv_raise_function)(const char *kind, const char *message);
typedef void *(*pv_alloc_function)(int device_type, int device_id, uint64_t bytes, int type_code,
                                   int type_bits);
typedef int (*pv_free_function)(int device_type, int device_id, void *memory);
typedef int (*pv_launch_function)(pv_task task, void *closure, int num_task);

extern pv_raise_function __TVMFFIErrorSetRaisedFromCStr;
extern pv_alloc_function __TVMBackendAllocWorkspace;
extern pv_free_function __TVMBackendFreeWorkspace;
extern pv_launch_function __TVMBackendParallelLaunch;

/* Raises a TVM error when the library was loaded by TVM. */
void pv_raise(const char *kind, const char *message);

#endif
