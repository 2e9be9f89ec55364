/* The parts of TVM's binary interface that its loaders use: mirrors of dlpack 1.x and
 * tvm-ffi 0.1 structures, so that no TVM header is needed to build a library. */
#ifndef POCKETVIT_TVM_ABI_H
#define POCKETVIT_TVM_ABI_H

#include <stdint.h>

enum { PV_CPU = 1 };                                            /* DLDeviceType */
enum { PV_INT = 0, PV_UINT = 1 };                               /* DLDataTypeCode */
enum { PV_INTEGER = 1, PV_TENSOR_POINTER = 7, PV_TENSOR_OBJECT = 70 }; /* TVMFFITypeIndex */
enum { PV_OBJECT_HEADER_BYTES = 24 };                           /* sizeof(TVMFFIObject) */

typedef struct {
  int32_t type, id;
} pv_device;

typedef struct {
  uint8_t code, bits;
  uint16_t lanes;
} pv_dtype;

typedef struct { /* DLTensor */
  void *data;
  pv_device device;
  int32_t ndim;
  pv_dtype dtype;
  int64_t *shape, *strides; /* strides may be NULL: contiguous */
  uint64_t byte_offset;
} pv_tensor;

typedef struct { /* TVMFFIAny */
  int32_t type_index;
  uint32_t zero_padding;
  union {
    int64_t integer;
    double real;
    void *pointer;
  } value;
} pv_any;

#endif
