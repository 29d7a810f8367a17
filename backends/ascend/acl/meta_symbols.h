// SPDX-License-Identifier: Apache-2.0
//
// The functions of aclnn's base library (tensors, executors): ASCEND_SYMBOL(need, result, name, (parameters)). Included
// several times; no include guard.
// clang-format off
ASCEND_SYMBOL(REQUIRED, aclTensor*, aclCreateTensor, (const int64_t* view_shape, uint64_t view_rank, int dtype, const int64_t* strides, int64_t offset, int format, const int64_t* storage_shape, uint64_t storage_rank, void* data))
ASCEND_SYMBOL(REQUIRED, int, aclDestroyTensor, (const aclTensor* tensor))
ASCEND_SYMBOL(REQUIRED, aclScalar*, aclCreateScalar, (void* value, int dtype))
ASCEND_SYMBOL(REQUIRED, int, aclDestroyScalar, (const aclScalar* scalar))
ASCEND_SYMBOL(REQUIRED, aclIntArray*, aclCreateIntArray, (const int64_t* values, uint64_t count))
ASCEND_SYMBOL(REQUIRED, int, aclDestroyIntArray, (const aclIntArray* array))
ASCEND_SYMBOL(REQUIRED, aclTensorList*, aclCreateTensorList, (const aclTensor* const* tensors, uint64_t count))
ASCEND_SYMBOL(REQUIRED, int, aclDestroyTensorList, (const aclTensorList* list))
ASCEND_SYMBOL(REQUIRED, int, aclSetAclOpExecutorRepeatable, (aclOpExecutor* executor))
ASCEND_SYMBOL(REQUIRED, int, aclDestroyAclOpExecutor, (aclOpExecutor* executor))
ASCEND_SYMBOL(REQUIRED, int, aclSetTensorAddr, (aclOpExecutor* executor, size_t index, aclTensor* tensor, void* data))
