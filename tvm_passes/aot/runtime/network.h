/* What the generated driver tells the model-independent sources. */
#ifndef POCKETVIT_NETWORK_H
#define POCKETVIT_NETWORK_H

#include "pocketvit.h"
#include "tvm_abi.h"

enum { PV_ALIGNMENT = 64, PV_MAX_ARGUMENTS = 32 };

/* A tensor before it has an address. */
typedef struct {
  uint8_t in_arena; /* else among the parameters */
  uint64_t offset;  /* bytes */
  int32_t ndim;
  pv_dtype dtype;
  const int64_t *shape;
} pv_tensor_spec;

typedef struct {
  pocketvit_info info;
  const char *const *layer_names;
  const pv_tensor_spec *tensors;
  int32_t num_tensors, image, logits; /* image and logits are indices of tensors */
} pv_network;

/* Defined by the driver. */
extern const pv_network pv_the_network;
const char *pv_missing_cpu_feature(void); /* NULL when the CPU has all */
int pv_run_layers(pv_tensor *tensors, uint64_t *nanoseconds); /* failed layer, or -1 */

/* The parameter blob (params.S). */
extern const uint8_t pv_params[];

/* Calls one kernel; adds its time to *nanoseconds unless NULL. Returns the kernel's status. */
int pv_call(pv_kernel kernel, pv_tensor *const *tensors, int32_t count, uint64_t *nanoseconds);

#endif
