// SPDX-License-Identifier: Apache-2.0
//
// Issues aclnn operators on a stream and cuts their operands out of the caller's scratch memory. Without a stream it
// counts: take() gives views without memory and calls do nothing, so that one function both runs an op and says how
// much scratch memory it wants.
#pragma once

#include <initializer_list>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "check.h"
#include "executors.h"
#include "library.h"
#include "view.h"

namespace turbomind::ascend {

class Context;
class Stream;

class Launch {
 public:
  // Counts scratch memory.
  explicit Launch(Context& context) : context_(&context) {}
  Launch(Stream& stream, const tm_workspace& workspace);

  bool counting() const { return stream_ == nullptr; }
  Context& context() const { return *context_; }
  Stream& stream() const { return *stream_; }

  // Uninitialised, contiguous. Throws abi::Error (TM_INVALID_ARGUMENT) if the caller's scratch memory is too small.
  View take(AclType type, std::initializer_list<int64_t> shape);
  size_t used() const { return most_used_; }

  // Gives back what was taken since, for the next of several calls that need not keep it.
  class Scope {
   public:
    explicit Scope(Launch& launch) : launch_(launch), used_(launch.used_) {}
    ~Scope() { launch_.used_ = used_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Launch& launch_;
    size_t used_;
  };

  // Arguments: a View for a tensor, nullptr for one left out, Number, Numbers, Views, or what the C function takes.
  template <class... Parameters, class... Arguments>
  void operator()(const Operator<Parameters...>& op, const Arguments&... arguments) {
    static_assert(sizeof...(Parameters) == sizeof...(Arguments));
    if (counting()) return;
    require_supported(op.available(), std::string("this CANN has no ") + op.name);
    const auto prepare = [&](PreparedCall& call) {
      // Braces describe the tensors in the operator's order.
      const std::tuple<Parameters...> described{describe<Parameters>(call.descriptions, arguments)...};
      const auto call_op = [&](const auto&... values) { return op.prepare(values..., &call.bytes, &call.executor); };
      check(std::apply(call_op, described), op.name);
    };
    const auto run = [&](PreparedCall& call) {
      check(op.run(scratch(call.bytes), call.bytes, call.executor, stream_handle()), op.name);
    };
    if constexpr ((kMayRepeat<Arguments> && ...)) {
      CallKey key(op.name, updates_in_place<Parameters...>());
      (key.add<Parameters>(arguments), ...);
      run(executors().find_or_prepare(std::move(key), prepare));
    } else {
      PreparedCall once;
      prepare(once);
      run(once);
    }
  }

  // InplaceCopy: converts dtypes, broadcasts dimensions of size 1.
  void copy(const View& to, const View& from) { (*this)(library().op.InplaceCopy, to, from); }

 private:
  friend class Scope;

  template <class Parameter, class Argument>
  static Parameter describe(Descriptions& descriptions, const Argument& argument) {
    if constexpr (std::is_same_v<Argument, View>) {
      return descriptions.tensor(argument);
    } else if constexpr (std::is_same_v<Argument, Number>) {
      return descriptions.scalar(argument);
    } else if constexpr (std::is_same_v<Argument, Numbers>) {
      return descriptions.ints(argument.values);
    } else if constexpr (std::is_same_v<Argument, Views>) {
      return descriptions.list(argument.views);
    } else {
      return static_cast<Parameter>(argument);
    }
  }

  void* scratch(uint64_t bytes) const;  // the stream's, for operators
  Executors& executors() const;
  aclrtStream stream_handle() const;

  Context* context_;
  Stream* stream_ = nullptr;
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
  size_t used_ = 0;
  size_t most_used_ = 0;
};

}  // namespace turbomind::ascend
