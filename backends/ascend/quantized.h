// SPDX-License-Identifier: Apache-2.0
//
// Weights whose codes the matrix unit takes as they are: QuantMatmul on int8 activations, WeightQuantBatchMatmul on
// 16-bit ones.
#pragma once

#include "weight.h"

namespace turbomind::ascend {

bool is_quantized(tm_weight_format format);
// Empty: the operators take it.
std::string reason_against_quantized(const tm_weight_desc& desc);
void set_quantized_layout(const tm_weight_desc& desc, WeightLayout* layout);
void pack_quantized(Stream& stream, const tm_weight_desc& desc, const WeightLayout& layout, void* dst);

}  // namespace turbomind::ascend
