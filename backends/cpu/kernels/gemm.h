// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace turbomind::cpu {

struct GemmKernels {};

}  // namespace turbomind::cpu
