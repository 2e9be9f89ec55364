/* Compiles only if our mirrors of TVM's structures are what TVM's own header says. */
#include <stddef.h>
#include <tvm/ffi/c_api.h>

#include "tvm_abi.h"

#define SAME_SIZE(theirs, ours) _Static_assert(sizeof(theirs) == sizeof(ours), #theirs)
#define SAME_OFFSET(theirs, field, ours, mirror) \
  _Static_assert(offsetof(theirs, field) == offsetof(ours, mirror), #theirs "." #field)

SAME_SIZE(DLTensor, pv_tensor);
SAME_OFFSET(DLTensor, data, pv_tensor, data);
SAME_OFFSET(DLTensor, device, pv_tensor, device);
SAME_OFFSET(DLTensor, ndim, pv_tensor, ndim);
SAME_OFFSET(DLTensor, dtype, pv_tensor, dtype);
SAME_OFFSET(DLTensor, shape, pv_tensor, shape);
SAME_OFFSET(DLTensor, strides, pv_tensor, strides);
SAME_OFFSET(DLTensor, byte_offset, pv_tensor, byte_offset);

SAME_SIZE(DLDevice, pv_device);
SAME_OFFSET(DLDevice, device_type, pv_device, type);
SAME_OFFSET(DLDevice, device_id, pv_device, id);

SAME_SIZE(DLDataType, pv_dtype);
SAME_OFFSET(DLDataType, code, pv_dtype, code);
SAME_OFFSET(DLDataType, bits, pv_dtype, bits);
SAME_OFFSET(DLDataType, lanes, pv_dtype, lanes);

SAME_SIZE(TVMFFIAny, pv_any);
SAME_OFFSET(TVMFFIAny, type_index, pv_any, type_index);
SAME_OFFSET(TVMFFIAny, zero_padding, pv_any, zero_padding);
SAME_OFFSET(TVMFFIAny, v_ptr, pv_any, value);

_Static_assert(sizeof(TVMFFIObject) == PV_OBJECT_HEADER_BYTES, "TVMFFIObject");
_Static_assert((int)kTVMFFIInt == PV_INTEGER, "kTVMFFIInt");
_Static_assert((int)kTVMFFIDLTensorPtr == PV_TENSOR_POINTER, "kTVMFFIDLTensorPtr");
_Static_assert((int)kTVMFFITensor == PV_TENSOR_OBJECT, "kTVMFFITensor");
_Static_assert((int)kDLCPU == PV_CPU, "kDLCPU");
_Static_assert((int)kDLInt == PV_INT && (int)kDLUInt == PV_UINT, "DLDataTypeCode");

/* The same call signature. */
static int callee(void *self, const TVMFFIAny *args, int32_t count, TVMFFIAny *result) {
  return self && args && count && result;
}
TVMFFISafeCallType theirs = callee;
