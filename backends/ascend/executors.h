// SPDX-License-Identifier: Apache-2.0
//
// Calls of aclnn operators that are prepared once and launched again at other addresses. Preparing one (the first
// phase: checks, choice of a kernel, tiling) costs the host more than launching it, and a step asks for the same shapes
// in every layer and the next step for them again.
#pragma once

#include <memory>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "acl/types.h"
#include "view.h"

namespace turbomind::ascend {

// A number handed to an operator as aclScalar.
struct Number {
  double value;
  AclType type = kAclFloat;
};
inline Number whole(int64_t value) { return {static_cast<double>(value), kAclInt64}; }

// Host numbers handed to an operator as aclIntArray.
struct Numbers {
  std::vector<int64_t> values;
};

// Tensors handed to an operator as aclTensorList.
struct Views {
  std::vector<View> views;
};

// The description objects of one call; they live until its second phase returned.
class Descriptions {
 public:
  Descriptions() = default;
  ~Descriptions();
  Descriptions(const Descriptions&) = delete;
  Descriptions& operator=(const Descriptions&) = delete;

  aclTensor* tensor(const View& view);
  aclScalar* scalar(const Number& number);
  aclIntArray* ints(const std::vector<int64_t>& values);
  aclTensorList* list(const std::vector<View>& views);

  const std::vector<aclTensor*>& tensors() const { return tensors_; }

 private:
  std::vector<aclTensor*> tensors_;
  std::vector<aclScalar*> scalars_;
  std::vector<aclIntArray*> ints_;
  std::vector<aclTensorList*> lists_;
};

// Where the description of a view points: addresses are multiples of 32 bytes, and what a view starts beyond one is an
// offset in elements.
struct TensorAddress {
  void* data;
  int64_t offset;
};
TensorAddress address_of(const View& view);

struct PreparedCall {
  Descriptions descriptions;
  uint64_t bytes = 0;  // of scratch memory
  aclOpExecutor* executor = nullptr;
  std::vector<void*> addresses;  // of the described tensors, as bound at present
};

// Lists and arrays of host numbers keep a call from being prepared for more than one launch: the documents number an
// operator's tensors without saying how lists that are left out count, and operators that copy host numbers to the
// device cannot be launched again.
template <class Argument>
inline constexpr bool kMayRepeat = !std::is_same_v<Argument, Numbers> && !std::is_same_v<Argument, Views>;

template <class Parameter>
inline constexpr bool kIsOutput = std::is_same_v<Parameter, aclTensor*>;
template <class Parameter>
inline constexpr bool kIsInput = std::is_same_v<Parameter, const aclTensor*>;

// Operators that update a tensor name it among their inputs: outputs come last elsewhere. Such a tensor is an input and
// an output of one address, and the documents do not say which of its two positions an address is set at: these
// operators are launched again at the same addresses only.
template <class... Parameters>
constexpr bool updates_in_place() {
  bool output = false;
  bool in_place = false;
  bool first = true;
  const auto look = [&](bool is_output, bool is_input) {
    in_place = in_place || (output && is_input) || (first && is_output);
    output = output || is_output;
    first = false;
  };
  (look(kIsOutput<Parameters>, kIsInput<Parameters>), ...);
  return in_place;
}

// What two calls must share to be served by one preparation: everything but the tensors' addresses, of which it counts
// only whether they are the same as another tensor's.
class CallKey {
 public:
  // pinned: the addresses must be the same, too.
  CallKey(const char* op, bool pinned)
      : words_{static_cast<int64_t>(reinterpret_cast<intptr_t>(op))}, pinned_(pinned) {}

  template <class Parameter, class Argument>
  void add(const Argument& argument) {
    if constexpr (std::is_same_v<Argument, View>) {
      add_tensor(argument);
    } else if constexpr (std::is_same_v<Argument, std::nullptr_t>) {
      words_.push_back(kLeftOut);
      if (kIsOutput<Parameter> || kIsInput<Parameter>) ++positions_;
    } else if constexpr (std::is_same_v<Argument, Number>) {
      words_.push_back(argument.type);
      add_bits(argument.value);
    } else if constexpr (std::is_convertible_v<Argument, const char*>) {
      add_text(argument);
    } else if constexpr (std::is_floating_point_v<Argument>) {
      add_bits(static_cast<double>(argument));
    } else {
      words_.push_back(static_cast<int64_t>(argument));
    }
  }

  // A tensor of the call: its position among the operator's, those left out counted, and where it lies.
  struct Place {
    size_t position;
    void* data;
  };
  const std::vector<Place>& places() const { return places_; }
  bool operator==(const CallKey& other) const { return words_ == other.words_; }
  size_t hash() const;

 private:
  static constexpr int64_t kLeftOut = INT64_MIN;

  void add_tensor(const View& view);
  void add_bits(double value);
  void add_text(std::string_view text);

  std::vector<int64_t> words_;
  std::vector<Place> places_;
  size_t positions_ = 0;
  bool pinned_;
};

// Those of one stream, which one host thread issues work on.
class Executors {
 public:
  Executors() = default;
  ~Executors() { clear(); }
  Executors(const Executors&) = delete;
  Executors& operator=(const Executors&) = delete;

  // The call, bound to the key's places. prepare(call) does the first phase. The reference holds until the next
  // call.
  template <class Prepare>
  PreparedCall& find_or_prepare(CallKey key, Prepare prepare) {
    if (PreparedCall* call = find(key)) return *call;
    auto call = std::make_unique<PreparedCall>();
    prepare(*call);
    return keep(std::move(key), std::move(call));
  }

 private:
  struct Hash {
    size_t operator()(const CallKey& key) const { return key.hash(); }
  };

  PreparedCall* find(const CallKey& key);
  PreparedCall& keep(CallKey key, std::unique_ptr<PreparedCall> call);
  void clear();

  std::unordered_map<CallKey, std::unique_ptr<PreparedCall>, Hash> calls_;
  std::unique_ptr<PreparedCall> once_;  // one that CANN does not let be launched again
};

}  // namespace turbomind::ascend
