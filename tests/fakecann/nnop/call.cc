// SPDX-License-Identifier: Apache-2.0
#include "nnop/call.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>

#include "abi/control.h"
#include "abi/nnop.h"
#include "nnop/contract.h"
#include "runtime/memory.h"

struct aclOpExecutor {
  std::string op;
  std::shared_ptr<std::vector<fakecann::Argument>> arguments;
  fakecann::Work work;
  uint64_t workspace = 0;
  bool is_repeatable = false;
  bool is_used = false;
};

namespace fakecann {
namespace {

// Numbers in a workspace mean nothing: it is filled with this before each task that uses it.
constexpr int kScribble = 0xA5;

// Bytes of the storage that a view reaches, from its first to past its last.
struct Extent {
  int64_t begin;
  int64_t end;
};

Extent extent_of(const View& view) {
  if (view.format == ACL_FORMAT_FRACTAL_NZ) return {0, count_of(view.storage) * bits_of(view.dtype) / 8};
  int64_t low = view.offset, high = view.offset;
  for (int axis = 0; axis < view.rank(); ++axis) {
    const int64_t reach = (view.dims[axis] - 1) * view.strides[axis];
    (reach < 0 ? low : high) += reach;
  }
  return {low * bits_of(view.dtype) / 8, ((high + 1) * bits_of(view.dtype) + 7) / 8};
}

char* resolve(const Argument& argument, int device) {
  const View& view = argument.view;
  if (view.count() == 0) return nullptr;
  const Extent extent = extent_of(view);
  char* first = static_cast<char*>(view.data) + extent.begin;
  char* alias = Memory::instance().alias(first, static_cast<size_t>(extent.end - extent.begin), device);
  return view.format == ACL_FORMAT_FRACTAL_NZ ? alias : alias - extent.begin + view.offset * bits_of(view.dtype) / 8;
}

aclOpExecutor* find_executor(aclOpExecutor* executor) {
  if (executor == nullptr) fail(kNullParameter, "null executor");
  if (serial_of(executor) == 0)
    fail(kBadParameter, "not a live executor; one that is not repeatable serves one launch");
  return executor;
}

void check_workspace(const aclOpExecutor& executor, const void* workspace, uint64_t size, int device) {
  if (size < executor.workspace) {
    fail(kBadParameter, executor.op + " asked for a workspace of " + std::to_string(executor.workspace) +
                            " bytes and got " + std::to_string(size));
  }
  if (executor.workspace == 0) return;
  if (!Memory::instance().is_device(workspace)) fail(kBadParameter, "the workspace is not device memory");
  if (reinterpret_cast<uintptr_t>(workspace) % 32 != 0) fail(kBadParameter, "the workspace is not aligned to 32 bytes");
  try {
    Memory::instance().alias(workspace, size, device);
  } catch (const Failure&) {
    fail(kBadParameter, "the workspace is not one live allocation of this device");
  }
}

// A null address, or one outside device memory, is seen before anything runs.
void check_addresses(const std::vector<Argument>& arguments) {
  for (const Argument& argument : arguments) {
    if (argument.view.count() > 0 && !Memory::instance().is_device(argument.view.data)) {
      fail(kBadParameter, argument.name + " does not lie in device memory");
    }
  }
}

std::set<std::string>& operators_used() {
  static auto* names = new std::set<std::string>;
  return *names;
}

std::atomic<uint64_t> preparations{0};

uint64_t workspace_size() { return config().exact_workspace ? 0 : 32 * (1 + draw(2048)); }

}  // namespace

void DataRule::refuse(const std::string& found) const {
  note_refusal(op, text);
  fail(kAiCoreException, "aclnn" + op + " asks for \"" + text + "\"; found " + found);
}

Bound::Bound(const std::string& op, const std::vector<Argument>& arguments, Stream& stream)
    : op_(op), arguments_(arguments) {
  for (const Argument& argument : arguments) bytes_.push_back(resolve(argument, stream.context->device));
}

DataRule Bound::rule(const char* text) const {
  note_rule(op_, text);
  return {op_, text};
}

int Call::add(const char* name, const aclTensor* tensor, bool is_output, int slot) {
  const int position = positions_++;
  if (tensor == nullptr) {
    nulls_.emplace_back(name);
    return -1;
  }
  const uint64_t serial = serial_of(tensor);
  if (serial == 0) fail(kBadParameter, std::string(name) + " is not a live tensor");
  given_[name] = true;
  arguments_.push_back({name, tensor->view, serial, tensor, slot, position, is_output});
  return static_cast<int>(arguments_.size()) - 1;
}

int Call::in(const char* name, const aclTensor* tensor) { return add(name, tensor, false, slots_++); }

int Call::out(const char* name, const aclTensor* tensor) { return add(name, tensor, true, slots_++); }

std::vector<int> Call::in(const char* name, const aclTensorList* list) {
  std::vector<int> indices;
  const int slot = slots_++;
  if (list == nullptr) {
    nulls_.emplace_back(name);
    return indices;
  }
  if (serial_of(list) == 0) fail(kBadParameter, std::string(name) + " is not a live tensor list");
  for (const aclTensor* tensor : list->tensors) indices.push_back(add(name, tensor, false, slot));
  return indices;
}

std::vector<int> Call::out(const char* name, const aclTensorList* list) {
  const std::vector<int> indices = in(name, list);
  for (const int index : indices) {
    if (index >= 0) arguments_[index].is_output = true;
  }
  return indices;
}

int64_t Call::attribute(const char* name, int64_t value) { return attributes_[name] = value; }

std::string Call::attribute(const char* name, const char* value) {
  if (value != nullptr) texts_[name] = value;
  return value == nullptr ? "" : value;
}

aclScalar Call::scalar(const char* name, const aclScalar* value, int64_t otherwise) {
  if (value == nullptr) return {ACL_INT64, static_cast<double>(otherwise), otherwise};
  if (serial_of(value) == 0) fail(kBadParameter, std::string(name) + " is not a live scalar");
  given_[name] = true;
  return *value;
}

Dims Call::array(const char* name, const aclIntArray* values) {
  if (values == nullptr) return {};
  if (serial_of(values) == 0) fail(kBadParameter, std::string(name) + " is not a live array");
  given_[name] = true;
  return values->values;
}

const View& Call::view(int index) const {
  if (index < 0) fail(kNullParameter, "aclnn" + op_ + " got a null tensor where one is needed");
  return arguments_[index].view;
}

void Call::check() const { check_contract(*this); }

void Call::require(bool holds, const std::string& rule, int code) const {
  note_rule(op_, rule);
  if (!holds) refuse(*this, rule, code);
}

aclnnStatus plan(const char* op, uint64_t* size, aclOpExecutor** executor, const std::function<void(Call&)>& body) {
  const std::string function = std::string("aclnn") + op + "GetWorkspaceSize";
  return guarded(function.c_str(), [&] {
    if (size == nullptr || executor == nullptr) fail(kNullParameter, "null argument");
    operators_used().insert(op);
    ++preparations;
    Call call(op);
    body(call);
    check_addresses(call.arguments_);
    auto* made = new aclOpExecutor;
    made->op = op;
    made->arguments = std::make_shared<std::vector<Argument>>(std::move(call.arguments_));
    made->work = std::move(call.work_);
    made->workspace = *size = workspace_size();
    note_live(made);
    *executor = made;
  });
}

aclnnStatus launch(const char* op, void* workspace, uint64_t size, aclOpExecutor* handle, aclrtStream stream_handle) {
  const std::string function = std::string("aclnn") + op;
  return guarded(function.c_str(), [&] {
    aclOpExecutor* executor = find_executor(handle);
    if (executor->op != op) fail(kBadParameter, "the executor was made by aclnn" + executor->op);
    Stream& stream = find_stream(stream_handle);
    check_workspace(*executor, workspace, size, stream.context->device);
    for (const Argument& argument : *executor->arguments) {
      if (!executor->is_repeatable && serial_of(argument.handle) != argument.serial) {
        fail(kBadParameter, argument.name + " was destroyed between the two phases");
      }
    }
    const auto arguments = std::make_shared<const std::vector<Argument>>(*executor->arguments);
    const uint64_t scribbled = executor->workspace;
    const std::string name = op;
    enqueue(stream, op, [name, arguments, work = executor->work, workspace, scribbled](Stream& on) {
      if (scribbled > 0)
        std::memset(Memory::instance().alias(workspace, scribbled, on.context->device), kScribble, scribbled);
      work(Bound(name, *arguments, on));
    });
    executor->is_used = true;
    if (!executor->is_repeatable) {
      note_dead(executor, "executor");
      delete executor;
    }
    after_call();
  });
}

}  // namespace fakecann

using namespace fakecann;  // NOLINT: the exported names are global

const char* fakecannOperatorsUsed() {
  static std::string text;
  text.clear();
  for (const std::string& name : operators_used()) text += name + "\n";
  return text.c_str();
}

uint64_t fakecannPreparations() { return preparations; }

aclnnStatus aclSetAclOpExecutorRepeatable(aclOpExecutor* executor) {
  return guarded(__func__, [&] {
    if (find_executor(executor)->is_used) fail(kBadParameter, "an executor is made repeatable before its first launch");
    executor->is_repeatable = true;
  });
}

aclnnStatus aclDestroyAclOpExecutor(aclOpExecutor* executor) {
  return guarded(__func__, [&] {
    note_dead(find_executor(executor), "executor");
    delete executor;
  });
}

namespace {

// The first argument that `is_meant` says is the one.
template <typename IsMeant>
aclnnStatus rebind(const char* function, aclOpExecutor* executor, const void* handle, void* address,
                   IsMeant&& is_meant) {
  return guarded(function, [&] {
    if (!find_executor(executor)->is_repeatable)
      fail(kBadParameter, "only a repeatable executor takes other addresses");
    if (handle == nullptr) fail(kNullParameter, "null tensor");
    if (reinterpret_cast<uintptr_t>(address) % 32 != 0)
      fail(kBadParameter, "the address is not a multiple of 32 bytes");
    for (Argument& argument : *executor->arguments) {
      if (!is_meant(argument)) continue;
      argument.view.data = address;
      return;
    }
    fail(kBadParameter, "the executor has no tensor at that index, or none was given");
  });
}

}  // namespace

aclnnStatus aclSetTensorAddr(aclOpExecutor* executor, size_t index, aclTensor* tensor, void* address) {
  return rebind(__func__, executor, tensor, address,
                [&](const Argument& argument) { return argument.position == static_cast<int>(index); });
}

aclnnStatus aclSetDynamicTensorAddr(aclOpExecutor* executor, size_t index, size_t relative, aclTensorList* list,
                                    void* address) {
  return rebind(__func__, executor, list, address,
                [&](const Argument& argument) { return argument.slot == static_cast<int>(index) && relative-- == 0; });
}
