/* What the generated driver tells the model-independent sources, and the other way round. */
#ifndef POCKETVIT_NETWORK_H
#define POCKETVIT_NETWORK_H

#include "pocketvit.h"

enum { PV_ALIGNMENT = 64 }; /* bytes: of the arena, and of every tensor in it */

typedef struct {
  pocketvit_info info; /* .threads is for the handle to fill in */
  const char *const *layer_names;
  uint64_t image, logits; /* where they lie, in bytes from the start of the arena */
  int32_t parallel;       /* whether any kernel has a parallel loop */
} pv_network;

/* Defined by the driver. */
extern const pv_network pv_the_network;
const char *pv_missing_cpu_feature(void); /* NULL when the CPU has all */

/* Runs all layers; nanoseconds[i] receives the time that layer i took, unless it is NULL. Returns
 * the layer that failed, or -1. */
int32_t pv_run_layers(uint8_t *arena, uint64_t *nanoseconds);

/* The parameter blob (params.S). */
extern const uint8_t pv_params[];

uint64_t pv_now(void); /* nanoseconds */

#endif
