// SPDX-License-Identifier: Apache-2.0
#include "perf.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <deque>
#include <memory>
#include <numeric>

#include "paged.h"
#include "roofline.h"

namespace turbomind::conformance {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kSecondsPerShape = 0.2;
constexpr double kColdBytes = 256e6;  // weights in turn, so that none is found in a cache
constexpr int kCallsPerGraph = 8;     // where the device captures, so that the host's share is not timed

// A call to time, and the least work it is: bytes read and written, float operations.
struct Timed {
  std::function<void()> issue;
  double bytes;
  double flops;
  double working_set;  // bytes that the calls pass before they meet the same again
  bool is_float32;     // the operations are held against the float32 peak
};

class Bench {
 public:
  Bench(const Session& session, std::string only) : session_(session), only_(std::move(only)), roofline_(session) {
    std::printf("%.0f MB in turn: %.1f GB/s, ", kColdBytes / 1e6, roofline_.bytes_per_second(kColdBytes) / 1e9);
    std::printf(roofline_.flops_per_second() > 0 ? "float32 %.1f GFLOP/s\n" : "float32 peak not measured\n",
                roofline_.flops_per_second() / 1e9);
  }

  // A processor: the largest shapes would take it minutes.
  bool host_accessible() const { return session_.device.props().host_accessible != 0; }

  // build makes tensors in the case and returns what to time.
  void run(const std::string& op, const std::string& shape, const std::function<Timed(Case&)>& build) {
    if (!only_.empty() && only_ != op) return;
    Case c(session_.device, session_.stream, 1);
    try {
      const Timed timed = build(c);
      for (TestTensor& tensor : c.tensors()) tensor.upload(session_.stream);
      for (TestPlan& plan : c.plans()) plan.update(session_.stream, session_.device.can_capture());
      report(op, shape, timed, session_.device.can_capture() ? seconds_in_graph(c, timed) : seconds_per_call(c, timed));
    } catch (const NotOffered& none) {
      std::printf("%-24s %-36s not offered: %s\n", op.c_str(), shape.c_str(), none.reason.c_str());
    }
  }

 private:
  double seconds_per_call(Case& c, const Timed& timed) {
    int64_t calls = 1;
    for (;; calls *= 2) {
      const Clock::time_point start = Clock::now();
      for (int64_t i = 0; i < calls; ++i) {
        c.reuse_scratch();
        timed.issue();
      }
      session_.stream.synchronize();
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      if (seconds > kSecondsPerShape) return seconds / static_cast<double>(calls);
    }
  }

  double seconds_in_graph(Case& c, const Timed& timed) {
    timed.issue();  // workspaces are there before the capture
    session_.stream.synchronize();
    session_.stream.capture_begin();
    for (int i = 0; i < kCallsPerGraph; ++i) {
      c.reuse_scratch();
      timed.issue();
    }
    const Graph graph = session_.stream.capture_end();
    std::vector<tm_plan*> plans;
    for (TestPlan& plan : c.plans()) plans.push_back(plan.plan.handle());
    for (int64_t launches = 1;; launches *= 2) {
      const Clock::time_point start = Clock::now();
      for (int64_t i = 0; i < launches; ++i) graph.launch(session_.stream, plans);
      session_.stream.synchronize();
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      if (seconds > kSecondsPerShape) return seconds / static_cast<double>(launches * kCallsPerGraph);
    }
  }

  void report(const std::string& op, const std::string& shape, const Timed& timed, double seconds) {
    const double bandwidth = timed.bytes / seconds;
    const double limit = roofline_.bytes_per_second(timed.working_set);
    std::printf("%-24s %-36s %10.1f us  %7.1f GB/s", op.c_str(), shape.c_str(), seconds * 1e6, bandwidth / 1e9);
    std::printf(limit > 0 ? " (%3.0f%%)" : "       ", 100 * bandwidth / limit);
    if (timed.flops > 0) std::printf("  %8.1f GFLOP/s", timed.flops / seconds / 1e9);
    if (timed.is_float32 && roofline_.flops_per_second() > 0) {
      std::printf(" (%3.0f%% of float32)", 100 * timed.flops / seconds / roofline_.flops_per_second());
    }
    std::printf("\n");
  }

  const Session& session_;
  std::string only_;
  Roofline roofline_;
};

double bytes_of(const TestTensor& tensor) { return static_cast<double>(nbytes(tensor.view())); }

Timed time_linear(Case& c, DType dtype, tm_weight_format format, int64_t rows, int64_t cols, int64_t n) {
  TestTensor& x = c.input("x", dtype, {rows, cols});
  TestTensor& out = c.output("out", dtype, {rows, n});
  x.fill_normal(c.random);
  const reference::RawWeight raw = reference::make_weight(format, n, cols, [&] { return c.random.next(); });
  const double raw_bytes = static_cast<double>(raw.codes.size() + raw.scales.size() + raw.zeros.size());
  auto weights = std::make_shared<std::deque<TestWeight>>();
  for (double bytes = 0; bytes < kColdBytes; bytes += raw_bytes) weights->push_back(c.pack(raw, dtype));
  auto next = std::make_shared<size_t>(0);
  const auto issue = [&c, &x, &out, weights, next] {
    const tm_weight* weight = (*weights)[++*next % weights->size()].handle();
    c.call(TM_OP_linear, c.op().linear,
           tm_linear_args{.x = x.view(), .num_weights = 1, .weight = {weight}, .out = {out.view()}});
  };
  const bool is_float = format == TM_WEIGHT_F32 || format == TM_WEIGHT_F16 || format == TM_WEIGHT_BF16;
  return {issue, raw_bytes + bytes_of(x) + bytes_of(out), 2.0 * static_cast<double>(rows * cols * n), kColdBytes,
          is_float};
}

struct AttentionShape {
  int64_t sequences;
  int64_t q_len;
  int64_t context;
  int64_t heads = 16;
  int64_t kv_heads = 4;
};

// Random keys and values in every block of the pool: the same ones again and again, block_size at a time.
void fill_pool(Case& c, DType dtype, const tm_kv_pool& pool) {
  constexpr int64_t kBlocks = 16;
  const int64_t tokens = kBlocks * pool.spec.block_size;
  TestTensor& k = c.input("k", dtype, {tokens, pool.spec.num_kv_heads, pool.spec.head_dim_k});
  TestTensor& v = c.input("v", dtype, {tokens, pool.spec.num_kv_heads, pool.spec.head_dim_v});
  for (TestTensor* tensor : {&k, &v}) {
    tensor->fill_normal(c.random);
    tensor->upload(c.stream());
  }
  TestPlan plan(
      c.device(),
      {.max_tokens = tokens, .max_seqs = 1, .max_blocks_per_seq = kBlocks, .block_size = pool.spec.block_size});
  for (int64_t begin = 0; begin < pool.num_blocks; begin += kBlocks) {
    std::vector<int64_t> blocks;
    for (int64_t i = 0; i < kBlocks; ++i) blocks.push_back(std::min(begin + i, pool.num_blocks - 1));
    plan.set({tokens}, {tokens}, {blocks});
    plan.update(c.stream(), false);
    c.call(TM_OP_kv_write, c.op().kv_write,
           tm_kv_write_args{.k = k.view(), .v = v.view(), .kv = pool, .plan = plan.plan.handle()});
  }
  c.stream().synchronize();
  c.reuse_scratch();
}

Timed time_attention(Case& c, DType dtype, DType kv_dtype, const AttentionShape& s) {
  constexpr int64_t kDim = 128;
  const int32_t block_size = c.device().props().preferred_kv_block_size;
  const tm_kv_spec spec{.num_kv_heads = static_cast<int32_t>(s.kv_heads),
                        .head_dim_k = kDim,
                        .head_dim_v = kDim,
                        .block_size = block_size,
                        .dtype = kv_dtype};
  const int64_t blocks = (s.context + block_size - 1) / block_size;
  const tm_kv_pool pool = c.kv_pool(spec, blocks * s.sequences);
  c.reset_scratch();
  fill_pool(c, dtype, pool);
  TestTensor& q = c.input("q", dtype, {s.sequences * s.q_len, s.heads, kDim});
  TestTensor& out = c.output("out", dtype, {s.sequences * s.q_len, s.heads, kDim});
  q.fill_normal(c.random);
  TestPlan& plan = c.plan({.max_tokens = s.sequences * s.q_len,
                           .max_seqs = s.sequences,
                           .max_blocks_per_seq = blocks,
                           .block_size = block_size});
  std::vector<std::vector<int64_t>> table(static_cast<size_t>(s.sequences));
  for (int64_t i = 0; i < blocks * s.sequences; ++i) table[static_cast<size_t>(i % s.sequences)].push_back(i);
  plan.set(std::vector<int64_t>(table.size(), s.q_len), std::vector<int64_t>(table.size(), s.context), table);
  const auto issue = [&c, &q, &out, &plan, pool] {
    c.call(TM_OP_attention, c.op().attention,
           tm_attention_args{.q = q.view(), .kv = pool, .plan = plan.plan.handle(), .scale = 0.09f, .out = out.view()});
  };
  const double attended = static_cast<double>(s.sequences * s.q_len) * static_cast<double>(s.context - s.q_len / 2);
  const double kv_bytes =
      static_cast<double>(s.sequences * s.context * s.kv_heads * 2 * kDim) * static_cast<double>(dtype_size(kv_dtype));
  const double bytes = kv_bytes + bytes_of(q) + bytes_of(out);
  return {issue, bytes, attended * static_cast<double>(s.heads) * 4 * kDim, bytes, true};
}

Timed time_rms_norm(Case& c, DType dtype, int64_t rows, int64_t width) {
  TestTensor& x = c.input("x", dtype, {rows, width});
  TestTensor& weight = c.input("weight", TM_F32, {width});
  TestTensor& out = c.output("out", dtype, {rows, width});
  x.fill_normal(c.random);
  const auto issue = [&c, &x, &weight, &out] {
    c.call(TM_OP_rms_norm, c.op().rms_norm,
           tm_rms_norm_args{.x = x.view(), .weight = weight.view(), .eps = 1e-5f, .out = out.view()});
  };
  return {issue, bytes_of(x) + bytes_of(out), 0, bytes_of(x) + bytes_of(out), false};
}

Timed time_gated_activation(Case& c, DType dtype, int64_t rows, int64_t width) {
  TestTensor& gate = c.input("gate", dtype, {rows, width});
  TestTensor& up = c.input("up", dtype, {rows, width});
  TestTensor& out = c.output("out", dtype, {rows, width});
  gate.fill_normal(c.random);
  up.fill_normal(c.random);
  const auto issue = [&c, &gate, &up, &out] {
    c.call(
        TM_OP_gated_activation, c.op().gated_activation,
        tm_gated_activation_args{.gate = gate.view(), .up = up.view(), .kind = TM_ACTIVATION_SILU, .out = out.view()});
  };
  return {issue, 3 * bytes_of(out), 0, 3 * bytes_of(out), false};
}

Timed time_rope(Case& c, DType dtype, int64_t rows) {
  constexpr int64_t kDim = 128;
  TestTensor& q = c.in_out("q", dtype, {rows, 16, kDim});
  TestTensor& k = c.in_out("k", dtype, {rows, 4, kDim});
  TestTensor& positions = c.input("positions", TM_I32, {rows});
  TestTensor& table = c.input("cos_sin", TM_F32, {rows, kDim});
  q.fill_normal(c.random);
  k.fill_normal(c.random);
  table.fill_uniform(c.random, -1, 1);
  for (int64_t i = 0; i < rows; ++i) positions.set(i, static_cast<double>(i));
  const auto issue = [&c, &q, &k, &positions, &table] {
    c.call(
        TM_OP_rope, c.op().rope,
        tm_rope_args{
            .q = q.view(), .k = k.view(), .positions = positions.view(), .cos_sin = table.view(), .rotary_dim = kDim});
  };
  const double held = bytes_of(q) + bytes_of(k) + bytes_of(table);
  return {issue, held + bytes_of(q) + bytes_of(k), 0, held, false};
}

Timed time_linear_gated_activation(Case& c, DType dtype, int64_t rows, int64_t cols, int64_t n) {
  TestTensor& x = c.input("x", dtype, {rows, cols});
  TestTensor& out = c.output("out", dtype, {rows, n});
  x.fill_normal(c.random);
  const tm_weight_format format = dtype == TM_F32 ? TM_WEIGHT_F32 : dtype == TM_F16 ? TM_WEIGHT_F16 : TM_WEIGHT_BF16;
  auto weights = std::make_shared<std::deque<TestWeight>>();
  const reference::RawWeight raw = reference::make_weight(format, n, cols, [&] { return c.random.next(); });
  for (int i = 0; i < 2; ++i) weights->push_back(c.pack(raw, dtype));
  const auto issue = [&c, &x, &out, weights] {
    c.call(TM_OP_linear_gated_activation, c.op().linear_gated_activation,
           tm_linear_gated_activation_args{.x = x.view(),
                                           .gate = (*weights)[0].handle(),
                                           .up = (*weights)[1].handle(),
                                           .kind = TM_ACTIVATION_SILU,
                                           .out = out.view()});
  };
  const double bytes = 2 * static_cast<double>(raw.codes.size()) + bytes_of(x) + bytes_of(out);
  return {issue, bytes, 4.0 * static_cast<double>(rows * cols * n), bytes, dtype == TM_F32};
}

// Of a fused projection's rows, as layers have them.
Timed time_rope_kv_write(Case& c, DType dtype, int64_t rows) {
  constexpr int64_t kDim = 128;
  constexpr int64_t kHeads = 32;
  constexpr int64_t kKvHeads = 8;
  const int32_t block_size = c.device().props().preferred_kv_block_size;
  const tm_kv_spec spec{
      .num_kv_heads = kKvHeads, .head_dim_k = kDim, .head_dim_v = kDim, .block_size = block_size, .dtype = dtype};
  const int64_t num_blocks = (rows + block_size - 1) / block_size;
  const tm_kv_pool pool = c.kv_pool(spec, num_blocks);
  TestTensor& qkv = c.in_out("qkv", dtype, {rows, (kHeads + 2 * kKvHeads) * kDim});
  TestTensor& positions = c.input("positions", TM_I32, {rows});
  TestTensor& table = c.input("cos_sin", TM_F32, {rows, kDim});
  qkv.fill_normal(c.random);
  table.fill_uniform(c.random, -1, 1);
  for (int64_t i = 0; i < rows; ++i) positions.set(i, static_cast<double>(i));
  TestPlan& plan =
      c.plan({.max_tokens = rows, .max_seqs = 1, .max_blocks_per_seq = num_blocks, .block_size = block_size});
  std::vector<int64_t> blocks(static_cast<size_t>(num_blocks));
  std::iota(blocks.begin(), blocks.end(), 0);
  plan.set({rows}, {rows}, {blocks});
  const auto issue = [&c, &qkv, &positions, &table, &plan, pool, rows] {
    const auto heads = [&](int64_t first, int64_t count) {
      return reshape(column_slice(qkv.view(), first * kDim, count * kDim), {rows, count, kDim});
    };
    c.call(TM_OP_qk_norm_rope_kv_write, c.op().qk_norm_rope_kv_write,
           tm_qk_norm_rope_kv_write_args{.rope = {.struct_size = sizeof(tm_rope_args),
                                                  .q = heads(0, kHeads),
                                                  .k = heads(kHeads, kKvHeads),
                                                  .positions = positions.view(),
                                                  .cos_sin = table.view(),
                                                  .rotary_dim = kDim},
                                         .norm_eps = 1e-6f,
                                         .kv_write = {.struct_size = sizeof(tm_kv_write_args),
                                                      .k = heads(kHeads, kKvHeads),
                                                      .v = heads(kHeads + kKvHeads, kKvHeads),
                                                      .kv = pool,
                                                      .plan = plan.plan.handle()}});
  };
  const double moved = 2 * bytes_of(qkv) + bytes_of(table);
  return {issue, moved, 0, moved, false};
}

Timed time_sample(Case& c, int64_t rows, int64_t vocabulary, double temperature, int64_t top_k, double top_p) {
  TestTensor& logits = c.input("logits", TM_F32, {rows, vocabulary});
  TestTensor& temperatures = c.input("temperature", TM_F32, {rows});
  TestTensor& top_ks = c.input("top_k", TM_I32, {rows});
  TestTensor& top_ps = c.input("top_p", TM_F32, {rows});
  TestTensor& min_ps = c.input("min_p", TM_F32, {rows});
  TestTensor& seeds = c.input("seed", TM_U64, {rows});
  TestTensor& positions = c.input("position", TM_I64, {rows});
  TestTensor& out = c.output("out", TM_I32, {rows});
  logits.fill_normal(c.random, 3);
  for (int64_t i = 0; i < rows; ++i) {
    temperatures.set(i, temperature);
    top_ks.set(i, static_cast<double>(top_k));
    top_ps.set(i, top_p);
    seeds.set_word(i, c.random.next());
  }
  const auto issue = [&c, &logits, &temperatures, &top_ks, &top_ps, &min_ps, &seeds, &positions, &out] {
    c.call(TM_OP_sample, c.op().sample,
           tm_sample_args{.logits = logits.view(),
                          .temperature = temperatures.view(),
                          .top_k = top_ks.view(),
                          .top_p = top_ps.view(),
                          .min_p = min_ps.view(),
                          .seed = seeds.view(),
                          .position = positions.view(),
                          .out = out.view()});
  };
  return {issue, bytes_of(logits), 0, bytes_of(logits), false};
}

void run_linears(Bench& bench, DType dtype) {
  constexpr int64_t kSize = 2048;
  for (const tm_weight_format format :
       {TM_WEIGHT_F32, TM_WEIGHT_F16, TM_WEIGHT_BF16, TM_WEIGHT_GGUF_Q4_0, TM_WEIGHT_GGUF_Q4_1, TM_WEIGHT_GGUF_Q5_0,
        TM_WEIGHT_GGUF_Q5_1, TM_WEIGHT_GGUF_Q8_0, TM_WEIGHT_GGUF_Q4_K, TM_WEIGHT_GGUF_Q5_K, TM_WEIGHT_GGUF_Q6_K,
        TM_WEIGHT_INT4_GROUP, TM_WEIGHT_INT8_CHANNEL, TM_WEIGHT_FP8_BLOCK128}) {
    for (const int64_t rows : {1, 8, 32, 512}) {
      const std::string shape = std::string(weight_format_name(format)) + " 2048x2048 rows " + std::to_string(rows);
      bench.run("linear", shape, [=](Case& c) { return time_linear(c, dtype, format, rows, kSize, kSize); });
    }
  }
}

void run_attentions(Bench& bench, DType dtype, DType kv_dtype) {
  const std::string tail = std::string(" kv ") + dtype_name(kv_dtype);
  const auto run = [&](const std::string& what, const AttentionShape& s) {
    bench.run("attention", what + tail, [=](Case& c) { return time_attention(c, dtype, kv_dtype, s); });
  };
  run("decode 1 x 4096", {1, 1, 4096});
  run("decode 32 x 1024", {32, 1, 1024});
  run("prefill 512", {1, 512, 512});
  run("chunk 128 of 4096", {1, 128, 4096});
  if (bench.host_accessible()) return;
  run("decode 1 x 4096, 32/8 heads", {1, 1, 4096, 32, 8});
  run("decode 256 x 640, 32/8 heads", {256, 1, 640, 32, 8});
  run("decode 64 x 4096, 32/8 heads", {64, 1, 4096, 32, 8});
  run("prefill 16 x 1024, 32/8 heads", {16, 1024, 1024, 32, 8});
  run("prefill 4096, 32/8 heads", {1, 4096, 4096, 32, 8});
  run("prefill 15000, 32/8 heads", {1, 15000, 15000, 32, 8});
  run("chunk 8192 of 32768, 32/8 heads", {1, 8192, 32768, 32, 8});
}

}  // namespace

int run_perf(const Session& session, const std::string& op) {
  Bench bench(session, op);
  const DType dtype = session.device.props().preferred_activation;
  run_linears(bench, dtype);
  for (const DType kv_dtype : session.kv_dtypes()) run_attentions(bench, dtype, kv_dtype);
  std::vector<int64_t> row_counts{1, 512};
  if (!bench.host_accessible()) row_counts.push_back(8192);
  for (const int64_t rows : row_counts) {
    const std::string shape = "rows " + std::to_string(rows);
    bench.run("rms_norm", shape + " x 2048", [=](Case& c) { return time_rms_norm(c, dtype, rows, 2048); });
    bench.run("gated_activation", shape + " x 5632",
              [=](Case& c) { return time_gated_activation(c, dtype, rows, 5632); });
    bench.run("linear_gated_activation", shape + " x 2048 to 5632",
              [=](Case& c) { return time_linear_gated_activation(c, dtype, rows, 2048, 5632); });
    bench.run("qk_norm_rope_kv_write", shape + " x (32 + 2 x 8) x 128",
              [=](Case& c) { return time_rope_kv_write(c, dtype, rows); });
    bench.run("rope", shape + " x (16 + 4) x 128", [=](Case& c) { return time_rope(c, dtype, rows); });
  }
  for (const int64_t rows : {1, 32}) {
    const std::string shape = "rows " + std::to_string(rows) + " x 128000 ";
    bench.run("sample", shape + "greedy", [=](Case& c) { return time_sample(c, rows, 128000, 0, 0, 1); });
    bench.run("sample", shape + "plain", [=](Case& c) { return time_sample(c, rows, 128000, 1, 0, 1); });
    bench.run("sample", shape + "top_k 40 top_p 0.9",
              [=](Case& c) { return time_sample(c, rows, 128000, 0.8, 40, 0.9); });
    bench.run("sample", shape + "top_p 0.9", [=](Case& c) { return time_sample(c, rows, 128000, 0.8, 0, 0.9); });
  }
  return 0;
}

}  // namespace turbomind::conformance
