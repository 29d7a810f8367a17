// SPDX-License-Identifier: Apache-2.0
//
// The aclnn operators that this plug-in calls: ASCEND_OP(need, Name, parameters...) stands for
//   int aclnn<Name>GetWorkspaceSize(parameters..., uint64_t* bytes, aclOpExecutor** executor)
//   int aclnn<Name>(void* workspace, uint64_t bytes, aclOpExecutor* executor, aclrtStream stream)
// An OPTIONAL operator has a composition or an alternative. The including file declares the short names of types:
// Tensor (const aclTensor*), OutTensor (aclTensor*), Tensors (const aclTensorList*), OutTensors (aclTensorList*),
// Scalar (const aclScalar*), Ints (const aclIntArray*). Included several times; no include guard.
// clang-format off

// Copies, dtypes, constants
ASCEND_OP(REQUIRED, Cast, Tensor, int, OutTensor)
ASCEND_OP(REQUIRED, InplaceCopy, OutTensor, Tensor)
ASCEND_OP(REQUIRED, InplaceZero, OutTensor)
ASCEND_OP(REQUIRED, InplaceFillScalar, OutTensor, Scalar)
ASCEND_OP(REQUIRED, Arange, Scalar, Scalar, Scalar, OutTensor)

// One element from one
ASCEND_OP(REQUIRED, Exp, Tensor, OutTensor)
ASCEND_OP(REQUIRED, Tanh, Tensor, OutTensor)
ASCEND_OP(REQUIRED, Sigmoid, Tensor, OutTensor)
ASCEND_OP(REQUIRED, Round, Tensor, OutTensor)
ASCEND_OP(REQUIRED, Silu, Tensor, OutTensor)
ASCEND_OP(REQUIRED, GeluV2, Tensor, int64_t, OutTensor)
ASCEND_OP(REQUIRED, Relu, Tensor, OutTensor)
ASCEND_OP(REQUIRED, LogicalNot, Tensor, OutTensor)
ASCEND_OP(REQUIRED, Clamp, Tensor, Scalar, Scalar, OutTensor)
ASCEND_OP(REQUIRED, Adds, Tensor, Scalar, Scalar, OutTensor)
ASCEND_OP(REQUIRED, Muls, Tensor, Scalar, OutTensor)
ASCEND_OP(REQUIRED, EqScalar, Tensor, Scalar, OutTensor)
ASCEND_OP(REQUIRED, NeScalar, Tensor, Scalar, OutTensor)
ASCEND_OP(REQUIRED, LtScalar, Tensor, Scalar, OutTensor)
ASCEND_OP(REQUIRED, GtScalar, Tensor, Scalar, OutTensor)
ASCEND_OP(REQUIRED, GeScalar, Tensor, Scalar, OutTensor)

// One element from two, with broadcasting
ASCEND_OP(REQUIRED, Add, Tensor, Tensor, Scalar, OutTensor)
ASCEND_OP(REQUIRED, Sub, Tensor, Tensor, Scalar, OutTensor)
ASCEND_OP(REQUIRED, Mul, Tensor, Tensor, OutTensor)
ASCEND_OP(REQUIRED, Div, Tensor, Tensor, OutTensor)
ASCEND_OP(REQUIRED, Maximum, Tensor, Tensor, OutTensor)
ASCEND_OP(REQUIRED, Minimum, Tensor, Tensor, OutTensor)
ASCEND_OP(REQUIRED, EqTensor, Tensor, Tensor, OutTensor)
ASCEND_OP(REQUIRED, LtTensor, Tensor, Tensor, OutTensor)
ASCEND_OP(REQUIRED, LeTensor, Tensor, Tensor, OutTensor)
ASCEND_OP(REQUIRED, GtTensor, Tensor, Tensor, OutTensor)
ASCEND_OP(REQUIRED, GeTensor, Tensor, Tensor, OutTensor)
ASCEND_OP(REQUIRED, LogicalAnd, Tensor, Tensor, OutTensor)
ASCEND_OP(REQUIRED, LogicalOr, Tensor, Tensor, OutTensor)
ASCEND_OP(REQUIRED, BitwiseAndTensor, Tensor, Tensor, OutTensor)
ASCEND_OP(REQUIRED, BitwiseXorTensor, Tensor, Tensor, OutTensor)
ASCEND_OP(REQUIRED, SWhere, Tensor, Tensor, Tensor, OutTensor)
ASCEND_OP(REQUIRED, InplaceMaskedFillScalar, OutTensor, Tensor, Scalar)

// Reductions, scans, orders
ASCEND_OP(REQUIRED, ReduceSum, Tensor, Ints, bool, int, OutTensor)
ASCEND_OP(REQUIRED, Amax, Tensor, Ints, bool, OutTensor)
ASCEND_OP(REQUIRED, ArgMax, Tensor, int64_t, bool, OutTensor)
ASCEND_OP(REQUIRED, Cumsum, Tensor, int64_t, int, OutTensor)
ASCEND_OP(REQUIRED, Sort, Tensor, bool, int64_t, bool, OutTensor, OutTensor)
ASCEND_OP(REQUIRED, Softmax, Tensor, int64_t, OutTensor)
ASCEND_OP(REQUIRED, LogSoftmax, Tensor, int64_t, OutTensor)

// Indices
ASCEND_OP(REQUIRED, IndexSelect, Tensor, int64_t, Tensor, OutTensor)
ASCEND_OP(REQUIRED, Gather, Tensor, int64_t, Tensor, OutTensor)
ASCEND_OP(REQUIRED, Embedding, Tensor, Tensor, OutTensor)
ASCEND_OP(REQUIRED, ScatterAdd, Tensor, int64_t, Tensor, Tensor, OutTensor)
ASCEND_OP(REQUIRED, InplaceScatter, OutTensor, int64_t, Tensor, Tensor, int64_t)
ASCEND_OP(REQUIRED, ScatterNdUpdate, OutTensor, Tensor, Tensor)

// Layers of a transformer
ASCEND_OP(REQUIRED, Matmul, Tensor, Tensor, OutTensor, int8_t)
ASCEND_OP(OPTIONAL, MatmulWeightNz, Tensor, Tensor, OutTensor, int8_t)
ASCEND_OP(REQUIRED, BatchMatMul, Tensor, Tensor, OutTensor, int8_t)
ASCEND_OP(REQUIRED, RmsNorm, Tensor, Tensor, double, Tensor, Tensor)
ASCEND_OP(OPTIONAL, AddRmsNorm, Tensor, Tensor, Tensor, double, Tensor, Tensor, Tensor)
ASCEND_OP(REQUIRED, LayerNorm, Tensor, Ints, Tensor, Tensor, double, OutTensor, OutTensor, OutTensor)
ASCEND_OP(OPTIONAL, SwiGlu, Tensor, int64_t, Tensor)
ASCEND_OP(OPTIONAL, ScatterPaKvCache, Tensor, OutTensor, Tensor, Tensor, OutTensor, Tensor, Tensor, Tensor, char*, char*, Ints, Ints)
ASCEND_OP(OPTIONAL, FusedInferAttentionScoreV3, Tensor, Tensors, Tensors, Tensor, Tensor, Ints, Ints, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Ints, Tensor, Tensor, Tensor, int64_t, double, int64_t, int64_t, char*, int64_t, int64_t, int64_t, int64_t, int64_t, bool, int64_t, int64_t, Tensor, Tensor)

// Quantised weights; of QuantMatmul either version will do
ASCEND_OP(OPTIONAL, DynamicQuant, Tensor, Tensor, Tensor, Tensor)
ASCEND_OP(OPTIONAL, QuantMatmulV4, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, bool, bool, Tensor)
ASCEND_OP(OPTIONAL, QuantMatmulV5, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, bool, bool, int64_t, Tensor)
ASCEND_OP(OPTIONAL, WeightQuantBatchMatmulV2, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int, Tensor)

// Mixture of experts
ASCEND_OP(OPTIONAL, GroupedMatmulV4, Tensors, Tensors, Tensors, Tensors, Tensors, Tensors, Tensors, Tensors, Tensor, Tensors, Tensors, Tensors, int64_t, int64_t, int64_t, int64_t, OutTensors, OutTensors, OutTensors)
ASCEND_OP(OPTIONAL, MoeInitRoutingV2, Tensor, Tensor, int64_t, int64_t, int64_t, int64_t, int64_t, bool, Tensor, Tensor, Tensor, Tensor)
ASCEND_OP(OPTIONAL, MoeFinalizeRoutingV2, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int64_t, OutTensor)
