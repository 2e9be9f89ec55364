/* PocketViT: an image classifier in one shared library, integers only.
 *
 * Thread safety: handles are independent of each other and may run at the same time on different
 * threads; one handle serves one call at a time. The library keeps no other mutable state.
 *
 * Threads of its own: a handle starts them when it is made and joins them when it is destroyed.
 * They help the thread that calls pocketvit_run, for the time of the call, and sleep otherwise. The
 * logits do not depend on their number.
 */
#ifndef POCKETVIT_H
#define POCKETVIT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when a structure or a signature below changes. */
#define POCKETVIT_ABI_VERSION 1

/* A network ready to run; owns all the memory that it works in. */
typedef struct pocketvit_model pocketvit_model;

typedef enum pocketvit_status {
  POCKETVIT_OK = 0,
  POCKETVIT_ERROR_ARGUMENT = 1, /* a NULL pointer or an option out of range */
  POCKETVIT_ERROR_MEMORY = 2,   /* the arena could not be allocated */
  POCKETVIT_ERROR_CPU = 3,      /* this CPU lacks an instruction set that the library uses */
  POCKETVIT_ERROR_KERNEL = 4    /* a kernel found no memory to work in */
} pocketvit_status;

typedef struct pocketvit_options {
  /* The most threads that work on one image, the caller's included; 1 starts none, and no more
   * than 16 are used. 0: as many as there are big cores among those that the process may use, at
   * most 4. On ARM the kernel says which are big (cpu_capacity above half of the greatest, or else
   * not of the slowest cpuinfo_max_freq), the library's threads stay on them where that is
   * permitted, and if nothing is known one thread is used; elsewhere all cores are big. */
  int32_t threads;
} pocketvit_options;

typedef struct pocketvit_info {
  uint32_t abi_version;
  int32_t height, width, channels; /* of the input image, in pixels; channels is 3 */
  int32_t num_classes;
  int32_t num_layers;
  int32_t threads;          /* that this handle really uses, the caller's included */
  float logits_scale;       /* real logit = integer logit * logits_scale */
  uint64_t arena_bytes;     /* working memory of one handle */
  uint64_t parameter_bytes; /* constants inside the library */
  const char *name;         /* model; all strings live as long as the library is loaded */
  const char *target;       /* e.g. "android-arm64" */
  const char *isa;          /* e.g. "neon-dotprod" */
} pocketvit_info;

/* POCKETVIT_ABI_VERSION of the library; compare it before anything else when loading by name. */
uint32_t pocketvit_abi_version(void);

/* Makes a handle. `options` may be NULL. On failure *model is NULL. */
pocketvit_status pocketvit_create(const pocketvit_options *options, pocketvit_model **model);

/* Frees a handle; NULL is allowed. No handle may be left when the library is unloaded. */
void pocketvit_destroy(pocketvit_model *model);

pocketvit_status pocketvit_get_info(const pocketvit_model *model, pocketvit_info *info);

/* Classifies one image.
 *   rgb     height * width * 3 bytes, row by row, red green blue, any alignment
 *   logits  receives num_classes integers; the largest is the answer
 */
pocketvit_status pocketvit_run(pocketvit_model *model, const uint8_t *rgb, int32_t *logits);

/* As pocketvit_run, and writes the time spent in each of num_layers layers, in nanoseconds. */
pocketvit_status pocketvit_profile(pocketvit_model *model, const uint8_t *rgb, int32_t *logits,
                                   uint64_t *layer_nanoseconds);

/* Name of a layer, or NULL when `layer` is not in [0, num_layers). */
const char *pocketvit_layer_name(int32_t layer);

/* What a status means, in one sentence. */
const char *pocketvit_status_text(pocketvit_status status);

/* Why the last run or profile of this handle failed; "" when it did not. */
const char *pocketvit_last_error(const pocketvit_model *model);

#ifdef __cplusplus
}
#endif
#endif
