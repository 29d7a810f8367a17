// SPDX-License-Identifier: Apache-2.0
//
// Philox4x32-10, a counter-based generator. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once

#include <cstdint>

namespace turbomind::cpu {

// First word of the block with key = seed and counter = (position, 0), as a number in [0, 1).
inline double philox_uniform(uint64_t seed, uint64_t position) {
  constexpr uint32_t kMultipliers[2] = {0xD2511F53u, 0xCD9E8D57u};
  constexpr uint32_t kKeySteps[2] = {0x9E3779B9u, 0xBB67AE85u};
  uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  uint32_t counter[4] = {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{kMultipliers[0]} * counter[0];
    const uint64_t b = uint64_t{kMultipliers[1]} * counter[2];
    const uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
                              static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    for (int i = 0; i < 4; ++i) counter[i] = next[i];
    for (int i = 0; i < 2; ++i) key[i] += kKeySteps[i];
  }
  return counter[0] * 0x1p-32;
}

}  // namespace turbomind::cpu
