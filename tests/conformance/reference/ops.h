// SPDX-License-Identifier: Apache-2.0
//
// Every op of the contract as naive scalar loops over doubles. Arrays are dense and row-major; nothing is rounded.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <vector>

#include "reference/number.h"

namespace turbomind::reference {

using Ints = std::vector<int64_t>;

// x: [rows, width].
Values rms_norm(const Values& x, const Values& weight, double eps);
Values layer_norm(const Values& x, const Values& weight, const Values& bias, double eps);
double activate(tm_activation_kind kind, double x);

// x: [rows, cols], weight: [n, cols], bias: [n] or empty.
Values linear(const Values& x, const Values& weight, const Values& bias, int64_t cols, tm_activation_kind kind);

struct Rope {
  int64_t num_tokens;
  int64_t heads;
  int64_t dim;
  int64_t rotary_dim;
  tm_rope_style style;
  int32_t mrope_section[3] = {0, 0, 0};
  bool mrope_interleaved = false;
  Values positions;  // [T] or [3, T]
  Values cos_sin;    // [positions, rotary_dim]
};
// x: [T, heads, dim], rotated in place.
void rope(const Rope& problem, Values& x);

struct Attention {
  int64_t q_heads;
  int64_t kv_heads;
  int64_t dim_k;
  int64_t dim_v;
  double scale;
  int64_t window = 0;
  double softcap = 0;
  Values sinks;  // [q_heads] or empty
};
// Context of one query row, in order of position.
struct AttendedRow {
  std::vector<const double*> keys;    // each [kv_heads, dim_k]
  std::vector<const double*> values;  // each [kv_heads, dim_v]
};
// q: [q_heads, dim_k], out: [q_heads, dim_v]. The window is the caller's: row holds what is attended to.
void attend(const Attention& problem, const double* q, const AttendedRow& row, double* out);

struct Routing {
  Ints expert_ids;  // [T, top_k]
  Values weights;   // [T, top_k]
};
Routing route(const Values& logits, const Values& bias, int64_t num_experts, int64_t top_k, tm_route_score score,
              bool renormalize, double scaling);

// First word of Philox4x32-10 keyed by seed at counter position, divided by 2^32.
double uniform(uint64_t seed, uint64_t position);

struct SamplingRow {
  double temperature;
  int64_t top_k;
  double top_p;
  double min_p;
  double u;
};
int64_t sample(const double* logits, int64_t vocabulary, const SamplingRow& row);
// Every token that a float32 implementation may draw: those of sample() under changes of u, top_p and min_p by up to
// slack.
std::set<int64_t> sample_candidates(const double* logits, int64_t vocabulary, const SamplingRow& row, double slack);

// log softmax of one row.
Values log_softmax(const double* logits, int64_t vocabulary);

}  // namespace turbomind::reference
