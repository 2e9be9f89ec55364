/* Stand-ins for the functions of the TVM runtime that compiled kernels call.
 *
 * Kernels reach the runtime through pointer variables. TVM's loader stores its own functions there
 * when it finds these names in a library; without TVM they keep the values below.
 */
#include "tvm_standins.h"

#include <stdlib.h>
#include <string.h>

#define PV_SLOT __attribute__((visibility("default")))

PV_SLOT pv_raise_function __TVMFFIErrorSetRaisedFromCStr = NULL; /* only TVM wants its errors */

void pv_raise(const char *kind, const char *message) {
  if (__TVMFFIErrorSetRaisedFromCStr) __TVMFFIErrorSetRaisedFromCStr(kind, message);
}

/* A kernel's argument check failed. Without TVM the text is dropped (there is no handle to keep it
 * in) and the caller reports the layer. */
void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count);
void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
  char text[512];
  size_t used = 0;
  for (int32_t i = 0; i < count; ++i) {
    size_t length = parts[i] ? strlen(parts[i]) : 0, room = sizeof text - 1 - used;
    if (length > room) length = room;
    if (length) memcpy(text + used, parts[i], length);
    used += length;
  }
  text[used] = 0;
  pv_raise(kind, text);
}

static void *alloc_workspace(int device_type, int device_id, uint64_t bytes, int type_code,
                             int type_bits) {
  void *memory = NULL;
  (void)device_type, (void)device_id, (void)type_code, (void)type_bits;
  return posix_memalign(&memory, 64, bytes ? (size_t)bytes : 64) ? NULL : memory;
}

static int free_workspace(int device_type, int device_id, void *memory) {
  (void)device_type, (void)device_id;
  free(memory);
  return 0;
}

/* A parallel region as one task: right for any kernel, because a task covers its share of
 * env->num_task shares. */
static int parallel_launch(pv_task task, void *closure, int num_task) {
  pv_parallel_env env = {NULL, 1};
  (void)num_task;
  return task(0, &env, closure);
}

PV_SLOT pv_alloc_function __TVMBackendAllocWorkspace = alloc_workspace;
PV_SLOT pv_free_function __TVMBackendFreeWorkspace = free_workspace;
PV_SLOT pv_launch_function __TVMBackendParallelLaunch = parallel_launch;
