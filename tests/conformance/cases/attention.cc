// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "paged.h"

namespace turbomind::conformance {
namespace {

struct AttentionCase {
  std::vector<SequenceCase> sequences;
  int64_t q_heads = 4;
  int64_t kv_heads = 2;
  int64_t dim_k = 64;
  int64_t dim_v = 64;
  int32_t block_size = 0;  // 0: the preferred one
  int64_t window = 0;
  double softcap = 0;
  bool sinks = false;
  int64_t shared_blocks = 0;
  int64_t gap = 0;  // of q's rows
  double sigma = 1;
  bool poison_unused = false;  // places beyond the contexts hold NaN
  int64_t padding = 0;         // rows past the sequences' own
  bool drop_passed = false;    // table entries wholly before the window are -1
  bool shapes = false;         // the plan is told the model's attention shapes
  std::vector<SpanCase> spans{};
};

tm_kv_spec spec_of(const AttentionCase& p, const Session& session, DType kv_dtype) {
  return {.num_kv_heads = static_cast<int32_t>(p.kv_heads),
          .head_dim_k = static_cast<int32_t>(p.dim_k),
          .head_dim_v = static_cast<int32_t>(p.dim_v),
          .block_size = p.block_size ? p.block_size : session.device.props().preferred_kv_block_size,
          .dtype = kv_dtype};
}

int64_t blocks_needed(const AttentionCase& p, int64_t block_size) {
  int64_t blocks = 2 + p.shared_blocks;
  for (const SequenceCase& s : p.sequences) blocks += (s.context_len + block_size - 1) / block_size;
  return blocks;
}

reference::Attention problem_of(const AttentionCase& p) {
  return {.q_heads = p.q_heads,
          .kv_heads = p.kv_heads,
          .dim_k = p.dim_k,
          .dim_v = p.dim_v,
          .scale = 1 / std::sqrt(static_cast<double>(p.dim_k)),
          .window = p.window,
          .softcap = p.softcap};
}

void poison_unused_places(PagedCache& cache, const StepLayout& step) {
  const int64_t block_size = cache.pool().spec.block_size;
  std::vector<bool> used(static_cast<size_t>(cache.num_places()), false);
  for (size_t s = 0; s < step.table.size(); ++s) {
    for (int64_t p = 0; p < step.context_lens[s]; ++p) used[static_cast<size_t>(step.place(s, p, block_size))] = true;
  }
  for (int64_t place = 0; place < cache.num_places(); ++place) {
    if (used[static_cast<size_t>(place)]) continue;
    for (TestTensor* tensor : {&cache.keys(), &cache.values()}) {
      for (int64_t i = 0; i < tensor->row_size(); ++i) {
        tensor->set(place * tensor->row_size() + i, std::numeric_limits<double>::quiet_NaN());
      }
    }
  }
}

void drop_passed_blocks(StepLayout& step, int64_t block_size, int64_t window) {
  for (size_t s = 0; s < step.table.size(); ++s) {
    const int64_t first_seen = std::max<int64_t>(0, step.context_lens[s] - step.q_lens[s] - window + 1);
    for (int64_t block = 0; block < first_seen / block_size; ++block) step.table[s][static_cast<size_t>(block)] = -1;
  }
}

// Limits above the step's own sizes, as in a running engine.
tm_plan_limits limits_of(const AttentionCase& p, const tm_kv_spec& spec) {
  int64_t rows = p.padding;
  int64_t blocks = 1;
  for (const SequenceCase& s : p.sequences) {
    rows += s.q_len;
    blocks = std::max(blocks, (s.context_len + spec.block_size - 1) / spec.block_size);
  }
  return {.max_tokens = rows + 5,
          .max_seqs = static_cast<int64_t>(p.sequences.size()) + 1,
          .max_blocks_per_seq = blocks + 2,
          .block_size = spec.block_size};
}

int64_t num_tokens(const AttentionCase& p) {
  int64_t count = 0;
  for (const SequenceCase& s : p.sequences) count += s.q_len;
  return count;
}

class PagedAttentionTest {
 public:
  PagedAttentionTest(Case& c, const AttentionCase& p, const tm_kv_spec& spec, DType dtype)
      : case_(c),
        p_(p),
        rows_(num_tokens(p) + p.padding),
        cache_(c, dtype, spec, blocks_needed(p, spec.block_size)),
        q_(c.input("q", dtype, {rows_, p.q_heads, p.dim_k}, p.gap)),
        sinks_(c.input("sinks", TM_F32, {p.q_heads})),
        out_(c.output("out", dtype, {rows_, p.q_heads, p.dim_v})) {
    const tm_attention_shape shape{
        .num_heads = static_cast<int32_t>(p.q_heads), .window = static_cast<int32_t>(p.window), .kv = spec};
    tm_plan_limits limits = limits_of(p, spec);
    if (p.shapes) {
      limits.shapes = &shape;
      limits.num_shapes = 1;
    }
    plan_ = &c.plan(limits);
    plan_->padding = p.padding;
    row_plan_ = &c.plan(limits);
    row_plan_->captured = false;
  }

  Arithmetic arithmetic() const { return cache_.arithmetic(); }
  // From the next fill() on.
  void set_spans(std::vector<SpanCase> spans) { p_.spans = std::move(spans); }

  void fill() {
    const int64_t block_size = cache_.pool().spec.block_size;
    q_.fill_normal(case_.random, p_.sigma);
    sinks_.fill_normal(case_.random);
    cache_.fill(case_.random, p_.sigma);
    step_ = draw_layout(case_.random, p_.sequences, block_size, cache_.pool().num_blocks, p_.shared_blocks);
    if (p_.poison_unused) poison_unused_places(cache_, step_);
    if (p_.drop_passed) drop_passed_blocks(step_, block_size, p_.window);
    plan_->set(step_.q_lens, step_.context_lens, step_.table);
    step_.spans = p_.spans;
    plan_->spans.clear();
    for (const SpanCase& span : p_.spans)
      plan_->spans.insert(plan_->spans.end(), {span.sequence, span.begin, span.end});
    row_plan_->set({}, {}, {});
  }

  void write_cache() { cache_.write_all(); }

  // All rows as one step, or one row in a step of its own: it must give the bits it has inside its chunk and batch.
  void issue(RowRange r) {
    if (p_.padding || !p_.spans.empty()) r = {0, rows_};
    const bool whole = r.count == rows_;
    if (!whole) {
      set_single_row(r.begin);
      row_plan_->update(case_.stream(), false);
    }
    case_.call(TM_OP_attention, case_.op().attention,
               tm_attention_args{.q = q_.rows(r.begin, r.count),
                                 .kv = cache_.pool(),
                                 .plan = (whole ? plan_ : row_plan_)->plan.handle(),
                                 .scale = static_cast<float>(problem_of(p_).scale),
                                 .window = static_cast<int32_t>(p_.window),
                                 .softcap = static_cast<float>(p_.softcap),
                                 .sinks = p_.sinks ? sinks_.view() : Tensor{},
                                 .out = out_.rows(r.begin, r.count)});
  }

  void expect() {
    reference::Attention problem = problem_of(p_);
    if (p_.sinks) problem.sinks = sinks_.values();
    out_.expected = paged_attention(problem, step_, cache_.pool().spec.block_size, cache_.stored_keys(),
                                    cache_.stored_values(), q_.values());
    out_.expected.resize(static_cast<size_t>(out_.size()), 0);  // padding rows
  }

 private:
  void set_single_row(int64_t row) {
    size_t s = 0;
    while (row >= step_.q_lens[s]) row -= step_.q_lens[s++];
    row_plan_->set({1}, {step_.context_lens[s] - step_.q_lens[s] + row + 1}, {step_.table[s]});
  }

  Case& case_;
  AttentionCase p_;
  int64_t rows_;
  PagedCache cache_;
  TestTensor& q_;
  TestTensor& sinks_;
  TestTensor& out_;
  TestPlan* plan_;
  TestPlan* row_plan_;
  StepLayout step_;
};

void build_attention(Case& c, const Session& session, DType dtype, DType kv_dtype, const AttentionCase& p) {
  auto test = std::make_shared<PagedAttentionTest>(c, p, spec_of(p, session, kv_dtype), dtype);
  c.arithmetic = test->arithmetic();
  // The exponential turns a rounding of a score into a relative error as large as the score.
  if (p.sigma > 3 && c.arithmetic == Arithmetic::kFloat32) c.tolerance = Tolerance{1e-7, 1e-3, 1e-3};
  // Rows inside spans need the rest of their span beside them.
  c.independent_rows = p.padding || !p.spans.empty() ? 0 : num_tokens(p);
  c.fill = [test] { test->fill(); };
  c.setup = [test] { test->write_cache(); };
  c.issue = [test](RowRange r) { test->issue(r); };
  c.reference = [test] { test->expect(); };
}

// A step captured with or without spans, replayed as the other: the backend refuses, or rows see what the plan says
// now.
std::string check_replayed_spans(const Session& session, DType dtype, bool captured) {
  if (!session.device.can_capture()) throw NotOffered{"steps are not captured"};
  const AttentionCase p{.sequences = {{50, 50}}};
  Stream& stream = session.stream;
  Case c(session.device, stream, 5);
  PagedAttentionTest test(c, p, spec_of(p, session, dtype), dtype);
  const RowRange rows{0, num_tokens(p)};
  const auto send = [&](bool has_spans) {
    test.set_spans(has_spans ? std::vector<SpanCase>{{0, 7, 40}} : std::vector<SpanCase>{});
    test.fill();
    c.reset_scratch();
    for (TestTensor& tensor : c.tensors()) tensor.upload(stream);
    for (TestPlan& plan : c.plans()) plan.update(stream, plan.captured);
    test.write_cache();
  };
  send(captured);
  test.issue(rows);  // workspaces are there before the capture
  send(captured);
  stream.synchronize();
  stream.capture_begin();
  test.issue(rows);
  const Graph graph = stream.capture_end();
  send(!captured);
  std::vector<tm_plan*> plans;
  for (TestPlan& plan : c.plans()) {
    if (plan.captured) plans.push_back(plan.plan.handle());
  }
  try {
    graph.launch(stream, plans);
  } catch (const Error& error) {
    stream.synchronize();
    return error.code() == ErrorCode::kUnsupported ? "" : std::string("expected to be refused, found ") + error.what();
  }
  test.expect();
  for (TestTensor& tensor : c.tensors()) tensor.download(stream);
  stream.synchronize();
  for (const TestTensor& tensor : c.tensors()) {
    if (tensor.role() == Role::kInput) continue;
    const std::string wrong = compare(tensor.results(), tensor.expected, tolerance(test.arithmetic(), tensor.dtype()));
    if (!wrong.empty()) return "launched, but " + tensor.name() + ": " + wrong;
  }
  return {};
}

struct DenseCase {
  std::vector<int64_t> lengths;
  int64_t heads;
  int64_t kv_heads;
  int64_t dim;
  int64_t dim_v;
  int64_t gap = 0;
  DType product_dtype = TM_F32;
};

reference::Values dense_attention(const DenseCase& p, const reference::Values& q, const reference::Values& k,
                                  const reference::Values& v, int64_t num_tokens) {
  const reference::Attention problem{.q_heads = p.heads,
                                     .kv_heads = p.kv_heads,
                                     .dim_k = p.dim,
                                     .dim_v = p.dim_v,
                                     .scale = 1 / std::sqrt(static_cast<double>(p.dim))};
  reference::Values out(static_cast<size_t>(num_tokens * p.heads * p.dim_v));
  int64_t begin = 0;
  for (const int64_t length : p.lengths) {
    reference::AttendedRow all;
    for (int64_t t = begin; t < begin + length; ++t) {
      all.keys.push_back(k.data() + t * p.kv_heads * p.dim);
      all.values.push_back(v.data() + t * p.kv_heads * p.dim_v);
    }
    for (int64_t t = begin; t < begin + length; ++t) {
      reference::attend(problem, q.data() + t * p.heads * p.dim, all, out.data() + t * p.heads * p.dim_v);
    }
    begin += length;
  }
  return out;
}

void build_dense(Case& c, DType dtype, const DenseCase& p) {
  int64_t num_tokens = 0;
  for (const int64_t length : p.lengths) num_tokens += length;
  TestTensor& q = c.input("q", dtype, {num_tokens, p.heads, p.dim}, p.gap);
  TestTensor& k = c.input("k", dtype, {num_tokens, p.kv_heads, p.dim}, p.gap);
  TestTensor& v = c.input("v", dtype, {num_tokens, p.kv_heads, p.dim_v}, p.gap);
  TestTensor& out = c.output("out", dtype, {num_tokens, p.heads, p.dim_v});
  TestPlan& plan = c.plan({.max_tokens = num_tokens + 1,
                           .max_seqs = static_cast<int64_t>(p.lengths.size()) + 1,
                           .max_blocks_per_seq = 0,
                           .block_size = 0});
  plan.set(p.lengths, {}, {});
  const Arithmetic f32 = p.product_dtype == TM_BF16 ? Arithmetic::kBf16Products : Arithmetic::kFloat32;
  c.arithmetic = dtype == TM_F32 ? f32 : Arithmetic::kHalf;
  c.issue = [&c, &q, &k, &v, &out, &plan, p](RowRange) {
    c.call(TM_OP_attention_dense, c.op().attention_dense,
           tm_attention_dense_args{.q = q.view(),
                                   .k = k.view(),
                                   .v = v.view(),
                                   .plan = plan.plan.handle(),
                                   .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(p.dim))),
                                   .out = out.view(),
                                   .product_dtype = p.product_dtype});
  };
  c.reference = [&q, &k, &v, &out, p, num_tokens] {
    out.expected = dense_attention(p, q.values(), k.values(), v.values(), num_tokens);
  };
}

void add_shapes(Suite& suite, const Session& session, DType dtype, DType kv_dtype) {
  const std::string variant = std::string(dtype_name(dtype)) + "_kv_" + dtype_name(kv_dtype);
  const auto add = [&](const std::string& what, const AttentionCase& p) {
    suite.add("attention", variant, what, [=, &session](Case& c) { build_attention(c, session, dtype, kv_dtype, p); });
  };
  add("no_sequences", {.sequences = {}});
  add("first_token", {.sequences = {{1, 1}}});
  add("decode", {.sequences = {{1, 100}}});
  add("decode_batch", {.sequences = {{1, 33}, {1, 1}, {1, 64}, {1, 150}, {1, 17}}});
  add("prefill", {.sequences = {{50, 50}}});
  add("prefill_ragged", {.sequences = {{3, 3}, {35, 35}, {1, 1}, {16, 16}}});
  add("chunk", {.sequences = {{20, 75}}});
  add("mixed", {.sequences = {{1, 200}, {37, 37}, {5, 90}, {1, 3}}, .q_heads = 6, .kv_heads = 2});
  add("long_decode", {.sequences = {{1, 1100}, {1, 700}}});
  add("shared_prefix", {.sequences = {{1, 80}, {9, 90}, {1, 101}, {2, 3}}, .shared_blocks = 2});
  // Decodes that begin with the same blocks, enough for several groups of them, beside others; a plan that knows the
  // shapes may read what they share once.
  std::vector<SequenceCase> branches{{1, 90}};
  for (int64_t i = 0; i < 7; ++i) branches.push_back({1, 520 + 40 * i});
  branches.push_back({18, 530});
  for (int64_t i = 0; i < 3; ++i) branches.push_back({1, 700 - 9 * i});
  add("shared_prefix_decode", {.sequences = branches, .shared_blocks = 8, .shapes = true});
  add("shared_prefix_decode_gqa_4", {.sequences = {{1, 600}, {1, 1400}, {1, 650}, {1, 641}, {1, 600}, {1, 620}},
                                     .q_heads = 8,
                                     .kv_heads = 2,
                                     .dim_k = 128,
                                     .dim_v = 128,
                                     .shared_blocks = 9,
                                     .shapes = true});
  add("shared_prefix_decode_window", {.sequences = branches,
                                      .q_heads = 3,
                                      .kv_heads = 3,
                                      .window = 150,
                                      .sinks = true,
                                      .shared_blocks = 8,
                                      .shapes = true});
  add("unused_places_hold_nan", {.sequences = {{1, 37}, {11, 45}}, .poison_unused = true});
  // More tiles than a device's blocks work on at a time; enough with one dtype of the cache, as they cost much.
  if (kv_dtype != dtype) return;
  std::vector<SequenceCase> many{{20, 300}};
  for (int64_t i = 0; i < 22; ++i) many.push_back({17, 17 + i});
  for (const int64_t dim : {64, 128, 256}) {
    add("prefill_many_dim_" + std::to_string(dim),
        {.sequences = many, .q_heads = 12, .kv_heads = 12, .dim_k = dim, .dim_v = dim});
  }
  add("prefill_many_window", {.sequences = many, .q_heads = 12, .kv_heads = 12, .window = 33});
}

void add_features(Suite& suite, const Session& session, DType dtype, DType kv_dtype) {
  const std::string variant = std::string(dtype_name(dtype)) + "_kv_" + dtype_name(kv_dtype);
  const auto add = [&](const std::string& what, const AttentionCase& p) {
    suite.add("attention", variant, what, [=, &session](Case& c) { build_attention(c, session, dtype, kv_dtype, p); });
  };
  const std::vector<SequenceCase> mixed{{1, 70}, {21, 50}, {1, 2}};
  add("mha", {.sequences = mixed, .q_heads = 3, .kv_heads = 3});
  add("gqa_3", {.sequences = mixed, .q_heads = 9, .kv_heads = 3});
  add("gqa_8", {.sequences = mixed, .q_heads = 16, .kv_heads = 2});
  add("mqa_4", {.sequences = mixed, .q_heads = 4, .kv_heads = 1});
  add("head_dim_32", {.sequences = mixed, .dim_k = 32, .dim_v = 32});
  add("head_dim_80", {.sequences = mixed, .dim_k = 80, .dim_v = 80});
  add("head_dim_96", {.sequences = mixed, .dim_k = 96, .dim_v = 96});
  add("head_dim_128", {.sequences = mixed, .dim_k = 128, .dim_v = 128});
  add("head_dim_256", {.sequences = mixed, .q_heads = 4, .kv_heads = 1, .dim_k = 256, .dim_v = 256});
  add("head_dims_96_64", {.sequences = mixed, .dim_k = 96, .dim_v = 64});
  add("window_1", {.sequences = mixed, .window = 1});
  add("window_16", {.sequences = mixed, .window = 16});
  add("window_past_blocks", {.sequences = {{1, 600}, {40, 300}}, .window = 100});
  add("softcap", {.sequences = mixed, .softcap = 5, .sigma = 2});
  add("sinks", {.sequences = mixed, .sinks = true});
  add("sinks_window_softcap", {.sequences = mixed, .window = 20, .softcap = 30, .sinks = true});
  add("padding_rows_are_zero", {.sequences = mixed, .padding = 3});
  add("passed_blocks_are_dropped", {.sequences = {{1, 300}, {9, 200}}, .window = 40, .drop_passed = true});
  add("plan_knows_the_shapes", {.sequences = mixed, .window = 33, .shapes = true});
  add("strided_q", {.sequences = mixed, .gap = 4 * 64});
  add("large_scores", {.sequences = mixed, .sigma = 6});
  if (session.device.props().attention_spans) {
    add("span", {.sequences = {{50, 50}}, .spans = {{0, 7, 40}}});
    add("spans_of_several_sequences", {.sequences = {{1, 70}, {21, 50}, {90, 90}, {1, 2}},
                                       .spans = {{1, 33, 45}, {2, 0, 3}, {2, 3, 60}, {2, 71, 80}}});
    add("span_begun_before_the_chunk", {.sequences = {{60, 110}}, .spans = {{0, 20, 90}}});
    add("span_longer_than_the_window", {.sequences = {{80, 300}}, .window = 16, .spans = {{0, 225, 297}}});
    add("span_across_splits", {.sequences = {{420, 700}}, .window = 33, .spans = {{0, 285, 290}, {0, 300, 690}}});
  }
  for (const int32_t block_size : session.device.props().kv_block_sizes) {
    if (block_size == 0) break;
    add("block_size_" + std::to_string(block_size), {.sequences = mixed, .block_size = block_size});
  }
}

}  // namespace

void add_attention_cases(Suite& suite, const Session& session) {
  const std::vector<DType> kv_dtypes = session.kv_dtypes();
  for (const DType dtype : session.activation_dtypes()) {
    for (const bool captured : {false, true}) {
      if (!session.device.props().attention_spans || !dtype_in(dtype, session.device.props().kv_dtypes)) continue;
      suite.add_check("attention", dtype_name(dtype), captured ? "replay_without_spans" : "replay_with_spans",
                      [=](const Session& s) { return check_replayed_spans(s, dtype, captured); });
    }
    for (const DType kv_dtype : kv_dtypes) {
      add_shapes(suite, session, dtype, kv_dtype);
      add_features(suite, session, dtype, kv_dtype);
    }
    const std::string name = dtype_name(dtype);
    const auto add = [&](const std::string& what, const DenseCase& p) {
      suite.add("attention_dense", name, what, [=](Case& c) { build_dense(c, dtype, p); });
    };
    add("no_sequences", {{}, 2, 2, 64, 64});
    add("one_token", {{1}, 2, 2, 64, 64});
    add("ragged", {{7, 1, 50, 33}, 3, 3, 64, 64});
    add("gqa", {{20, 9}, 4, 2, 64, 64});
    add("head_dim_72", {{17, 16}, 2, 2, 72, 72});
    add("head_dim_12", {{40, 16, 64, 3}, 2, 2, 12, 12, 24});
    add("head_dim_80_strided", {{17, 5}, 2, 2, 80, 80, 320});
    add("head_dims_64_32", {{12}, 2, 2, 64, 32});
    add("bf16_products", {{7, 1, 50, 33, 300}, 3, 3, 64, 64, 0, TM_BF16});
    add("bf16_products_gqa_strided", {{70, 9}, 4, 2, 80, 40, 320, TM_BF16});
    add("bf16_products_long", {{1061}, 1, 1, 32, 32, 0, TM_BF16});
  }
}

}  // namespace turbomind::conformance
