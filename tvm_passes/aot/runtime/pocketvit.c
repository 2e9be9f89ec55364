/* The C interface: handles, running, profiling. */
#include "network.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PV_EXPORT __attribute__((visibility("default")))

struct pocketvit_model {
  pv_tensor *tensors;
  char error[256];
};

static size_t round_up(size_t bytes) {
  return (bytes + PV_ALIGNMENT - 1) / PV_ALIGNMENT * PV_ALIGNMENT;
}

static size_t tensor_bytes(const pv_tensor *tensor) {
  size_t bytes = tensor->dtype.bits / 8;
  for (int32_t i = 0; i < tensor->ndim; ++i) bytes *= (size_t)tensor->shape[i];
  return bytes;
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void append(char *text, size_t capacity, const char *more) {
  size_t used = strlen(text), extra = strlen(more);
  if (extra > capacity - 1 - used) extra = capacity - 1 - used;
  memcpy(text + used, more, extra);
  text[used + extra] = 0;
}

static pocketvit_status fail(pocketvit_model *model, pocketvit_status status, const char *what,
                             const char *which) {
  model->error[0] = 0;
  append(model->error, sizeof model->error, what);
  append(model->error, sizeof model->error, which);
  return status;
}

int pv_call(pv_kernel kernel, pv_tensor *const *tensors, int32_t count, uint64_t *nanoseconds) {
  pv_any args[PV_MAX_ARGUMENTS], result = {PV_NONE, 0, {0}};
  for (int32_t i = 0; i < count; ++i) {
    args[i].type_index = PV_TENSOR_POINTER;
    args[i].zero_padding = 0;
    args[i].value.pointer = tensors[i];
  }
  if (!nanoseconds) return kernel(NULL, args, count, &result);
  uint64_t start = now();
  int status = kernel(NULL, args, count, &result);
  *nanoseconds = now() - start;
  return status;
}

static pocketvit_status run(pocketvit_model *model, const uint8_t *rgb, int32_t *logits,
                            uint64_t *nanoseconds) {
  const pv_network *network = &pv_the_network;
  const pv_tensor *image = &model->tensors[network->image];
  const pv_tensor *result = &model->tensors[network->logits];
  memcpy(image->data, rgb, tensor_bytes(image)); /* the caller's pointer may be unaligned */
  int failed = pv_run_layers(model->tensors, nanoseconds);
  if (failed >= 0)
    return fail(model, POCKETVIT_ERROR_KERNEL, "kernel failed in layer ",
                network->layer_names[failed]);
  memcpy(logits, result->data, tensor_bytes(result));
  model->error[0] = 0;
  return POCKETVIT_OK;
}

PV_EXPORT uint32_t pocketvit_abi_version(void) { return POCKETVIT_ABI_VERSION; }

PV_EXPORT pocketvit_status pocketvit_create(const pocketvit_options *options,
                                            pocketvit_model **model) {
  const pv_network *network = &pv_the_network;
  if (!model) return POCKETVIT_ERROR_ARGUMENT;
  *model = NULL;
  if (options && options->threads < 0) return POCKETVIT_ERROR_ARGUMENT;
  if (pv_missing_cpu_feature()) return POCKETVIT_ERROR_CPU;

  /* One block: the handle, its tensors, the arena. */
  size_t count = (size_t)network->num_tensors;
  size_t head = round_up(sizeof(pocketvit_model));
  size_t table = round_up(count * sizeof(pv_tensor));
  void *block = NULL;
  if (posix_memalign(&block, PV_ALIGNMENT, head + table + network->info.arena_bytes))
    return POCKETVIT_ERROR_MEMORY;
  pocketvit_model *created = block;
  uint8_t *arena = (uint8_t *)block + head + table;
  created->tensors = (pv_tensor *)((uint8_t *)block + head);
  created->error[0] = 0;
  for (size_t i = 0; i < count; ++i) {
    const pv_tensor_spec *spec = &network->tensors[i];
    pv_tensor *tensor = &created->tensors[i];
    memset(tensor, 0, sizeof *tensor);
    /* Kernels only read the parameters and the shapes: the casts drop const for DLTensor's sake. */
    tensor->data = (spec->in_arena ? arena : (uint8_t *)pv_params) + spec->offset;
    tensor->device.type = PV_CPU;
    tensor->ndim = spec->ndim;
    tensor->dtype = spec->dtype;
    tensor->shape = (int64_t *)spec->shape;
  }
  *model = created;
  return POCKETVIT_OK;
}

PV_EXPORT void pocketvit_destroy(pocketvit_model *model) { free(model); }

PV_EXPORT pocketvit_status pocketvit_get_info(const pocketvit_model *model, pocketvit_info *info) {
  if (!model || !info) return POCKETVIT_ERROR_ARGUMENT;
  *info = pv_the_network.info;
  return POCKETVIT_OK;
}

PV_EXPORT pocketvit_status pocketvit_run(pocketvit_model *model, const uint8_t *rgb,
                                         int32_t *logits) {
  if (!model) return POCKETVIT_ERROR_ARGUMENT;
  if (!rgb) return fail(model, POCKETVIT_ERROR_ARGUMENT, "rgb is NULL", "");
  if (!logits) return fail(model, POCKETVIT_ERROR_ARGUMENT, "logits is NULL", "");
  return run(model, rgb, logits, NULL);
}

PV_EXPORT pocketvit_status pocketvit_profile(pocketvit_model *model, const uint8_t *rgb,
                                             int32_t *logits, uint64_t *layer_nanoseconds) {
  if (!model) return POCKETVIT_ERROR_ARGUMENT;
  if (!rgb) return fail(model, POCKETVIT_ERROR_ARGUMENT, "rgb is NULL", "");
  if (!logits) return fail(model, POCKETVIT_ERROR_ARGUMENT, "logits is NULL", "");
  if (!layer_nanoseconds)
    return fail(model, POCKETVIT_ERROR_ARGUMENT, "layer_nanoseconds is NULL", "");
  return run(model, rgb, logits, layer_nanoseconds);
}

PV_EXPORT const char *pocketvit_layer_name(int32_t layer) {
  int known = layer >= 0 && layer < pv_the_network.info.num_layers;
  return known ? pv_the_network.layer_names[layer] : NULL;
}

PV_EXPORT const char *pocketvit_status_text(pocketvit_status status) {
  switch (status) {
    case POCKETVIT_OK:
      return "no error";
    case POCKETVIT_ERROR_ARGUMENT:
      return "an argument is NULL or out of range";
    case POCKETVIT_ERROR_MEMORY:
      return "not enough memory for the network's arena";
    case POCKETVIT_ERROR_CPU: {
      const char *missing = pv_missing_cpu_feature();
      return missing ? missing : "this CPU lacks an instruction set that the library uses";
    }
    case POCKETVIT_ERROR_KERNEL:
      return "a kernel failed; the library is damaged";
  }
  return "unknown status";
}

PV_EXPORT const char *pocketvit_last_error(const pocketvit_model *model) {
  return model ? model->error : "model is NULL";
}
