// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "stream.h"

namespace turbomind::cpu {

class Weight {
 public:
  Weight(Stream&, const tm_weight_desc&, void*) { throw abi::Error(TM_UNSUPPORTED, "no format"); }
};

}  // namespace turbomind::cpu
