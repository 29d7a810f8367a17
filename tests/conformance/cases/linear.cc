// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>

#include "reference/ops.h"
#include "suite.h"

namespace turbomind::conformance {
namespace {

constexpr tm_weight_format kFormats[] = {
    TM_WEIGHT_F32,         TM_WEIGHT_F16,          TM_WEIGHT_BF16,       TM_WEIGHT_GGUF_Q4_0,    TM_WEIGHT_GGUF_Q4_1,
    TM_WEIGHT_GGUF_Q5_0,   TM_WEIGHT_GGUF_Q5_1,    TM_WEIGHT_GGUF_Q8_0,  TM_WEIGHT_GGUF_Q4_K,    TM_WEIGHT_GGUF_Q5_K,
    TM_WEIGHT_GGUF_Q6_K,   TM_WEIGHT_INT4_GROUP,   TM_WEIGHT_INT8_GROUP, TM_WEIGHT_INT8_CHANNEL, TM_WEIGHT_FP8_TENSOR,
    TM_WEIGHT_FP8_CHANNEL, TM_WEIGHT_FP8_BLOCK128, TM_WEIGHT_MXFP4};

struct LinearCase {
  int64_t rows;
  int64_t cols;
  int64_t n;
  tm_compute compute = TM_COMPUTE_DEFAULT;
  WeightOptions weight{};
  int64_t x_gap = 0;
  int64_t out_gap = 0;
  bool bias = false;
  tm_activation_kind activation = TM_ACTIVATION_NONE;
  bool f32_out = false;
};

Arithmetic linear_arithmetic(tm_weight_format format, tm_compute compute, DType activation) {
  if (compute == TM_COMPUTE_FLOAT32) return Arithmetic::kFloat32;
  if (format == TM_WEIGHT_F32 && activation == TM_F32) return Arithmetic::kFloat32;
  return format <= TM_WEIGHT_BF16 ? Arithmetic::kHalf : Arithmetic::kQuantized;
}

void build_linear(Case& c, DType dtype, tm_weight_format format, const LinearCase& p) {
  WeightOptions options = p.weight;
  options.compute = p.compute;
  options.activation = dtype;
  TestTensor& x = c.input("x", dtype, {p.rows, p.cols}, p.x_gap);
  TestWeight& weight = c.weight(format, p.n, p.cols, options);
  TestTensor& bias = c.input("bias", TM_F32, {p.n});
  TestTensor& out = c.output("out", p.f32_out ? TM_F32 : dtype, {p.rows, p.n}, p.out_gap);
  // Normal inputs on weights of variance 1 / cols: outputs of about unit variance.
  c.tolerance = tolerance(linear_arithmetic(format, p.compute, dtype), p.f32_out ? TM_F32 : dtype);
  c.tolerance->least_rms = 0.7;
  c.independent_rows = p.rows;
  c.issue = [&c, &x, &weight, &bias, &out, p](RowRange r) {
    c.call(TM_OP_linear, c.op().linear,
           tm_linear_args{.x = x.rows(r.begin, r.count),
                          .num_weights = 1,
                          .weight = {weight.handle()},
                          .bias = {p.bias ? bias.view() : Tensor{}},
                          .activation = p.activation,
                          .out = {out.rows(r.begin, r.count)}});
  };
  c.reference = [&x, &weight, &bias, &out, p] {
    out.expected = reference::linear(x.values(), weight.values, p.bias ? bias.values() : reference::Values{}, p.cols,
                                     p.activation);
  };
}

// Several weights on one activation, of different formats and sizes, into column slices of one tensor.
void build_fused_linear(Case& c, DType dtype, std::vector<tm_weight_format> formats, int64_t rows) {
  constexpr int64_t kCols = 256;
  const std::vector<int64_t> sizes{96, 32, 40, 7};
  const size_t count = formats.size();
  int64_t total = 0;
  for (size_t i = 0; i < count; ++i) total += sizes[i];
  TestTensor& x = c.input("x", dtype, {rows, kCols});
  std::vector<TestWeight*> weights;
  Arithmetic arithmetic = Arithmetic::kFloat32;
  for (size_t i = 0; i < count; ++i) {
    weights.push_back(&c.weight(formats[i], sizes[i], kCols, {.activation = dtype}));
    arithmetic = std::max(arithmetic, linear_arithmetic(formats[i], TM_COMPUTE_DEFAULT, dtype));
  }
  TestTensor& out = c.output("out", dtype, {rows, total});
  c.arithmetic = arithmetic;
  c.independent_rows = rows;
  c.issue = [&c, &x, &out, weights, sizes](RowRange r) {
    tm_linear_args args{.x = x.rows(r.begin, r.count), .num_weights = static_cast<int32_t>(weights.size())};
    int64_t column = 0;
    for (size_t i = 0; i < weights.size(); column += sizes[i++]) {
      args.weight[i] = weights[i]->handle();
      args.out[i] = column_slice(out.rows(r.begin, r.count), column, sizes[i]);
    }
    c.call(TM_OP_linear, c.op().linear, args);
  };
  c.reference = [&x, &out, weights, sizes, rows, total] {
    out.expected.resize(static_cast<size_t>(rows * total));
    int64_t column = 0;
    for (size_t i = 0; i < weights.size(); column += sizes[i++]) {
      const auto part = reference::linear(x.values(), weights[i]->values, {}, kCols, TM_ACTIVATION_NONE);
      for (int64_t t = 0; t < rows; ++t) {
        std::copy_n(part.begin() + t * sizes[i], sizes[i], out.expected.begin() + t * total + column);
      }
    }
  };
}

void build_grouped_linear(Case& c, DType dtype, tm_weight_format format, std::vector<int64_t> counts) {
  constexpr int64_t kCols = 256;
  constexpr int64_t kN = 40;
  const auto experts = static_cast<int64_t>(counts.size());
  int64_t rows = 0;
  for (const int64_t count : counts) rows += count;
  TestTensor& x = c.input("x", dtype, {rows, kCols});
  TestWeight& weight = c.weight(format, kN, kCols, {.num_experts = static_cast<int32_t>(experts), .activation = dtype});
  TestTensor& offsets = c.input("expert_offsets", TM_I32, {experts + 1});
  TestTensor& out = c.output("out", dtype, {rows, kN});
  c.arithmetic = linear_arithmetic(format, TM_COMPUTE_DEFAULT, dtype);
  c.fill = [&c, &x, &offsets, counts] {
    x.fill_normal(c.random);
    // Another split of the rows at every fill: a replay must read the offsets from the device.
    std::vector<int64_t> order = c.random.permutation(static_cast<int64_t>(counts.size()));
    int64_t offset = 0;
    offsets.set(0, 0);
    for (size_t e = 0; e < counts.size(); ++e) {
      offset += counts[static_cast<size_t>(order[e])];
      offsets.set(static_cast<int64_t>(e) + 1, static_cast<double>(offset));
    }
  };
  c.issue = [&c, &x, &weight, &offsets, &out](RowRange) {
    c.call(TM_OP_grouped_linear, c.op().grouped_linear,
           tm_grouped_linear_args{
               .x = x.view(), .weight = weight.handle(), .expert_offsets = offsets.view(), .out = out.view()});
  };
  c.reference = [&x, &weight, &offsets, &out, experts] {
    const reference::Values all = x.values();
    for (int64_t e = 0; e < experts; ++e) {
      const auto begin = static_cast<int64_t>(offsets.get(e));
      const auto end = static_cast<int64_t>(offsets.get(e + 1));
      const reference::Values rows(all.begin() + begin * kCols, all.begin() + end * kCols);
      const reference::Values matrix(weight.values.begin() + e * kN * kCols,
                                     weight.values.begin() + (e + 1) * kN * kCols);
      const reference::Values part = reference::linear(rows, matrix, {}, kCols, TM_ACTIVATION_NONE);
      out.expected.insert(out.expected.end(), part.begin(), part.end());
    }
  };
}

void build_nan_row(Case& c, DType dtype) {
  build_linear(c, dtype, TM_WEIGHT_F32, {.rows = 3, .cols = 64, .n = 9, .compute = TM_COMPUTE_FLOAT32});
  TestTensor& x = c.tensors()[0];
  c.fill = [&c, &x] {
    x.fill_normal(c.random);
    x.set(64 + 5, std::numeric_limits<double>::quiet_NaN());
  };
}

void add_format_cases(Suite& suite, DType dtype, tm_weight_format format) {
  const std::string name = std::string(dtype_name(dtype)) + "_x_" + weight_format_name(format);
  const reference::FormatShape shape = reference::format_shape(format);
  const int64_t k = std::max<int64_t>(shape.granularity, 32);
  const auto add = [&](const std::string& what, const LinearCase& p) {
    suite.add("linear", name, what, [=](Case& c) { build_linear(c, dtype, format, p); });
  };
  for (const int64_t rows : {int64_t{1}, int64_t{2}, int64_t{3}, int64_t{5}, int64_t{8}, int64_t{17}, int64_t{33}}) {
    add("rows" + std::to_string(rows), {.rows = rows, .cols = 2 * k, .n = 48});
  }
  add("no_rows", {.rows = 0, .cols = k, .n = 16});
  add("smallest", {.rows = 1, .cols = k, .n = 1});
  add("odd_outputs", {.rows = 4, .cols = 3 * k, .n = 37});
  add("long", {.rows = 70, .cols = 768, .n = 130});
  add("float32", {.rows = 6, .cols = 2 * k, .n = 50, .compute = TM_COMPUTE_FLOAT32});
  add("float32_one_row", {.rows = 1, .cols = 5 * k, .n = 35, .compute = TM_COMPUTE_FLOAT32});
  add("column_slice", {.rows = 5, .cols = 2 * k, .n = 24, .weight = {.num_parts = 3, .skipped_cols = k}});
  if (weight_format_info(format).separate_scales) {
    // Columns 32 to 96 of 128: inside a group of 128 or a block of 128 x 128.
    add("slice_inside_a_scale_block",
        {.rows = 5, .cols = 64, .n = 140, .weight = {.skipped_rows = 24, .skipped_cols = 32}});
    add("global_scale", {.rows = 3, .cols = 2 * k, .n = 20, .weight = {.global_scale = 0.5f}});
  }
  add("bias_silu_strided",
      {.rows = 5, .cols = 2 * k, .n = 20, .x_gap = 32, .out_gap = 12, .bias = true, .activation = TM_ACTIVATION_SILU});
  add("f32_out", {.rows = 3, .cols = 2 * k, .n = 33, .f32_out = true});
}

}  // namespace

void add_linear_cases(Suite& suite, const Session& session) {
  for (const DType dtype : session.activation_dtypes()) {
    for (const tm_weight_format format : kFormats) {
      add_format_cases(suite, dtype, format);
      const std::string name = std::string(dtype_name(dtype)) + "_x_" + weight_format_name(format);
      suite.add("grouped_linear", name, "ragged",
                [=](Case& c) { build_grouped_linear(c, dtype, format, {3, 0, 1, 9, 0}); });
    }
    const std::string name = dtype_name(dtype);
    suite.add("grouped_linear", name, "no_rows",
              [=](Case& c) { build_grouped_linear(c, dtype, TM_WEIGHT_F32, {0, 0}); });
    suite.add("grouped_linear", name, "one_expert",
              [=](Case& c) { build_grouped_linear(c, dtype, TM_WEIGHT_F32, {40}); });
    suite.add("linear", name, "nan_stays_in_its_row", [=](Case& c) { build_nan_row(c, dtype); });
    for (const int64_t rows : {int64_t{1}, int64_t{6}, int64_t{40}}) {
      const std::string tail = "_rows" + std::to_string(rows);
      suite.add("linear", name, "fused_q4_1_q4_1_q8_0" + tail, [=](Case& c) {
        build_fused_linear(c, dtype, {TM_WEIGHT_GGUF_Q4_1, TM_WEIGHT_GGUF_Q4_1, TM_WEIGHT_GGUF_Q8_0}, rows);
      });
      suite.add("linear", name, "fused_q4_k_q6_k_q5_0_f32" + tail, [=](Case& c) {
        build_fused_linear(c, dtype, {TM_WEIGHT_GGUF_Q4_K, TM_WEIGHT_GGUF_Q6_K, TM_WEIGHT_GGUF_Q5_0, TM_WEIGHT_F32},
                           rows);
      });
      suite.add("linear", name, "fused_bf16_bf16" + tail,
                [=](Case& c) { build_fused_linear(c, dtype, {TM_WEIGHT_BF16, TM_WEIGHT_BF16}, rows); });
    }
    for (int k = TM_ACTIVATION_NONE; k <= TM_ACTIVATION_RELU; ++k) {
      const auto kind = static_cast<tm_activation_kind>(k);
      suite.add("linear", name, "activation" + std::to_string(k), [=](Case& c) {
        build_linear(c, dtype, TM_WEIGHT_F32, {.rows = 3, .cols = 64, .n = 18, .bias = true, .activation = kind});
      });
    }
  }
}

void add_embedding_cases(Suite& suite, const Session& session) {
  const auto build = [](Case& c, DType dtype, tm_weight_format format, int64_t rows, int64_t row_offset, double scale) {
    constexpr int64_t kVocabulary = 50;
    constexpr int64_t kCols = 256;
    TestTensor& ids = c.input("ids", TM_I32, {rows});
    TestWeight& weight = c.weight(format, kVocabulary, kCols, {.is_embedding = true, .activation = dtype});
    TestTensor& out = c.output("out", dtype, {rows, kCols}, rows > 1 ? 16 : 0);
    c.independent_rows = rows;
    c.fill = [&c, &ids, row_offset] {
      // Ids below, inside and above the shard.
      for (int64_t i = 0; i < ids.size(); ++i) {
        ids.set(i, static_cast<double>(c.random.integer(0, kVocabulary + 2 * row_offset - 1)));
      }
    };
    c.issue = [&c, &ids, &weight, &out, row_offset, scale](RowRange r) {
      c.call(TM_OP_embedding, c.op().embedding,
             tm_embedding_args{.ids = ids.rows(r.begin, r.count),
                               .weight = weight.handle(),
                               .row_offset = row_offset,
                               .scale = static_cast<float>(scale),
                               .out = out.rows(r.begin, r.count)});
    };
    c.reference = [&ids, &weight, &out, row_offset, scale] {
      for (int64_t i = 0; i < ids.size(); ++i) {
        const int64_t row = static_cast<int64_t>(ids.get(i)) - row_offset;
        const bool inside = row >= 0 && row < kVocabulary;
        for (int64_t k = 0; k < kCols; ++k) {
          out.expected.push_back(inside ? weight.values[static_cast<size_t>(row * kCols + k)] * scale : 0);
        }
      }
    };
  };
  for (const DType dtype : session.activation_dtypes()) {
    for (const tm_weight_format format : kFormats) {
      const std::string name = std::string(dtype_name(dtype)) + "_x_" + weight_format_name(format);
      suite.add("embedding", name, "rows9", [=](Case& c) { build(c, dtype, format, 9, 0, 1); });
      suite.add("embedding", name, "shard", [=](Case& c) { build(c, dtype, format, 13, 25, 25.25); });
    }
    suite.add("embedding", dtype_name(dtype), "no_rows", [=](Case& c) { build(c, dtype, TM_WEIGHT_F32, 0, 0, 1); });
    suite.add("embedding", dtype_name(dtype), "one_row", [=](Case& c) { build(c, dtype, TM_WEIGHT_F32, 1, 0, 1); });
  }
}

}  // namespace turbomind::conformance
