/* SPDX-License-Identifier: Apache-2.0
 *
 * Functions of libnnopbase.so: the descriptions that aclnn operators take, and their executors.
 */
#ifndef FAKECANN_ABI_NNOP_H_
#define FAKECANN_ABI_NNOP_H_

#include "abi/types.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

aclnnStatus aclnnInit(const char* config_path);
aclnnStatus aclnnFinalize(void);
aclTensor* aclCreateTensor(const int64_t* view_dims, uint64_t view_rank, aclDataType dtype, const int64_t* strides,
                           int64_t offset, aclFormat format, const int64_t* storage_dims, uint64_t storage_rank,
                           void* data);
aclnnStatus aclDestroyTensor(const aclTensor* tensor);
aclScalar* aclCreateScalar(void* value, aclDataType dtype);
aclnnStatus aclDestroyScalar(const aclScalar* scalar);
aclIntArray* aclCreateIntArray(const int64_t* values, uint64_t size);
aclnnStatus aclDestroyIntArray(const aclIntArray* array);
aclFloatArray* aclCreateFloatArray(const float* values, uint64_t size);
aclnnStatus aclDestroyFloatArray(const aclFloatArray* array);
aclBoolArray* aclCreateBoolArray(const bool* values, uint64_t size);
aclnnStatus aclDestroyBoolArray(const aclBoolArray* array);
aclTensorList* aclCreateTensorList(const aclTensor* const* tensors, uint64_t size);
aclnnStatus aclDestroyTensorList(const aclTensorList* list);
aclScalarList* aclCreateScalarList(const aclScalar* const* scalars, uint64_t size);
aclnnStatus aclDestroyScalarList(const aclScalarList* list);
aclnnStatus aclGetViewShape(const aclTensor* tensor, int64_t** view_dims, uint64_t* view_rank);
aclnnStatus aclGetFormat(const aclTensor* tensor, aclFormat* format);
aclnnStatus aclSetAclOpExecutorRepeatable(aclOpExecutor* executor);
aclnnStatus aclDestroyAclOpExecutor(aclOpExecutor* executor);
aclnnStatus aclSetTensorAddr(aclOpExecutor* executor, size_t index, aclTensor* tensor, void* address);
aclnnStatus aclSetDynamicTensorAddr(aclOpExecutor* executor, size_t index, size_t relative, aclTensorList* list,
                                    void* address);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* FAKECANN_ABI_NNOP_H_ */
