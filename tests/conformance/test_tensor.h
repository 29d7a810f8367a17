// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "reference/number.h"
#include "turbomind/runtime/device.h"

namespace turbomind::conformance {

// Deterministic random numbers of the suite (SplitMix64, Steele et al., OOPSLA 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next();
  double uniform();  // [0, 1)
  double normal();   // mean 0, variance 1
  // As normal(), up to 4.5 or so: one of 65536 drawn beforehand, the other bits in its low digits. For whole KV pools.
  double tabled_normal();
  int64_t integer(int64_t low, int64_t high);        // [low, high]
  std::vector<int64_t> permutation(int64_t length);  // of 0 .. length - 1

 private:
  uint64_t state_;
};

enum class Role {
  kInput,   // must come back unchanged
  kOutput,  // poisoned before the call
  kInOut,
};

// A tensor under test: values on the host, and a device buffer with guard bytes around it and in the gaps between
// strided rows. Indices are logical: row-major over the shape.
class TestTensor {
 public:
  // row_gap: unused elements after each row of the first axis.
  TestTensor(const Device& device, std::string name, Role role, DType dtype, std::vector<int64_t> shape,
             int64_t row_gap = 0);

  const std::string& name() const { return name_; }
  Role role() const { return role_; }
  DType dtype() const { return dtype_; }
  int64_t size() const { return size_; }
  int64_t rows() const { return shape_[0]; }
  int64_t row_size() const { return rows() ? size_ / rows() : 0; }

  // The device view, all of it or some rows of the first axis.
  Tensor view() const;
  Tensor rows(int64_t begin, int64_t count) const;

  // Host values before the call.
  void set(int64_t index, double value);
  void set_all(const reference::Values& values);
  // Integers beyond 2^53 do not fit a double.
  void set_word(int64_t index, uint64_t value);
  double get(int64_t index) const;
  reference::Values values() const;
  void fill_normal(Random& random, double sigma = 1);
  void fill_tabled_normal(Random& random, double sigma = 1);
  void fill_uniform(Random& random, double low, double high);

  void upload(Stream& stream);
  void download(Stream& stream);
  // After download().
  double result(int64_t index) const;
  reference::Values results() const;
  const std::vector<uint8_t>& result_image() const { return result_; }
  // Bytes of the results of some rows, for comparison bit by bit.
  std::vector<uint8_t> result_rows(int64_t begin, int64_t count) const;
  // Empty, or which byte outside the elements (or of an input) the call has changed.
  std::string changed_bytes() const;

  // Filled by the case's reference; one per element. Only outputs are compared.
  reference::Values expected;

 private:
  size_t offset(int64_t index) const;

  std::string name_;
  Role role_;
  DType dtype_;
  std::vector<int64_t> shape_;
  int64_t size_;
  int64_t row_stride_;  // elements
  std::vector<uint8_t> image_;
  std::vector<uint8_t> sent_;
  std::vector<uint8_t> result_;
  Buffer buffer_;
};

}  // namespace turbomind::conformance
