// SPDX-License-Identifier: Apache-2.0
//
// The two phases of an operator. Phase 1 (`plan`) names and checks the arguments and leaves an executor; phase 2
// (`launch`) checks the workspace and enqueues the work, which sees the tensors as they were described in phase 1.
#ifndef FAKECANN_NNOP_CALL_H_
#define FAKECANN_NNOP_CALL_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "nnop/tensor.h"
#include "runtime/stream.h"

#pragma GCC visibility push(default)

namespace fakecann {

struct Argument {
  std::string name;
  View view;
  uint64_t serial = 0;
  const aclTensor* handle = nullptr;
  int slot = 0;      // position among the call's tensors and tensor lists
  int position = 0;  // position among its tensors: those left out and members of lists count
  bool is_output = false;
};

// What an operator asks of the data it meets, an error of the device where that is broken.
struct DataRule {
  std::string op;
  std::string text;

  void require(bool holds, const std::string& found) const {
    if (!holds) refuse(found);
  }
  [[noreturn]] void refuse(const std::string& found) const;
};

// The arguments of one launch, their bytes within reach.
class Bound {
 public:
  Bound(const std::string& op, const std::vector<Argument>& arguments, Stream& stream);
  DataRule rule(const char* text) const;
  const View& view(int index) const { return arguments_[index].view; }
  // Address of the view's first element; for NZ tensors, of the storage.
  char* bytes(int index) const { return bytes_[index]; }
  bool has(int index) const { return index >= 0; }

  // Dense copies in row-major order; `dims` broadcasts.
  std::vector<float> floats(int index) const;
  std::vector<float> floats(int index, const Dims& dims) const;
  std::vector<int64_t> integers(int index) const;
  std::vector<int64_t> integers(int index, const Dims& dims) const;
  void put(int index, const std::vector<float>& values) const;
  void put(int index, const std::vector<int64_t>& values) const;

 private:
  const std::string& op_;
  const std::vector<Argument>& arguments_;
  std::vector<char*> bytes_;
};

using Work = std::function<void(const Bound&)>;

// What an operator's phase 1 says about its call.
class Call {
 public:
  explicit Call(const char* op) : op_(op) {}

  // Each gives the argument's index, -1 for a null tensor.
  int in(const char* name, const aclTensor* tensor);
  int out(const char* name, const aclTensor* tensor);
  std::vector<int> in(const char* name, const aclTensorList* list);
  std::vector<int> out(const char* name, const aclTensorList* list);
  int64_t attribute(const char* name, int64_t value);
  std::string attribute(const char* name, const char* value);
  // A copy; a null scalar is `otherwise`.
  aclScalar scalar(const char* name, const aclScalar* value, int64_t otherwise = 0);
  Dims array(const char* name, const aclIntArray* values);

  const View& view(int index) const;
  const std::string& op() const { return op_; }
  const std::vector<Argument>& arguments() const { return arguments_; }
  // The names and values of integer and text attributes.
  const std::map<std::string, int64_t>& attributes() const { return attributes_; }
  const std::map<std::string, std::string>& texts() const { return texts_; }
  bool is_given(const std::string& name) const { return given_.count(name) != 0; }
  // The tensors that were null.
  const std::vector<std::string>& nulls() const { return nulls_; }

  // Applies the operator's contract; after it only what a public document allows is left.
  void check() const;
  // A rule that the contract's grammar cannot say.
  void require(bool holds, const std::string& rule, int code = kBadParameter) const;
  void run(Work work) { work_ = std::move(work); }

 private:
  friend aclnnStatus plan(const char*, uint64_t*, aclOpExecutor**, const std::function<void(Call&)>&);
  int add(const char* name, const aclTensor* tensor, bool is_output, int slot);

  std::string op_;
  std::vector<Argument> arguments_;
  std::map<std::string, int64_t> attributes_;
  std::map<std::string, std::string> texts_;
  std::map<std::string, bool> given_;
  std::vector<std::string> nulls_;
  int slots_ = 0;
  int positions_ = 0;
  Work work_;
};

aclnnStatus plan(const char* op, uint64_t* workspace_size, aclOpExecutor** executor,
                 const std::function<void(Call&)>& body);
aclnnStatus launch(const char* op, void* workspace, uint64_t workspace_size, aclOpExecutor* executor,
                   aclrtStream stream);

}  // namespace fakecann

#pragma GCC visibility pop

// FAKECANN_OP(Name, parameters...) { return plan(...); } defines both phases.
#define FAKECANN_OP(name, ...)                                                                                     \
  aclnnStatus aclnn##name(void* workspace, uint64_t workspace_size, aclOpExecutor* executor, aclrtStream stream) { \
    return fakecann::launch(#name, workspace, workspace_size, executor, stream);                                   \
  }                                                                                                                \
  aclnnStatus aclnn##name##GetWorkspaceSize(__VA_ARGS__, uint64_t* workspace_size, aclOpExecutor** executor)

#endif  // FAKECANN_NNOP_CALL_H_
