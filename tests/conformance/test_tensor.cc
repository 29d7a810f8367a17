// SPDX-License-Identifier: Apache-2.0
#include "test_tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>

namespace turbomind::conformance {
namespace {

constexpr size_t kGuardBytes = 256;
constexpr uint8_t kGuardByte = 0xA5;
constexpr uint8_t kPoisonByte = 0xFF;  // a NaN in every float dtype, -1 in integers

}  // namespace

uint64_t Random::next() {
  uint64_t x = state_ += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

double Random::uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

double Random::normal() {
  const double radius = std::sqrt(-2 * std::log(1 - uniform()));
  return radius * std::cos(6.283185307179586 * uniform());
}

double Random::tabled_normal() {
  static const std::vector<double> table = [] {
    Random source(1);
    std::vector<double> drawn(size_t{1} << 16);
    for (double& value : drawn) value = source.normal();
    return drawn;
  }();
  const uint64_t bits = next();
  constexpr uint64_t kRest = (uint64_t{1} << 48) - 1;
  return table[bits >> 48] * (1 + static_cast<double>(bits & kRest) * 0x1p-60);
}

int64_t Random::integer(int64_t low, int64_t high) {
  return low + static_cast<int64_t>(next() % static_cast<uint64_t>(high - low + 1));
}

std::vector<int64_t> Random::permutation(int64_t length) {
  std::vector<int64_t> order(static_cast<size_t>(length));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = length - 1; i > 0; --i) {
    std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(integer(0, i))]);
  }
  return order;
}

TestTensor::TestTensor(const Device& device, std::string name, Role role, DType dtype, std::vector<int64_t> shape,
                       int64_t row_gap)
    : name_(std::move(name)), role_(role), dtype_(dtype), shape_(std::move(shape)) {
  size_ = std::accumulate(shape_.begin(), shape_.end(), int64_t{1}, std::multiplies<>());
  row_stride_ = std::accumulate(shape_.begin() + 1, shape_.end(), int64_t{1}, std::multiplies<>()) + row_gap;
  const size_t payload = static_cast<size_t>(shape_[0] * row_stride_) * dtype_size(dtype_);
  image_.assign(payload + 2 * kGuardBytes, kGuardByte);
  const size_t row_bytes = static_cast<size_t>(row_size()) * dtype_size(dtype_);
  for (int64_t row = 0; row_bytes > 0 && row < rows(); ++row) {
    std::memset(image_.data() + offset(row * row_size()), role_ == Role::kOutput ? kPoisonByte : 0, row_bytes);
  }
  buffer_ = Buffer(device, image_.size());
}

size_t TestTensor::offset(int64_t index) const {
  const int64_t place = index / row_size() * row_stride_ + index % row_size();
  return kGuardBytes + static_cast<size_t>(place) * dtype_size(dtype_);
}

Tensor TestTensor::view() const { return rows(0, rows()); }

Tensor TestTensor::rows(int64_t begin, int64_t count) const {
  Tensor view = make_tensor(static_cast<char*>(buffer_.data()) + kGuardBytes, dtype_, shape_);
  if (shape_.size() > 1 || row_stride_ == 1) view.stride[0] = row_stride_;
  return row_slice(view, begin, count);
}

void TestTensor::set(int64_t index, double value) { reference::store(dtype_, image_.data() + offset(index), 0, value); }

void TestTensor::set_all(const reference::Values& values) {
  for (int64_t i = 0; i < size_; ++i) set(i, values[static_cast<size_t>(i)]);
}

void TestTensor::set_word(int64_t index, uint64_t value) {
  std::memcpy(image_.data() + offset(index), &value, dtype_size(dtype_));
}

double TestTensor::get(int64_t index) const { return reference::load(dtype_, image_.data() + offset(index), 0); }

reference::Values TestTensor::values() const {
  reference::Values values(static_cast<size_t>(size_));
  for (int64_t i = 0; i < size_; ++i) values[static_cast<size_t>(i)] = get(i);
  return values;
}

void TestTensor::fill_normal(Random& random, double sigma) {
  for (int64_t i = 0; i < size_; ++i) set(i, sigma * random.normal());
}

void TestTensor::fill_tabled_normal(Random& random, double sigma) {
  for (int64_t i = 0; i < size_; ++i) set(i, sigma * random.tabled_normal());
}

void TestTensor::fill_uniform(Random& random, double low, double high) {
  for (int64_t i = 0; i < size_; ++i) set(i, low + (high - low) * random.uniform());
}

void TestTensor::upload(Stream& stream) {
  sent_ = image_;
  stream.copy(buffer_.data(), sent_.data(), sent_.size(), TM_HOST_TO_DEVICE);
}

void TestTensor::download(Stream& stream) {
  result_.resize(sent_.size());
  stream.copy(result_.data(), buffer_.data(), result_.size(), TM_DEVICE_TO_HOST);
}

double TestTensor::result(int64_t index) const { return reference::load(dtype_, result_.data() + offset(index), 0); }

reference::Values TestTensor::results() const {
  reference::Values values(static_cast<size_t>(size_));
  for (int64_t i = 0; i < size_; ++i) values[static_cast<size_t>(i)] = result(i);
  return values;
}

std::vector<uint8_t> TestTensor::result_rows(int64_t begin, int64_t count) const {
  std::vector<uint8_t> bytes;
  if (row_size() == 0) return bytes;
  for (int64_t row = begin; row < begin + count; ++row) {
    const uint8_t* at = result_.data() + offset(row * row_size());
    bytes.insert(bytes.end(), at, at + static_cast<size_t>(row_size()) * dtype_size(dtype_));
  }
  return bytes;
}

std::string TestTensor::changed_bytes() const {
  std::vector<uint8_t> allowed = sent_;
  if (role_ != Role::kInput && size_ > 0) {
    const size_t row_bytes = static_cast<size_t>(row_size()) * dtype_size(dtype_);
    for (int64_t row = 0; row < rows(); ++row) {
      const size_t at = offset(row * row_size());
      std::memcpy(allowed.data() + at, result_.data() + at, row_bytes);
    }
  }
  if (std::memcmp(allowed.data(), result_.data(), allowed.size()) == 0) return {};
  const auto changed = std::mismatch(allowed.begin(), allowed.end(), result_.begin()).first - allowed.begin();
  return name_ + ": byte " + std::to_string(changed - static_cast<int64_t>(kGuardBytes)) + " of " +
         std::to_string(sent_.size() - 2 * kGuardBytes) +
         (role_ == Role::kInput ? " of an input was changed" : " outside the elements was changed");
}

}  // namespace turbomind::conformance
