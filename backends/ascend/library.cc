// SPDX-License-Identifier: Apache-2.0
#include "library.h"

#include <dlfcn.h>

#include <array>
#include <utility>
#include <vector>

#include "turbomind/abi/tm_backend.hpp"

namespace turbomind::ascend {
namespace {

// New names first: libascendcl.so and libopapi.so are going away.
constexpr std::array kRuntimeNames{"libacl_rt.so", "libascendcl.so"};
constexpr std::array kBaseNames{"libnnopbase.so"};
constexpr std::array kOperatorNames{"libopapi_math.so", "libopapi_nn.so", "libopapi_transformer.so", "libopapi.so"};
constexpr std::array kHcclNames{"libhccl.so"};

enum Need { REQUIRED, OPTIONAL };

// The libraries of one kind that this machine has.
class Handles {
 public:
  template <size_t N>
  explicit Handles(const std::array<const char*, N>& names) {
    for (const char* name : names) open(name);
  }

  void open(const char* name) {
    if (void* handle = dlopen(name, RTLD_LAZY | RTLD_GLOBAL)) {
      handles_.push_back(handle);
    } else if (error_.empty()) {
      error_ = dlerror();
    }
  }

  void* find(const char* name) const {
    for (void* handle : handles_) {
      if (void* symbol = dlsym(handle, name)) return symbol;
    }
    return nullptr;
  }

  bool empty() const { return handles_.empty(); }
  const std::string& error() const { return error_; }

 private:
  std::vector<void*> handles_;
  std::string error_;
};

// Fills function pointers and keeps account of what was not there.
class Resolver {
 public:
  explicit Resolver(const Handles& handles) : handles_(handles) {}

  template <class Function>
  void find(Need need, const char* name, Function& function) {
    function = reinterpret_cast<Function>(handles_.find(name));
    if (!function && need == REQUIRED) missing.emplace_back(name);
  }

  template <class... Parameters>
  void find_op(Need need, Operator<Parameters...>& op) {
    const std::string name = op.name;
    op.prepare = reinterpret_cast<decltype(op.prepare)>(handles_.find((name + "GetWorkspaceSize").c_str()));
    op.run = reinterpret_cast<decltype(op.run)>(handles_.find(name.c_str()));
    if (!op.available() && need == REQUIRED) missing.push_back(name);
  }

  std::vector<std::string> missing;  // required functions that no library has

 private:
  const Handles& handles_;
};

std::string list(const std::vector<std::string>& names, size_t most = 5) {
  std::string text;
  for (size_t i = 0; i < names.size() && i < most; ++i) text += (i ? ", " : "") + names[i];
  if (names.size() > most) text += " and " + std::to_string(names.size() - most) + " more";
  return text;
}

template <class Table>
void fill_runtime(Resolver& resolver, Table& table) {
#define ASCEND_SYMBOL(need, result, name, parameters) resolver.find(need, #name, table.name);
#include "acl/meta_symbols.h"
#include "acl/runtime_symbols.h"
#undef ASCEND_SYMBOL
}

void fill_operators(Resolver& resolver, Operators& table) {
#define ASCEND_OP(need, Name, ...) resolver.find_op(need, table.Name);
#include "acl/op_symbols.h"
#undef ASCEND_OP
}

Library load() {
  Library library;
  Handles base(kRuntimeNames);
  if (base.empty()) {
    library.reason = "CANN is not installed or its set_env.sh was not sourced: " + base.error();
    return library;
  }
  for (const char* name : kBaseNames) base.open(name);
  const Handles operators(kOperatorNames);
  Resolver runtime_resolver(base);
  fill_runtime(runtime_resolver, library.runtime);
  Resolver operator_resolver(operators);
  fill_operators(operator_resolver, library.op);
  std::vector<std::string> missing = std::move(runtime_resolver.missing);
  missing.insert(missing.end(), operator_resolver.missing.begin(), operator_resolver.missing.end());
  if (operators.empty()) {
    library.reason = "CANN's operators (ops package) are not installed: " + operators.error();
  } else if (!missing.empty()) {
    library.reason = "this CANN lacks functions that the ascend backend needs: " + list(missing);
  }
  return library;
}

Hccl load_hccl() {
  const Handles handles(kHcclNames);
  if (handles.empty()) throw abi::Error(TM_UNSUPPORTED, "several devices need HCCL: " + handles.error());
  Resolver resolver(handles);
  Hccl table;
#define ASCEND_SYMBOL(need, result, name, parameters) resolver.find(need, #name, table.name);
#include "acl/hccl_symbols.h"
#undef ASCEND_SYMBOL
  if (!resolver.missing.empty()) throw abi::Error(TM_UNSUPPORTED, "libhccl.so lacks " + list(resolver.missing));
  return table;
}

}  // namespace

const Library& library() {
  static const Library opened = load();
  return opened;
}

const Hccl& hccl() {
  static const Hccl table = load_hccl();
  return table;
}

}  // namespace turbomind::ascend
