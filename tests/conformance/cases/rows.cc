// SPDX-License-Identifier: Apache-2.0
#include "suite.h"

namespace turbomind::conformance {
namespace {

struct RowCase {
  int64_t rows;  // of the larger side
  int64_t picked;
  int64_t cols;
  int64_t gap;
};

constexpr RowCase kRowCases[] = {{4, 0, 8, 0}, {1, 1, 1, 0}, {9, 5, 33, 0}, {6, 6, 64, 8}, {40, 17, 576, 0}};

std::string label(const RowCase& p) {
  return std::to_string(p.picked) + "_of_" + std::to_string(p.rows) + "x" + std::to_string(p.cols) +
         (p.gap ? "_gap" + std::to_string(p.gap) : "");
}

void fill_values(TestTensor& tensor, Random& random) {
  for (int64_t i = 0; i < tensor.size(); ++i) tensor.set(i, static_cast<double>(random.integer(-100, 100)));
}

void build_gather(Case& c, DType dtype, const RowCase& p) {
  TestTensor& in = c.input("in", dtype, {p.rows, p.cols}, p.gap);
  TestTensor& index = c.input("index", TM_I32, {p.picked});
  TestTensor& out = c.in_out("out", dtype, {p.picked, p.cols}, p.gap);
  c.arithmetic = Arithmetic::kExact;
  c.independent_rows = p.picked;
  c.fill = [&c, &in, &index, &out, p] {
    fill_values(in, c.random);
    fill_values(out, c.random);
    for (int64_t i = 0; i < p.picked; ++i) index.set(i, static_cast<double>(c.random.integer(-1, p.rows - 1)));
  };
  c.issue = [&c, &in, &index, &out](RowRange r) {
    c.call(
        TM_OP_gather_rows, c.op().gather_rows,
        tm_gather_rows_args{.in = in.view(), .index = index.rows(r.begin, r.count), .out = out.rows(r.begin, r.count)});
  };
  c.reference = [&in, &index, &out, p] {
    out.expected = out.values();
    for (int64_t i = 0; i < p.picked; ++i) {
      const auto from = static_cast<int64_t>(index.get(i));
      for (int64_t j = 0; from >= 0 && j < p.cols; ++j) {
        out.expected[static_cast<size_t>(i * p.cols + j)] = in.get(from * p.cols + j);
      }
    }
  };
}

void build_scatter(Case& c, DType dtype, const RowCase& p) {
  TestTensor& in = c.input("in", dtype, {p.picked, p.cols}, p.gap);
  TestTensor& index = c.input("index", TM_I32, {p.picked});
  TestTensor& out = c.in_out("out", dtype, {p.rows, p.cols}, p.gap);
  c.arithmetic = Arithmetic::kExact;
  c.fill = [&c, &in, &index, &out, p] {
    fill_values(in, c.random);
    fill_values(out, c.random);
    const std::vector<int64_t> order = c.random.permutation(p.rows);
    for (int64_t i = 0; i < p.picked; ++i) {
      index.set(i, c.random.integer(0, 4) == 0 ? -1 : static_cast<double>(order[static_cast<size_t>(i)]));
    }
  };
  c.issue = [&c, &in, &index, &out](RowRange) {
    c.call(TM_OP_scatter_rows, c.op().scatter_rows,
           tm_scatter_rows_args{.in = in.view(), .index = index.view(), .out = out.view()});
  };
  c.reference = [&in, &index, &out, p] {
    out.expected = out.values();
    for (int64_t i = 0; i < p.picked; ++i) {
      const auto to = static_cast<int64_t>(index.get(i));
      for (int64_t j = 0; to >= 0 && j < p.cols; ++j) {
        out.expected[static_cast<size_t>(to * p.cols + j)] = in.get(i * p.cols + j);
      }
    }
  };
}

}  // namespace

void add_row_cases(Suite& suite, const Session&) {
  for (const DType dtype : {TM_F32, TM_F16, TM_BF16, TM_I8, TM_I32, TM_I64}) {
    for (const RowCase& p : kRowCases) {
      suite.add("gather_rows", dtype_name(dtype), label(p), [=](Case& c) { build_gather(c, dtype, p); });
      suite.add("scatter_rows", dtype_name(dtype), label(p), [=](Case& c) { build_scatter(c, dtype, p); });
    }
  }
}

}  // namespace turbomind::conformance
