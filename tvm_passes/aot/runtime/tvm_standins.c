/* Stand-ins for the functions of the TVM runtime that compiled kernels call, and the one function
 * of TVM's that the library calls.
 *
 * Kernels reach the runtime through pointer variables. A loader of TVM stores functions of its own
 * in those that a library exports. Only the one for errors is exported: memory and parallel loops
 * are the library's own in any process, so that what is measured over TVM RPC is what ships.
 */
#include "tvm_standins.h"

#include "pool.h"

#include <stdlib.h>

__attribute__((visibility("default"))) pv_raise_function __TVMFFIErrorSetRaisedFromCStr = NULL;

void pv_raise(const char *kind, const char *message) {
  if (__TVMFFIErrorSetRaisedFromCStr) __TVMFFIErrorSetRaisedFromCStr(kind, message);
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

pv_alloc_function __TVMBackendAllocWorkspace = alloc_workspace;
pv_free_function __TVMBackendFreeWorkspace = free_workspace;
pv_launch_function __TVMBackendParallelLaunch = pv_parallel;
