/* The same library seen by TVM: load_module(path)["pocketvit_run"](image, logits), also over RPC.
 *
 *   pocketvit_run(image, logits)                    uint8 [1, H, W, 3], int32 [1, classes]
 *   pocketvit_profile(image, logits, nanoseconds)   int64 [layers] in addition
 *   pocketvit_set_threads(threads) -> int           as in pocketvit_options, for calls from now on;
 *                                                   returns how many are really used
 *
 * Where the number is not set, or set to 0, TVM's variable TVM_NUM_THREADS counts before the
 * library decides.
 */
#include "cores.h"
#include "network.h"
#include "tvm_abi.h"
#include "tvm_standins.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#define PV_EXPORT __attribute__((visibility("default")))

/* TVM passes no handle, so one idle handle is kept between calls; a second call at the same time
 * makes its own. */
static _Atomic(pocketvit_model *) idle;
static _Atomic int32_t threads;

__attribute__((destructor)) static void release(void) {
  pocketvit_destroy(atomic_exchange(&idle, NULL));
}

static int raise(const char *message) {
  pv_raise("ValueError", message);
  return -1;
}

static pocketvit_status create(pocketvit_model **model) {
  pocketvit_options options = {atomic_load(&threads)};
  if (options.threads == 0) options.threads = pv_number(getenv("TVM_NUM_THREADS"));
  return pocketvit_create(&options, model);
}

static const pv_tensor *tensor_of(const pv_any *arg) {
  if (arg->type_index == PV_TENSOR_POINTER) return arg->value.pointer;
  if (arg->type_index == PV_TENSOR_OBJECT)
    return (const void *)((const char *)arg->value.pointer + PV_OBJECT_HEADER_BYTES);
  return NULL;
}

static int matches(const pv_tensor *tensor, int code, int bits, int32_t ndim,
                   const int64_t *shape) {
  if (!tensor || tensor->device.type != PV_CPU || tensor->ndim != ndim) return 0;
  if (tensor->dtype.code != code || tensor->dtype.bits != bits || tensor->dtype.lanes != 1)
    return 0;
  int64_t stride = 1;
  for (int32_t i = ndim; i-- > 0; stride *= shape[i]) {
    if (tensor->shape[i] != shape[i]) return 0;
    if (tensor->strides && shape[i] != 1 && tensor->strides[i] != stride) return 0;
  }
  return 1;
}

static void *address(const pv_tensor *tensor) { return (char *)tensor->data + tensor->byte_offset; }

static int call(const pv_any *args, int32_t count, int profile) {
  const pocketvit_info *info = &pv_the_network.info;
  const int64_t image_shape[] = {1, info->height, info->width, info->channels};
  const int64_t logits_shape[] = {1, info->num_classes}, num_layers = info->num_layers;
  if (count != (profile ? 3 : 2)) return raise("wrong number of arguments");
  const pv_tensor *image = tensor_of(&args[0]), *logits = tensor_of(&args[1]);
  const pv_tensor *times = profile ? tensor_of(&args[2]) : NULL;
  if (!matches(image, PV_UINT, 8, 4, image_shape))
    return raise("image must be a contiguous uint8 CPU tensor of the network's input shape");
  if (!matches(logits, PV_INT, 32, 2, logits_shape))
    return raise("logits must be a contiguous int32 CPU tensor of the network's output shape");
  if (profile && !matches(times, PV_INT, 64, 1, &num_layers))
    return raise("nanoseconds must be a contiguous int64 CPU tensor with one item per layer");

  pocketvit_model *model = atomic_exchange(&idle, NULL);
  pocketvit_status status = model ? POCKETVIT_OK : create(&model);
  if (status != POCKETVIT_OK) return raise(pocketvit_status_text(status));
  status = profile ? pocketvit_profile(model, address(image), address(logits), address(times))
                   : pocketvit_run(model, address(image), address(logits));
  pocketvit_destroy(atomic_exchange(&idle, model));
  return status == POCKETVIT_OK ? 0 : -1; /* the kernel that failed has raised its error */
}

PV_EXPORT int __tvm_ffi_pocketvit_run(void *self, const pv_any *args, int32_t count,
                                      pv_any *result);
PV_EXPORT int __tvm_ffi_pocketvit_run(void *self, const pv_any *args, int32_t count,
                                      pv_any *result) {
  (void)self, (void)result;
  return call(args, count, 0);
}

PV_EXPORT int __tvm_ffi_pocketvit_profile(void *self, const pv_any *args, int32_t count,
                                          pv_any *result);
PV_EXPORT int __tvm_ffi_pocketvit_profile(void *self, const pv_any *args, int32_t count,
                                          pv_any *result) {
  (void)self, (void)result;
  return call(args, count, 1);
}

PV_EXPORT int __tvm_ffi_pocketvit_set_threads(void *self, const pv_any *args, int32_t count,
                                              pv_any *result);
PV_EXPORT int __tvm_ffi_pocketvit_set_threads(void *self, const pv_any *args, int32_t count,
                                              pv_any *result) {
  (void)self;
  if (count != 1 || args[0].type_index != PV_INTEGER) return raise("threads must be an integer");
  int64_t wanted = args[0].value.integer;
  if (wanted < 0 || wanted > INT32_MAX) return raise("threads must not be negative");
  atomic_store(&threads, (int32_t)wanted);
  pocketvit_model *model;
  pocketvit_info info;
  pocketvit_status status = create(&model);
  if (status != POCKETVIT_OK) return raise(pocketvit_status_text(status));
  pocketvit_get_info(model, &info);
  pocketvit_destroy(atomic_exchange(&idle, model));
  result->type_index = PV_INTEGER;
  result->zero_padding = 0;
  result->value.integer = info.threads;
  return 0;
}
