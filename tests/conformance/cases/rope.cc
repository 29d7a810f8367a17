// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "reference/ops.h"
#include "suite.h"

namespace turbomind::conformance {
namespace {

constexpr int64_t kMaxPosition = 5000;

struct RopeCase {
  int64_t tokens;
  int64_t q_heads;
  int64_t kv_heads;  // 0: no k
  int64_t dim;
  int64_t rotary_dim;
  tm_rope_style style = TM_ROPE_NEOX;
  int32_t section[3] = {0, 0, 0};
  bool interleaved = false;
  int64_t gap = 0;
};

void fill_table(TestTensor& table, int64_t rotary_dim) {
  const int64_t pairs = rotary_dim / 2;
  for (int64_t p = 0; p < kMaxPosition; ++p) {
    for (int64_t i = 0; i < pairs; ++i) {
      const double angle =
          static_cast<double>(p) * std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(rotary_dim));
      table.set(p * rotary_dim + i, std::cos(angle));
      table.set(p * rotary_dim + pairs + i, std::sin(angle));
    }
  }
}

void build_rope(Case& c, DType dtype, const RopeCase& p) {
  const bool mrope = p.section[0] + p.section[1] + p.section[2] > 0;
  TestTensor& q = c.in_out("q", dtype, {p.tokens, p.q_heads, p.dim}, p.gap);
  TestTensor& k = c.in_out("k", dtype, {p.tokens, std::max<int64_t>(p.kv_heads, 1), p.dim}, p.gap);
  TestTensor& positions =
      c.input("positions", TM_I32, mrope ? std::vector<int64_t>{3, p.tokens} : std::vector<int64_t>{p.tokens});
  TestTensor& table = c.input("cos_sin", TM_F32, {kMaxPosition, p.rotary_dim});
  fill_table(table, p.rotary_dim);
  if (!mrope) c.independent_rows = p.tokens;
  c.fill = [&c, &q, &k, &positions] {
    q.fill_normal(c.random);
    k.fill_normal(c.random);
    for (int64_t i = 0; i < positions.size(); ++i)
      positions.set(i, static_cast<double>(c.random.integer(0, kMaxPosition - 1)));
  };
  c.issue = [&c, &q, &k, &positions, &table, p, mrope](RowRange r) {
    c.call(TM_OP_rope, c.op().rope,
           tm_rope_args{.q = q.rows(r.begin, r.count),
                        .k = p.kv_heads ? k.rows(r.begin, r.count) : Tensor{},
                        .positions = mrope ? positions.view() : positions.rows(r.begin, r.count),
                        .cos_sin = table.view(),
                        .rotary_dim = static_cast<int32_t>(p.rotary_dim),
                        .style = p.style,
                        .mrope_section = {p.section[0], p.section[1], p.section[2]},
                        .mrope_interleaved = p.interleaved});
  };
  if (mrope) {
    c.issue = [issue = c.issue, p](RowRange) { issue({0, p.tokens}); };
  }
  c.reference = [&q, &k, &positions, &table, p] {
    reference::Rope rope{.num_tokens = p.tokens,
                         .heads = p.q_heads,
                         .dim = p.dim,
                         .rotary_dim = p.rotary_dim,
                         .style = p.style,
                         .mrope_section = {p.section[0], p.section[1], p.section[2]},
                         .mrope_interleaved = p.interleaved,
                         .positions = positions.values(),
                         .cos_sin = table.values()};
    q.expected = q.values();
    reference::rope(rope, q.expected);
    k.expected = k.values();
    rope.heads = p.kv_heads;
    if (p.kv_heads) reference::rope(rope, k.expected);
  };
}

}  // namespace

void add_rope_cases(Suite& suite, const Session& session) {
  for (const DType dtype : session.activation_dtypes()) {
    const auto add = [&](const std::string& what, const RopeCase& p) {
      suite.add("rope", dtype_name(dtype), what, [=](Case& c) { build_rope(c, dtype, p); });
    };
    add("no_rows", {0, 2, 1, 64, 64});
    add("one_row", {1, 9, 3, 64, 64});
    add("odd_rows", {7, 4, 2, 64, 64});
    add("head_dim_80", {5, 3, 3, 80, 80});
    add("head_dim_256_strided", {3, 4, 1, 256, 256, TM_ROPE_NEOX, {}, false, 512});
    add("partial", {5, 4, 2, 64, 16});
    add("interleaved", {5, 4, 2, 64, 64, TM_ROPE_INTERLEAVED});
    add("interleaved_partial", {5, 4, 2, 64, 24, TM_ROPE_INTERLEAVED});
    add("without_k", {5, 4, 0, 64, 64});
    add("mrope_sections", {6, 2, 1, 64, 64, TM_ROPE_NEOX, {8, 12, 12}});
    add("mrope_rows_and_columns", {9, 2, 2, 72, 72, TM_ROPE_NEOX, {0, 18, 18}});  // encoders of pictures
    add("mrope_odd_head", {6, 4, 2, 12, 12, TM_ROPE_NEOX, {2, 2, 2}});
    add("mrope_interleaved_axes", {6, 2, 1, 64, 64, TM_ROPE_NEOX, {12, 10, 10}, true});
  }
}

}  // namespace turbomind::conformance
