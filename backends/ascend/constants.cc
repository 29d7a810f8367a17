// SPDX-License-Identifier: Apache-2.0
#include "constants.h"

#include <cstring>
#include <vector>

#include "stream.h"

namespace turbomind::ascend {
namespace {

constexpr int64_t kMaskSize = 2048;  // the size FusedInferAttentionScore wants for its sparse modes
constexpr int64_t kRounds = 10;
constexpr size_t kAlignment = 512;

// Philox4x32: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
constexpr int64_t kFactors[2] = {0xCD9E8D57, 0xD2511F53};
constexpr int64_t kKeyIncrements[2] = {0x9E3779B9, 0xBB67AE85};

// Tables one after the other in host memory.
class Image {
 public:
  template <class T>
  size_t add(const std::vector<T>& values) {
    const size_t offset = (bytes_.size() + kAlignment - 1) / kAlignment * kAlignment;
    bytes_.resize(offset + values.size() * sizeof(T));
    std::memcpy(bytes_.data() + offset, values.data(), values.size() * sizeof(T));
    return offset;
  }
  const std::vector<uint8_t>& bytes() const { return bytes_; }

 private:
  std::vector<uint8_t> bytes_;
};

}  // namespace

Constants::Constants(Context& context) {
  std::vector<uint8_t> mask(static_cast<size_t>(kMaskSize * kMaskSize));
  for (int64_t row = 0; row < kMaskSize; ++row) {
    for (int64_t col = row + 1; col < kMaskSize; ++col) mask[static_cast<size_t>(row * kMaskSize + col)] = 1;
  }
  std::vector<int64_t> increments;
  for (int64_t round = 0; round < kRounds; ++round) {
    for (const int64_t increment : kKeyIncrements) increments.push_back(round * increment);
  }
  Image image;
  const size_t mask_at = image.add(mask);
  const size_t bits_at = image.add(std::vector<uint8_t>{1, 2, 4, 8, 16, 32, 64, 128});
  const size_t word_at = image.add(std::vector<int64_t>{0xFFFFFFFF});
  const size_t factors_at = image.add(std::vector<int64_t>{kFactors[0], kFactors[1]});
  const size_t increments_at = image.add(increments);

  memory_ = Memory(TM_MEMORY_DEVICE, image.bytes().size());
  const auto at = [&](size_t offset) { return static_cast<std::byte*>(memory_.data()) + offset; };
  causal_mask_ = make_view(at(mask_at), kAclBool, {kMaskSize, kMaskSize});
  bits_ = make_view(at(bits_at), kAclUint8, {8});
  low_word_ = make_view(at(word_at), kAclInt64, {1});
  factors_ = make_view(at(factors_at), kAclInt64, {2});
  increments_ = make_view(at(increments_at), kAclInt64, {kRounds, 2});
  Stream stream(context);
  stream.copy_async(memory_.data(), image.bytes().data(), image.bytes().size(), TM_HOST_TO_DEVICE);
  stream.synchronize();
}

}  // namespace turbomind::ascend
