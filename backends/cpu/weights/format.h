// SPDX-License-Identifier: Apache-2.0
//
// Which weights this backend takes, and in which panels it keeps them.
#pragma once

#include <string>

#include "kernels/panels.h"
#include "turbomind/abi/tm_backend.hpp"

namespace turbomind::cpu {

// Empty if the weight can be packed, else why not.
std::string unsupported_reason(const tm_weight_desc& desc);

// The next three: only for weights without an unsupported_reason.
PanelFormat panel_format(tm_weight_format format);
size_t packed_bytes(const tm_weight_desc& desc);

// Number of matrices: experts, or 1.
inline int num_matrices(const tm_weight_desc& desc) { return desc.num_experts > 0 ? desc.num_experts : 1; }

// Bytes of one row of `cols` columns as a checkpoint stores it (codes only).
size_t source_row_bytes(tm_weight_format format, int64_t cols);

}  // namespace turbomind::cpu
