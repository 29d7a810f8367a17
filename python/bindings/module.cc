// SPDX-License-Identifier: Apache-2.0
#include "bindings.h"

PYBIND11_MODULE(_turbomind, module) {
  module.doc() = "The TurboMind engine. Use manymind.pipeline(); this module only translates types.";
  turbomind::bindings::bind_errors(module);
  turbomind::bindings::bind_guide(module);
  turbomind::bindings::bind_config(module);
  turbomind::bindings::bind_output(module);
  turbomind::bindings::bind_engine(module);
  turbomind::bindings::bind_embedder(module);
  turbomind::bindings::bind_plugins(module);
  turbomind::bindings::bind_scaling(module);
  turbomind::bindings::bind_text(module);
}
