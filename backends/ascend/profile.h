// SPDX-License-Identifier: Apache-2.0
//
// What the product at hand can do, by its SoC name and CANN's version. Facts are those of the operators' public
// documents; a profile that lacks something refuses it with a reason.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace turbomind::ascend {

struct Profile {
  std::string soc;      // as aclrtGetSocName gives it
  std::string family;   // "Atlas A2", ...
  std::string version;  // of CANN; empty: unknown
  bool bf16 = true;     // the matrix and vector units take bfloat16
  bool f32_matrix = true;
  bool fused_attention = true;          // FusedInferAttentionScore V3 in TND with block tables
  bool fused_attention_f16 = true;      // for float16 too
  std::vector<int32_t> attention_dims;  // head sizes it is called with; others are padded to the next
  bool finalize_f16 = false;            // MoeFinalizeRoutingV2 weighs float16 rows by float32
  int64_t max_streams = 0;
};

// Throws abi::Error (TM_UNSUPPORTED) for a SoC or a version that this plug-in does not know.
Profile make_profile(const std::string& soc, const std::string& version);

// Smallest of the profile's head sizes that holds dim; 0: none does.
int32_t padded_head_dim(const Profile& profile, int32_t dim);

}  // namespace turbomind::ascend
