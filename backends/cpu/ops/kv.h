// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/kv.h"
#include "kv_layout.h"
#include "ops/heads.h"
#include "plan.h"
#include "stream.h"

namespace turbomind::cpu {

// A checked kv_write, whose rows several threads may store.
class KvWriter {
 public:
  KvWriter(const Stream& stream, const tm_kv_write_args& args);

  // Rows of the call that are stored; the rest is padding.
  int64_t num_tokens() const { return plan_.num_tokens(); }
  // Element operations per row, for for_row_ranges().
  int64_t row_cost() const { return 2 * k_.heads * (k_.dim + v_.dim); }
  // Token rows [begin, end).
  void store(int64_t begin, int64_t end) const;

 private:
  Heads<const float> k_;
  Heads<const float> v_;
  tm_kv_pool pool_;
  KvLayout layout_;
  const Plan& plan_;
  KvStoreFn store_;
};

}  // namespace turbomind::cpu
