/* SPDX-License-Identifier: Apache-2.0
 *
 * The aclnn operators of libopapi.so. FAKECANN_DECLARE(Name, parameters...) declares both phases of aclnnName; the
 * order of the parameters is that of op-plugin's calls (BSD-3).
 */
#ifndef FAKECANN_ABI_OPS_H_
#define FAKECANN_ABI_OPS_H_

#include "abi/types.h"

#define FAKECANN_DECLARE(name, ...)                                                                           \
  aclnnStatus aclnn##name##GetWorkspaceSize(__VA_ARGS__, uint64_t* workspace_size, aclOpExecutor** executor); \
  aclnnStatus aclnn##name(void* workspace, uint64_t workspace_size, aclOpExecutor* executor, aclrtStream stream);

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef const aclTensor* FakeIn;
typedef const aclTensorList* FakeIns;
typedef const aclScalar* FakeScalar;
typedef const aclIntArray* FakeInts;

/* Copies and constants. */
FAKECANN_DECLARE(Cast, FakeIn self, aclDataType dtype, aclTensor* out)
FAKECANN_DECLARE(InplaceCopy, aclTensor* self, FakeIn source)
FAKECANN_DECLARE(InplaceZero, aclTensor* self)
FAKECANN_DECLARE(InplaceOne, aclTensor* self)
FAKECANN_DECLARE(InplaceFillScalar, aclTensor* self, FakeScalar value)
FAKECANN_DECLARE(Arange, FakeScalar start, FakeScalar end, FakeScalar step, aclTensor* out)
FAKECANN_DECLARE(Cat, FakeIns tensors, int64_t dim, aclTensor* out)

/* One element from one. */
FAKECANN_DECLARE(Exp, FakeIn self, aclTensor* out)
FAKECANN_DECLARE(Log, FakeIn self, aclTensor* out)
FAKECANN_DECLARE(Neg, FakeIn self, aclTensor* out)
FAKECANN_DECLARE(Abs, FakeIn self, aclTensor* out)
FAKECANN_DECLARE(Sqrt, FakeIn self, aclTensor* out)
FAKECANN_DECLARE(Rsqrt, FakeIn self, aclTensor* out)
FAKECANN_DECLARE(Reciprocal, FakeIn self, aclTensor* out)
FAKECANN_DECLARE(Sin, FakeIn self, aclTensor* out)
FAKECANN_DECLARE(Cos, FakeIn self, aclTensor* out)
FAKECANN_DECLARE(Tanh, FakeIn self, aclTensor* out)
FAKECANN_DECLARE(Sigmoid, FakeIn self, aclTensor* out)
FAKECANN_DECLARE(Round, FakeIn self, aclTensor* out)
FAKECANN_DECLARE(Floor, FakeIn self, aclTensor* out)
FAKECANN_DECLARE(Silu, FakeIn self, aclTensor* out)
FAKECANN_DECLARE(Gelu, FakeIn self, aclTensor* out)
FAKECANN_DECLARE(GeluV2, FakeIn self, int64_t approximate, aclTensor* out)
FAKECANN_DECLARE(Relu, FakeIn self, aclTensor* out)
FAKECANN_DECLARE(LogicalNot, FakeIn self, aclTensor* out)
FAKECANN_DECLARE(Clamp, FakeIn self, FakeScalar low, FakeScalar high, aclTensor* out)
FAKECANN_DECLARE(Adds, FakeIn self, FakeScalar other, FakeScalar alpha, aclTensor* out)
FAKECANN_DECLARE(Subs, FakeIn self, FakeScalar other, FakeScalar alpha, aclTensor* out)
FAKECANN_DECLARE(Muls, FakeIn self, FakeScalar other, aclTensor* out)
FAKECANN_DECLARE(Divs, FakeIn self, FakeScalar other, aclTensor* out)
FAKECANN_DECLARE(EqScalar, FakeIn self, FakeScalar other, aclTensor* out)
FAKECANN_DECLARE(NeScalar, FakeIn self, FakeScalar other, aclTensor* out)
FAKECANN_DECLARE(LtScalar, FakeIn self, FakeScalar other, aclTensor* out)
FAKECANN_DECLARE(LeScalar, FakeIn self, FakeScalar other, aclTensor* out)
FAKECANN_DECLARE(GtScalar, FakeIn self, FakeScalar other, aclTensor* out)
FAKECANN_DECLARE(GeScalar, FakeIn self, FakeScalar other, aclTensor* out)
FAKECANN_DECLARE(BitwiseAndScalar, FakeIn self, FakeScalar other, aclTensor* out)
FAKECANN_DECLARE(BitwiseOrScalar, FakeIn self, FakeScalar other, aclTensor* out)
FAKECANN_DECLARE(BitwiseXorScalar, FakeIn self, FakeScalar other, aclTensor* out)
FAKECANN_DECLARE(PowTensorScalar, FakeIn self, FakeScalar exponent, aclTensor* out)

/* One element from two, with broadcasting. */
FAKECANN_DECLARE(Add, FakeIn self, FakeIn other, FakeScalar alpha, aclTensor* out)
FAKECANN_DECLARE(InplaceAdd, aclTensor* self, FakeIn other, FakeScalar alpha)
FAKECANN_DECLARE(Sub, FakeIn self, FakeIn other, FakeScalar alpha, aclTensor* out)
FAKECANN_DECLARE(Mul, FakeIn self, FakeIn other, aclTensor* out)
FAKECANN_DECLARE(Div, FakeIn self, FakeIn other, aclTensor* out)
FAKECANN_DECLARE(Maximum, FakeIn self, FakeIn other, aclTensor* out)
FAKECANN_DECLARE(Minimum, FakeIn self, FakeIn other, aclTensor* out)
FAKECANN_DECLARE(EqTensor, FakeIn self, FakeIn other, aclTensor* out)
FAKECANN_DECLARE(NeTensor, FakeIn self, FakeIn other, aclTensor* out)
FAKECANN_DECLARE(LtTensor, FakeIn self, FakeIn other, aclTensor* out)
FAKECANN_DECLARE(LeTensor, FakeIn self, FakeIn other, aclTensor* out)
FAKECANN_DECLARE(GtTensor, FakeIn self, FakeIn other, aclTensor* out)
FAKECANN_DECLARE(GeTensor, FakeIn self, FakeIn other, aclTensor* out)
FAKECANN_DECLARE(LogicalAnd, FakeIn self, FakeIn other, aclTensor* out)
FAKECANN_DECLARE(LogicalOr, FakeIn self, FakeIn other, aclTensor* out)
FAKECANN_DECLARE(BitwiseAndTensor, FakeIn self, FakeIn other, aclTensor* out)
FAKECANN_DECLARE(BitwiseOrTensor, FakeIn self, FakeIn other, aclTensor* out)
FAKECANN_DECLARE(BitwiseXorTensor, FakeIn self, FakeIn other, aclTensor* out)
FAKECANN_DECLARE(SWhere, FakeIn condition, FakeIn self, FakeIn other, aclTensor* out)
FAKECANN_DECLARE(InplaceMaskedFillScalar, aclTensor* self, FakeIn mask, FakeScalar value)

/* Reductions, scans, orders. */
FAKECANN_DECLARE(ReduceSum, FakeIn self, FakeInts dims, bool keep_dims, aclDataType dtype, aclTensor* out)
FAKECANN_DECLARE(Mean, FakeIn self, FakeInts dims, bool keep_dims, aclDataType dtype, aclTensor* out)
FAKECANN_DECLARE(Amax, FakeIn self, FakeInts dims, bool keep_dims, aclTensor* out)
FAKECANN_DECLARE(ArgMax, FakeIn self, int64_t dim, bool keep_dim, aclTensor* out)
FAKECANN_DECLARE(Cumsum, FakeIn self, int64_t dim, aclDataType dtype, aclTensor* out)
FAKECANN_DECLARE(Sort, FakeIn self, bool stable, int64_t dim, bool descending, aclTensor* values, aclTensor* indices)
FAKECANN_DECLARE(Topk, FakeIn self, int64_t k, int64_t dim, bool largest, bool sorted, aclTensor* values,
                 aclTensor* indices)
FAKECANN_DECLARE(Softmax, FakeIn self, int64_t dim, aclTensor* out)
FAKECANN_DECLARE(LogSoftmax, FakeIn self, int64_t dim, aclTensor* out)

/* Indices. */
FAKECANN_DECLARE(IndexSelect, FakeIn self, int64_t dim, FakeIn index, aclTensor* out)
FAKECANN_DECLARE(Gather, FakeIn self, int64_t dim, FakeIn index, aclTensor* out)
FAKECANN_DECLARE(Embedding, FakeIn weight, FakeIn indices, aclTensor* out)
FAKECANN_DECLARE(ScatterAdd, FakeIn self, int64_t dim, FakeIn index, FakeIn source, aclTensor* out)
FAKECANN_DECLARE(InplaceScatter, aclTensor* self, int64_t dim, FakeIn index, FakeIn source, int64_t reduce)
FAKECANN_DECLARE(ScatterNdUpdate, aclTensor* self, FakeIn indices, FakeIn updates)

/* Matrix products. */
FAKECANN_DECLARE(Matmul, FakeIn self, FakeIn mat2, aclTensor* out, int8_t cubeMathType)
FAKECANN_DECLARE(Mm, FakeIn self, FakeIn mat2, aclTensor* out, int8_t cubeMathType)
FAKECANN_DECLARE(BatchMatMul, FakeIn self, FakeIn mat2, aclTensor* out, int8_t cubeMathType)
FAKECANN_DECLARE(Addmm, FakeIn self, FakeIn mat1, FakeIn mat2, FakeScalar beta, FakeScalar alpha, aclTensor* out,
                 int8_t cubeMathType)
FAKECANN_DECLARE(MatmulWeightNz, FakeIn self, FakeIn mat2, aclTensor* out, int8_t cubeMathType)
FAKECANN_DECLARE(TransMatmulWeight, aclTensor* weight)
FAKECANN_DECLARE(NpuFormatCast, FakeIn source, aclTensor* destination)
aclnnStatus aclnnCalculateMatmulWeightSizeV2(FakeInts shape, aclDataType dtype, uint64_t* size);
aclnnStatus aclnnNpuFormatCastCalculateSizeAndFormat(FakeIn source, int format, int additional_dtype,
                                                     int64_t** storage_dims, uint64_t* storage_rank,
                                                     int* actual_format);

/* Layers of a transformer. */
FAKECANN_DECLARE(RmsNorm, FakeIn x, FakeIn gamma, double epsilon, FakeIn y, FakeIn rstd)
FAKECANN_DECLARE(AddRmsNorm, FakeIn x1, FakeIn x2, FakeIn gamma, double epsilon, FakeIn y, FakeIn rstd, FakeIn x)
FAKECANN_DECLARE(LayerNorm, FakeIn input, FakeInts normalized_shape, FakeIn weight, FakeIn bias, double epsilon,
                 aclTensor* out, aclTensor* mean, aclTensor* rstd)
FAKECANN_DECLARE(SwiGlu, FakeIn x, int64_t dim, FakeIn out)
FAKECANN_DECLARE(RotaryPositionEmbedding, FakeIn x, FakeIn cos, FakeIn sin, int64_t mode, aclTensor* out)
FAKECANN_DECLARE(ApplyRotaryPosEmbV2, aclTensor* query, aclTensor* key, FakeIn cos, FakeIn sin, int64_t layout,
                 char* rotaryMode)
FAKECANN_DECLARE(ScatterPaKvCache, FakeIn key, aclTensor* keyCache, FakeIn slotMapping, FakeIn value,
                 aclTensor* valueCache, FakeIn compressLens, FakeIn compressSeqOffset, FakeIn seqLens, char* cacheMode,
                 char* scatterMode, FakeInts strides, FakeInts offsets)
#define FAKECANN_ATTENTION_INPUTS                                                                                     \
  FakeIn query, FakeIns key, FakeIns value, FakeIn pseShift, FakeIn attenMask, FakeInts actualSeqLengths,             \
      FakeInts actualSeqLengthsKv, FakeIn deqScale1, FakeIn quantScale1, FakeIn deqScale2, FakeIn quantScale2,        \
      FakeIn quantOffset2, FakeIn antiquantScale, FakeIn antiquantOffset, FakeIn blockTable, FakeIn queryPaddingSize, \
      FakeIn kvPaddingSize, FakeIn keyAntiquantScale, FakeIn keyAntiquantOffset, FakeIn valueAntiquantScale,          \
      FakeIn valueAntiquantOffset, FakeIn keySharedPrefix, FakeIn valueSharedPrefix, FakeInts actualSharedPrefixLen
#define FAKECANN_ATTENTION_ROPE_INPUTS FakeIn queryRope, FakeIn keyRope, FakeIn keyRopeAntiquantScale
#define FAKECANN_ATTENTION_ATTRIBUTES                                                                               \
  int64_t numHeads, double scaleValue, int64_t preTokens, int64_t nextTokens, char *inputLayout,                    \
      int64_t numKeyValueHeads, int64_t sparseMode, int64_t innerPrecise, int64_t blockSize, int64_t antiquantMode, \
      bool softmaxLseFlag, int64_t keyAntiquantMode, int64_t valueAntiquantMode
#define FAKECANN_ATTENTION_OUTPUTS FakeIn attentionOut, FakeIn softmaxLse
FAKECANN_DECLARE(FusedInferAttentionScoreV2, FAKECANN_ATTENTION_INPUTS, FAKECANN_ATTENTION_ATTRIBUTES,
                 FAKECANN_ATTENTION_OUTPUTS)
FAKECANN_DECLARE(FusedInferAttentionScoreV3, FAKECANN_ATTENTION_INPUTS, FAKECANN_ATTENTION_ROPE_INPUTS,
                 FAKECANN_ATTENTION_ATTRIBUTES, FAKECANN_ATTENTION_OUTPUTS)
FAKECANN_DECLARE(FusedInferAttentionScoreV4, FAKECANN_ATTENTION_INPUTS, FAKECANN_ATTENTION_ROPE_INPUTS,
                 FakeIn dequantScaleQuery, FAKECANN_ATTENTION_ATTRIBUTES, int64_t queryQuantMode,
                 FAKECANN_ATTENTION_OUTPUTS)

/* Quantised weights. */
FAKECANN_DECLARE(DynamicQuant, FakeIn x, FakeIn smoothScales, FakeIn y, FakeIn scale)
FAKECANN_DECLARE(QuantMatmulV4, FakeIn x1, FakeIn x2, FakeIn scale, FakeIn offset, FakeIn pertokenScale, FakeIn bias,
                 bool transposeX1, bool transposeX2, FakeIn out)
FAKECANN_DECLARE(QuantMatmulV5, FakeIn x1, FakeIn x2, FakeIn x1Scale, FakeIn x2Scale, FakeIn yScale, FakeIn x1Offset,
                 FakeIn x2Offset, FakeIn yOffset, FakeIn bias, bool transposeX1, bool transposeX2, int64_t groupSize,
                 FakeIn out)
FAKECANN_DECLARE(WeightQuantBatchMatmulV2, FakeIn x, FakeIn weight, FakeIn antiquantScale, FakeIn antiquantOffset,
                 FakeIn quantScale, FakeIn quantOffset, FakeIn bias, int antiquantGroupSize, FakeIn y)

/* Mixture of experts. */
FAKECANN_DECLARE(MoeGatingTopKSoftmaxV2, FakeIn x, FakeIn finished, int64_t k, int64_t renorm, bool softmaxResultFlag,
                 FakeIn y, FakeIn expertIdx, FakeIn softmaxOut)
FAKECANN_DECLARE(MoeInitRoutingV2, FakeIn x, FakeIn expertIdx, int64_t activeNum, int64_t expertCapacity,
                 int64_t expertNum, int64_t dropPadMode, int64_t expertTokensCountOrCumsumFlag,
                 bool expertTokensBeforeCapacityFlag, FakeIn expandedX, FakeIn expandedRowIdx,
                 FakeIn expertTokensCountOrCumsum, FakeIn expertTokensBeforeCapacity)
FAKECANN_DECLARE(MoeFinalizeRoutingV2, FakeIn expandedX, FakeIn expandedRowIdx, FakeIn x1, FakeIn x2, FakeIn bias,
                 FakeIn scales, FakeIn expertIdx, int64_t dropPadMode, aclTensor* out)
FAKECANN_DECLARE(GroupedMatmulV4, FakeIns x, FakeIns weight, FakeIns bias, FakeIns scale, FakeIns offset,
                 FakeIns antiquantScale, FakeIns antiquantOffset, FakeIns perTokenScale, FakeIn groupList,
                 FakeIns activationInput, FakeIns activationQuantScale, FakeIns activationQuantOffset,
                 int64_t splitItem, int64_t groupType, int64_t groupListType, int64_t actType, aclTensorList* out,
                 aclTensorList* activationFeatureOut, aclTensorList* dynQuantScaleOut)

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* FAKECANN_ABI_OPS_H_ */
