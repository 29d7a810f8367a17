// SPDX-License-Identifier: Apache-2.0
#include "executors.h"

#include <bit>
#include <string>

#include "check.h"
#include "library.h"

namespace turbomind::ascend {
namespace {

constexpr uintptr_t kTensorAlignment = 32;  // bytes, of the address aclCreateTensor takes
constexpr int64_t kFractal = 16;            // rows and 16-bit columns of one NZ fractal
constexpr size_t kMostCalls = 4096;         // prompts come in many lengths; a step's calls are soon prepared again

template <class T>
T* require_made(T* object, const char* what) {
  if (!object) throw abi::Error(TM_OUT_OF_MEMORY, std::string(what) + " failed");
  return object;
}

}  // namespace

TensorAddress address_of(const View& view) {
  const auto address = reinterpret_cast<uintptr_t>(view.data);
  const auto beyond = static_cast<int64_t>(address % kTensorAlignment);
  const int64_t bytes = element_bytes(view.type);
  require(beyond % bytes == 0, "tensor", "an address that is a multiple of its elements' size");
  return {reinterpret_cast<void*>(address - static_cast<uintptr_t>(beyond)), beyond / bytes};
}

Descriptions::~Descriptions() {
  const Runtime& acl = library().runtime;
  for (aclTensorList* list : lists_) acl.aclDestroyTensorList(list);
  for (aclTensor* tensor : tensors_) acl.aclDestroyTensor(tensor);
  for (aclScalar* scalar : scalars_) acl.aclDestroyScalar(scalar);
  for (aclIntArray* ints : ints_) acl.aclDestroyIntArray(ints);
}

aclTensor* Descriptions::tensor(const View& view) {
  const auto [data, offset] = address_of(view);
  int64_t span = 1;
  for (int i = 0; i < view.rank; ++i) {
    if (view.dim(i) == 0) span = 0;
    span += span > 0 ? (view.dim(i) - 1) * view.stride[static_cast<size_t>(i)] : 0;
  }
  std::vector<int64_t> storage{offset + span};
  if (view.nz) {
    const int64_t k = view.dim(0);
    const int64_t n = view.dim(1);
    storage = {(k + kFractal - 1) / kFractal, (n + kFractal - 1) / kFractal, kFractal, kFractal};
  }
  aclTensor* made = library().runtime.aclCreateTensor(view.shape.data(), static_cast<uint64_t>(view.rank), view.type,
                                                      view.stride.data(), offset, view.nz ? kAclFormatNz : kAclFormatNd,
                                                      storage.data(), storage.size(), data);
  tensors_.push_back(require_made(made, "aclCreateTensor"));
  return made;
}

aclScalar* Descriptions::scalar(const Number& number) {
  auto real = static_cast<float>(number.value);
  auto integer = static_cast<int64_t>(number.value);
  auto small = static_cast<int32_t>(integer);
  void* value = number.type == kAclFloat   ? static_cast<void*>(&real)
                : number.type == kAclInt32 ? static_cast<void*>(&small)
                                           : static_cast<void*>(&integer);
  scalars_.push_back(require_made(library().runtime.aclCreateScalar(value, number.type), "aclCreateScalar"));
  return scalars_.back();
}

aclIntArray* Descriptions::ints(const std::vector<int64_t>& values) {
  ints_.push_back(require_made(library().runtime.aclCreateIntArray(values.data(), values.size()), "aclCreateIntArray"));
  return ints_.back();
}

// The list owns its tensors from then on.
aclTensorList* Descriptions::list(const std::vector<View>& views) {
  const size_t first = tensors_.size();
  for (const View& view : views) tensor(view);
  lists_.push_back(require_made(library().runtime.aclCreateTensorList(tensors_.data() + first, views.size()),
                                "aclCreateTensorList"));
  tensors_.resize(first);
  return lists_.back();
}

void CallKey::add_tensor(const View& view) {
  const auto [data, offset] = address_of(view);
  words_.push_back(view.type | int64_t{view.nz} << 16 | int64_t{view.rank} << 32);
  words_.push_back(offset);
  for (size_t i = 0; i < static_cast<size_t>(view.rank); ++i) {
    words_.push_back(view.shape[i]);
    words_.push_back(view.stride[i]);
  }
  size_t same = 0;
  while (same < places_.size() && places_[same].data != data) ++same;
  words_.push_back(static_cast<int64_t>(same));
  if (pinned_) words_.push_back(static_cast<int64_t>(reinterpret_cast<intptr_t>(data)));
  places_.push_back({positions_++, data});
}

void CallKey::add_bits(double value) { words_.push_back(std::bit_cast<int64_t>(value)); }

void CallKey::add_text(std::string_view text) {
  words_.push_back(static_cast<int64_t>(text.size()));
  for (const char letter : text) words_.push_back(letter);
}

// FNV-1a over words.
size_t CallKey::hash() const {
  uint64_t hash = 0xCBF29CE484222325;
  for (const int64_t word : words_) hash = (hash ^ static_cast<uint64_t>(word)) * 0x100000001B3;
  return hash ^ hash >> 32;
}

PreparedCall* Executors::find(const CallKey& key) {
  const auto found = calls_.find(key);
  if (found == calls_.end()) return nullptr;
  PreparedCall& call = *found->second;
  for (size_t i = 0; i < key.places().size(); ++i) {
    const auto [position, data] = key.places()[i];
    if (call.addresses[i] == data) continue;
    aclTensor* tensor = call.descriptions.tensors()[i];
    check(library().runtime.aclSetTensorAddr(call.executor, position, tensor, data), "aclSetTensorAddr");
    call.addresses[i] = data;
  }
  return &call;
}

PreparedCall& Executors::keep(CallKey key, std::unique_ptr<PreparedCall> call) {
  if (library().runtime.aclSetAclOpExecutorRepeatable(call->executor) != 0) {
    once_ = std::move(call);
    return *once_;
  }
  if (calls_.size() >= kMostCalls) clear();
  for (const CallKey::Place& place : key.places()) call->addresses.push_back(place.data);
  return *(calls_[std::move(key)] = std::move(call));
}

void Executors::clear() {
  for (const auto& [key, call] : calls_) library().runtime.aclDestroyAclOpExecutor(call->executor);
  calls_.clear();
}

}  // namespace turbomind::ascend
