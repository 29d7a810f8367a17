// SPDX-License-Identifier: Apache-2.0
#include "turbomind/guided/llguidance.h"

#include <dlfcn.h>

#include "turbomind/core/error.h"

namespace turbomind {
namespace {

template <class Function>
void find(void* library, const std::string& path, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  check(function != nullptr, ErrorCode::kUnsupported, "llguidance: expected ", path, " to export ", name,
        "; versions 1.8 and later do");
}

}  // namespace

std::shared_ptr<const LlguidanceApi> LlguidanceApi::load(const std::string& path) {
  // Never unloaded: Rust's runtime does not support it.
  void* library = dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
  const char* reason = library == nullptr ? dlerror() : "";
  check(library != nullptr, ErrorCode::kUnsupported, "llguidance: cannot load ", path, ": ", reason);
  auto api = std::make_shared<LlguidanceApi>();
#define TM_FIND(name) find(library, path, "llg_" #name, api->name)
  TM_FIND(new_tokenizer_v2);
  TM_FIND(free_tokenizer);
  TM_FIND(constraint_init_set_defaults);
  TM_FIND(new_matcher);
  TM_FIND(clone_matcher);
  TM_FIND(free_matcher);
  TM_FIND(matcher_get_error);
  TM_FIND(matcher_compute_mask_into);
  TM_FIND(matcher_get_mask_byte_size);
  TM_FIND(matcher_consume_token);
  TM_FIND(matcher_rollback);
  TM_FIND(matcher_validate_tokens);
  TM_FIND(matcher_is_accepting);
#undef TM_FIND
  return api;
}

}  // namespace turbomind
