// SPDX-License-Identifier: Apache-2.0
//
// qk_norm_rope_kv_write against the reference and against its parts: one prefill chunk, read back by attention of its
// last tokens.
#include <cmath>
#include <memory>

#include "paged.h"

namespace turbomind::conformance {
namespace {

constexpr int64_t kProbes = 11;  // tokens that read
constexpr int64_t kDim = 64;
constexpr int64_t kMaxPosition = 64;
constexpr double kEps = 1e-6;
constexpr double kScale = 0.125;

struct Variant {
  bool norms;
  tm_rope_style style;
  int64_t tokens = kProbes;
  int64_t heads = 4;
  int64_t kv_heads = 2;
};

tm_kv_spec chunk_spec(const Session& session, DType kv_dtype, const Variant& variant) {
  return {.num_kv_heads = static_cast<int32_t>(variant.kv_heads),
          .head_dim_k = kDim,
          .head_dim_v = kDim,
          .block_size = session.device.props().preferred_kv_block_size,
          .dtype = kv_dtype};
}

int64_t chunk_blocks(const tm_kv_spec& spec, int64_t tokens) {
  return (tokens + spec.block_size - 1) / spec.block_size;
}

// What one of the two ways works on: the fusion, or its composition.
struct Side {
  Side(Case& c, const std::string& tail, DType dtype, const tm_kv_spec& spec, const Variant& variant)
      : q(c.in_out("q" + tail, dtype, {variant.tokens, variant.heads, kDim})),
        k(c.in_out("k" + tail, dtype, {variant.tokens, variant.kv_heads, kDim})),
        seen(c.output("seen" + tail, dtype, {kProbes, variant.heads, kDim})),
        cache(c, dtype, spec, chunk_blocks(spec, variant.tokens)) {}

  TestTensor& q;
  TestTensor& k;     // may be left as it is or rotated, so it is not compared
  TestTensor& seen;  // attention over what was written
  PagedCache cache;
};

class FusedAttentionCase {
 public:
  FusedAttentionCase(Case& c, const tm_kv_spec& spec, DType dtype, Variant variant)
      : case_(c),
        variant_(variant),
        fused_(c, "", dtype, spec, variant),
        composed_(c, "_composed", dtype, spec, variant),
        v_(c.input("v", dtype, {variant.tokens, variant.kv_heads, kDim})),
        q_weight_(c.input("q_norm_weight", TM_F32, {kDim})),
        k_weight_(c.input("k_norm_weight", TM_F32, {kDim})),
        positions_(c.input("positions", TM_I32, {variant.tokens})),
        table_(c.input("cos_sin", TM_F32, {kMaxPosition, kDim})),
        probe_(c.input("probe", dtype, {kProbes, variant.heads, kDim})),
        plan_(make_plan(spec, variant.tokens)),
        probe_plan_(make_plan(spec, kProbes)) {}

  void fill() {
    Random& random = case_.random;
    for (TestTensor* tensor : {&fused_.q, &fused_.k, &v_, &probe_}) tensor->fill_normal(random);
    composed_.q.set_all(fused_.q.values());
    composed_.k.set_all(fused_.k.values());
    q_weight_.fill_uniform(random, 0.5, 1.5);
    k_weight_.fill_uniform(random, 0.5, 1.5);
    for (int64_t i = 0; i < variant_.tokens; ++i) {
      positions_.set(i, static_cast<double>(random.integer(0, kMaxPosition - 1)));
    }
    for (int64_t i = 0; i < kMaxPosition * kDim / 2; ++i) {
      const int64_t position = i / (kDim / 2);
      const int64_t pair = i % (kDim / 2);
      const double angle = static_cast<double>(position) / std::pow(100.0, static_cast<double>(pair) / (kDim / 2));
      table_.set(position * kDim + pair, std::cos(angle));
      table_.set(position * kDim + kDim / 2 + pair, std::sin(angle));
    }
  }

  void issue_fused() {
    const bool norms = variant_.norms;
    case_.call(TM_OP_qk_norm_rope_kv_write, case_.op().qk_norm_rope_kv_write,
               tm_qk_norm_rope_kv_write_args{.rope = rope_args(fused_),
                                             .q_norm_weight = norms ? q_weight_.view() : Tensor{},
                                             .k_norm_weight = norms ? k_weight_.view() : Tensor{},
                                             .norm_eps = static_cast<float>(kEps),
                                             .kv_write = write_args(fused_)});
    read(fused_);
  }

  void issue_parts() {
    if (variant_.norms) {
      norm(composed_.q, q_weight_);
      norm(composed_.k, k_weight_);
    }
    case_.call(TM_OP_rope, case_.op().rope, rope_args(composed_));
    case_.call(TM_OP_kv_write, case_.op().kv_write, write_args(composed_));
    read(composed_);
  }

  void expect() {
    fused_.q.expected = rotated(fused_.q, q_weight_, variant_.heads);
    // The reference's cache is one block as long as the chunk.
    const StepLayout step{.q_lens = {kProbes}, .context_lens = {variant_.tokens}, .table = {{0}}};
    const reference::Attention problem{
        .q_heads = variant_.heads, .kv_heads = variant_.kv_heads, .dim_k = kDim, .dim_v = kDim, .scale = kScale};
    fused_.seen.expected = paged_attention(
        problem, step, variant_.tokens, rotated(fused_.k, k_weight_, variant_.kv_heads), v_.values(), probe_.values());
  }

  std::string verify() const {
    const DType dtype = fused_.q.dtype();
    // The fusion need not round between its parts.
    const Tolerance norms = tolerance(dtype == TM_F32 ? Arithmetic::kFloat32 : Arithmetic::kHalf, dtype);
    const std::string wrong = verify_pair(fused_.q, composed_.q, norms);
    return wrong.empty() ? verify_pair(fused_.seen, composed_.seen, tolerance(fused_.cache.arithmetic(), dtype))
                         : wrong;
  }

 private:
  // Of the chunk's last q_len tokens.
  TestPlan& make_plan(const tm_kv_spec& spec, int64_t q_len) {
    const int64_t num_blocks = chunk_blocks(spec, variant_.tokens);
    TestPlan& plan = case_.plan(
        {.max_tokens = q_len, .max_seqs = 1, .max_blocks_per_seq = num_blocks, .block_size = spec.block_size});
    std::vector<int64_t> blocks;
    for (int64_t b = num_blocks; b-- > 0;) blocks.push_back(b);
    plan.set({q_len}, {variant_.tokens}, {blocks});
    return plan;
  }

  tm_rope_args rope_args(const Side& side) const {
    return {.struct_size = sizeof(tm_rope_args),
            .q = side.q.view(),
            .k = side.k.view(),
            .positions = positions_.view(),
            .cos_sin = table_.view(),
            .rotary_dim = kDim,
            .style = variant_.style};
  }

  tm_kv_write_args write_args(const Side& side) const {
    return {.struct_size = sizeof(tm_kv_write_args),
            .k = side.k.view(),
            .v = v_.view(),
            .kv = side.cache.pool(),
            .plan = plan_.plan.handle()};
  }

  void norm(const TestTensor& x, const TestTensor& weight) {
    case_.call(
        TM_OP_rms_norm, case_.op().rms_norm,
        tm_rms_norm_args{.x = x.view(), .weight = weight.view(), .eps = static_cast<float>(kEps), .out = x.view()});
  }

  void read(const Side& side) {
    case_.call(TM_OP_attention, case_.op().attention,
               tm_attention_args{.q = probe_.view(),
                                 .kv = side.cache.pool(),
                                 .plan = probe_plan_.plan.handle(),
                                 .scale = static_cast<float>(kScale),
                                 .out = side.seen.view()});
  }

  reference::Values rotated(const TestTensor& x, const TestTensor& weight, int64_t heads) const {
    reference::Values values = variant_.norms ? reference::rms_norm(x.values(), weight.values(), kEps) : x.values();
    reference::rope({.num_tokens = variant_.tokens,
                     .heads = heads,
                     .dim = kDim,
                     .rotary_dim = kDim,
                     .style = variant_.style,
                     .positions = positions_.values(),
                     .cos_sin = table_.values()},
                    values);
    return values;
  }

  Case& case_;
  Variant variant_;
  Side fused_;
  Side composed_;
  TestTensor& v_;
  TestTensor& q_weight_;
  TestTensor& k_weight_;
  TestTensor& positions_;
  TestTensor& table_;
  TestTensor& probe_;
  TestPlan& plan_;
  TestPlan& probe_plan_;
};

void build(Case& c, const Session& session, DType dtype, DType kv_dtype, Variant variant) {
  if (!c.op().qk_norm_rope_kv_write) throw NotOffered{"the qk_norm_rope_kv_write slot is NULL"};
  auto test = std::make_shared<FusedAttentionCase>(c, chunk_spec(session, kv_dtype, variant), dtype, variant);
  c.fill = [test] { test->fill(); };
  c.issue = [test](RowRange) {
    test->issue_fused();
    test->issue_parts();
  };
  c.reference = [test] { test->expect(); };
  c.verify = [test] { return test->verify(); };
}

}  // namespace

void add_fused_attention_cases(Suite& suite, const Session& session) {
  const std::vector<DType> kv_dtypes = session.kv_dtypes();
  for (const DType dtype : session.activation_dtypes()) {
    for (const DType kv_dtype : kv_dtypes) {
      const auto add = [&](const std::string& what, Variant variant) {
        suite.add("qk_norm_rope_kv_write", std::string(dtype_name(dtype)) + "_kv_" + dtype_name(kv_dtype), what,
                  [=, &session](Case& c) { build(c, session, dtype, kv_dtype, variant); });
      };
      add("norms", {true, TM_ROPE_NEOX});
      add("plain", {false, TM_ROPE_NEOX});
      add("interleaved", {true, TM_ROPE_INTERLEAVED});
      // Enough to fill any device; heads that no power of two divides.
      if (kv_dtype == dtype) add("norms_many_tokens", {true, TM_ROPE_NEOX, 2000, 27, 9});
    }
  }
}

}  // namespace turbomind::conformance
