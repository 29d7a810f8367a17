// SPDX-License-Identifier: Apache-2.0
#include "profile.h"

#include <charconv>

#include "check.h"

namespace turbomind::ascend {
namespace {

struct Version {
  int major = 0;
  int minor = 0;
};

// "8.5.0", "8.3.RC1", "9.0.0": the numbers before the second dot.
Version parse_version(const std::string& text) {
  Version version;
  const char* end = text.data() + text.size();
  const auto [dot, error] = std::from_chars(text.data(), end, version.major);
  if (error == std::errc{} && dot != end) std::from_chars(dot + 1, end, version.minor);
  return version;
}

bool begins(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }

}  // namespace

Profile make_profile(const std::string& soc, const std::string& text) {
  Profile profile;
  profile.soc = soc;
  profile.version = text;
  const Version version = parse_version(text);
  constexpr int kLeastMajor = 8;
  require_supported(version.major == 0 || version.major >= kLeastMajor,
                    "CANN " + text + ": expected version 8.0 or later");
  if (begins(soc, "Ascend910_93")) {
    profile.family = "Atlas A3";
  } else if (begins(soc, "Ascend910B")) {
    profile.family = "Atlas A2";
  } else if (begins(soc, "Ascend950")) {
    // FusedInferAttentionScore V1 to V4 answer 361001 there and V5 is not written against yet.
    profile.family = "Ascend 950";
    profile.fused_attention = false;
    profile.finalize_f16 = true;
  } else if (begins(soc, "Ascend310P")) {
    throw abi::Error(TM_UNSUPPORTED, soc +
                                         ": Atlas 300I products multiply no float32 matrices and have no fused "
                                         "attention in TND layout; the ascend backend takes Atlas A2, A3 and 950");
  } else {
    throw abi::Error(TM_UNSUPPORTED, soc + ": expected an Ascend 910B, 910_93 or 950");
  }
  profile.max_streams = 1984;
  // CANN 8.5 and before: 128 in bfloat16 only. Later: float16 too, and every multiple of 16 up to 256.
  const bool wide = version.major >= 9;
  profile.fused_attention_f16 = wide;
  profile.attention_dims = wide ? std::vector<int32_t>{64, 128, 192, 256} : std::vector<int32_t>{128};
  return profile;
}

int32_t padded_head_dim(const Profile& profile, int32_t dim) {
  for (const int32_t size : profile.attention_dims) {
    if (dim <= size) return size;
  }
  return 0;
}

}  // namespace turbomind::ascend
