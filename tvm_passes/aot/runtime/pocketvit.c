/* The C interface: handles, running, profiling. */
#include "network.h"
#include "pool.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PV_EXPORT __attribute__((visibility("default")))

struct pocketvit_model {
  uint8_t *arena;
  pv_pool *pool;
  char error[256];
};

static size_t image_bytes(const pocketvit_info *info) {
  return (size_t)info->height * (size_t)info->width * (size_t)info->channels;
}

uint64_t pv_now(void) {
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

static pocketvit_status run(pocketvit_model *model, const uint8_t *rgb, int32_t *logits,
                            uint64_t *nanoseconds) {
  const pv_network *network = &pv_the_network;
  const pocketvit_info *info = &network->info;
  pv_pool_enter(model->pool);
  /* The caller's pointers may be unaligned. */
  memcpy(model->arena + network->image, rgb, image_bytes(info));
  int32_t failed = pv_run_layers(model->arena, nanoseconds);
  pv_pool_leave(model->pool);
  if (failed >= 0)
    return fail(model, POCKETVIT_ERROR_KERNEL, "kernel failed in layer ",
                network->layer_names[failed]);
  memcpy(logits, model->arena + network->logits, (size_t)info->num_classes * sizeof *logits);
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

  /* One block: the handle, then the arena. */
  size_t head = (sizeof(pocketvit_model) + PV_ALIGNMENT - 1) / PV_ALIGNMENT * PV_ALIGNMENT;
  void *block = NULL;
  if (posix_memalign(&block, PV_ALIGNMENT, head + network->info.arena_bytes))
    return POCKETVIT_ERROR_MEMORY;
  pocketvit_model *created = block;
  created->arena = (uint8_t *)block + head;
  created->pool = network->parallel ? pv_pool_create(options ? options->threads : 0) : NULL;
  created->error[0] = 0;
  *model = created;
  return POCKETVIT_OK;
}

PV_EXPORT void pocketvit_destroy(pocketvit_model *model) {
  if (!model) return;
  pv_pool_destroy(model->pool);
  free(model);
}

PV_EXPORT pocketvit_status pocketvit_get_info(const pocketvit_model *model, pocketvit_info *info) {
  if (!model || !info) return POCKETVIT_ERROR_ARGUMENT;
  *info = pv_the_network.info;
  info->threads = pv_pool_threads(model->pool);
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
      return "a kernel found no memory to work in";
  }
  return "unknown status";
}

PV_EXPORT const char *pocketvit_last_error(const pocketvit_model *model) {
  return model ? model->error : "model is NULL";
}
