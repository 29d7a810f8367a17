// SPDX-License-Identifier: Apache-2.0
//
// FusedInferAttentionScore: attention of new rows over whole contexts, packed or paged, with the masks of its sparse
// modes.
#include <cmath>
#include <optional>

#include "abi/ops.h"
#include "nnop/call.h"
#include "nnop/number.h"
#include "ops/gemm.h"

namespace fakecann {
namespace {

constexpr int64_t kNoMask = 0, kRightDown = 3, kBand = 4;
constexpr int64_t kMaskSide = 2048;

// How a [tokens or batch, ...] tensor is addressed: element 0 of the row of token `s` of sequence `b`, head `h`.
struct Rows {
  int64_t batch_stride = 0, token_stride = 0, head_stride = 0;

  int64_t at(int64_t b, int64_t s, int64_t h) const { return b * batch_stride + s * token_stride + h * head_stride; }
};

struct Setup {
  int q = -1, k = -1, v = -1, mask = -1, table = -1, out = -1, lse = -1;
  int64_t heads = 0, kv_heads = 0, block = 0, sparse = 0, before = 0, after = 0, dim = 0, value_dim = 0;
  double scale = 1;
  bool wants_lse = false, is_packed = false, has_one_part = false;
  std::string layout;
  Dims q_lengths, kv_lengths;  // one a sequence
  Dims q_starts, kv_starts;    // first token of the sequence in a packed tensor, else 0
};

Rows rows_of(const View& view, const std::string& layout, int64_t heads) {
  if (layout == "TND") return {0, view.strides[0], view.strides[1]};
  if (layout == "BSND") return {view.strides[0], view.strides[1], view.strides[2]};
  if (layout == "BNSD") return {view.strides[0], view.strides[2], view.strides[1]};
  return {view.strides[0], view.strides[1], view.dim(2) / heads};
}

int64_t dim_of(const View& view, const std::string& layout, int64_t heads) {
  return layout == "BSH" ? view.dim(2) / heads : view.dim(-1);
}

// Lengths of each sequence out of prefix sums.
Dims differences(const Call& call, const Dims& sums, const char* name) {
  Dims lengths;
  int64_t before = 0;
  for (const int64_t sum : sums) {
    call.require(sum >= before, std::string(name) + " is a running sum in TND");
    lengths.push_back(sum - before);
    before = sum;
  }
  return lengths;
}

Dims starts_of(const Dims& lengths) {
  Dims starts;
  int64_t at = 0;
  for (const int64_t length : lengths) {
    starts.push_back(at);
    at += length;
  }
  return starts;
}

// Lengths given one a sequence, one for all, or not at all.
Dims spread(const Call& call, const Dims& given, int64_t batch, int64_t otherwise, const char* name) {
  if (given.empty()) return Dims(static_cast<size_t>(batch), otherwise);
  if (given.size() == 1) return Dims(static_cast<size_t>(batch), given[0]);
  call.require(static_cast<int64_t>(given.size()) == batch, std::string(name) + " has one entry for each sequence");
  return given;
}

void set_lengths(const Call& call, Setup& setup, const Dims& actual_q, const Dims& actual_kv) {
  const View& q = call.view(setup.q);
  if (setup.is_packed) {
    call.require(!actual_q.empty() && !actual_kv.empty(), "TND needs both lengths");
    setup.q_lengths = differences(call, actual_q, "actualSeqLengths");
    call.require(actual_q.back() == q.dim(0), "the last of actualSeqLengths is the number of tokens");
    setup.kv_lengths = setup.table >= 0 ? actual_kv : differences(call, actual_kv, "actualSeqLengthsKv");
    call.require(setup.kv_lengths.size() == setup.q_lengths.size(), "both lengths have one entry for each sequence");
    setup.q_starts = starts_of(setup.q_lengths);
    setup.kv_starts = setup.table >= 0 ? Dims(setup.kv_lengths.size(), 0) : starts_of(setup.kv_lengths);
    return;
  }
  const bool heads_first = setup.layout == "BNSD";
  const int64_t batch = q.dim(0), axis = heads_first ? 2 : 1;
  setup.q_lengths = spread(call, actual_q, batch, q.dim(static_cast<int>(axis)), "actualSeqLengths");
  const int64_t kv = setup.table >= 0 ? 0 : call.view(setup.k).dim(static_cast<int>(axis));
  setup.kv_lengths = spread(call, actual_kv, batch, kv, "actualSeqLengthsKv");
  setup.q_starts = setup.kv_starts = Dims(static_cast<size_t>(batch), 0);
}

void check_paging(const Call& call, const Setup& setup) {
  const View &table = call.view(setup.table), &k = call.view(setup.k);
  call.require(setup.block > 0, "a block table needs blockSize");
  const bool is_old = config().profile.bit == kA2Cann85;
  if (setup.is_packed && !is_old) {
    call.require(setup.block % 16 == 0 && setup.block <= 128, "blockSize in TND is a multiple of 16, at most 128");
  } else {
    call.require(setup.block % 128 == 0 && setup.block <= 512, "blockSize is a multiple of 128, at most 512");
  }
  call.require(k.rank() == 3 || k.rank() == 4,
               "a paged cache is [blocks, block, heads * dim] or [blocks, heads, block, dim]");
  call.require(k.dim(k.rank() == 3 ? 1 : 2) == setup.block, "the cache's blocks have blockSize tokens");
  call.require(table.dim(0) == static_cast<int64_t>(setup.q_lengths.size()),
               "blockTable has one row for each sequence");
  int64_t longest = 0;
  for (const int64_t length : setup.kv_lengths) longest = std::max(longest, length);
  call.require(table.dim(1) * setup.block >= longest, "blockTable has an entry for each block of the longest sequence");
  if (k.rank() == 3) {
    call.require(k.dim(2) == setup.kv_heads * setup.dim, "the cache's rows are heads * dim long");
    call.require(k.dim(2) <= 65535, "a row of a BnBsH cache is at most 65535 long");
  } else {
    call.require(k.dim(1) == setup.kv_heads && k.dim(3) == setup.dim, "the cache is [blocks, heads, block, dim]");
  }
}

void check_attention(const Call& call, const Setup& setup) {
  const View& q = call.view(setup.q);
  call.require(setup.dim > 0, "heads are not empty");
  const bool has_wide_groups = setup.dim == 64 || setup.dim == 128;
  call.require(setup.heads / setup.kv_heads <= 64 || has_wide_groups,
               "numHeads / numKeyValueHeads is at most 64 unless the head size is 64 or 128");
  if (setup.is_packed) call.require(q.dim(1) == setup.heads, "the query has numHeads heads");
  call.require(call.view(setup.out).count() == q.count() / setup.dim * setup.value_dim,
               "attentionOut has the rows of the query");
  if (setup.sparse >= 2) {
    call.require(setup.mask >= 0, "sparse modes 2 to 4 need attenMask");
    const Dims& dims = call.view(setup.mask).dims;
    const bool is_square = dims.size() >= 2 && dims[dims.size() - 2] == kMaskSide && dims.back() == kMaskSide;
    call.require(is_square && count_of(dims) == kMaskSide * kMaskSide,
                 "the mask of sparse modes 2 to 4 is [2048, 2048]");
  } else {
    call.require(setup.mask < 0, "sparse mode 0 is emulated without a mask");
  }
  if (setup.table >= 0) check_paging(call, setup);
}

// The mask says 1 above its diagonal; a row here and there is looked at.
void check_mask(const Bound& bound, int mask) {
  const DataRule rule = bound.rule("the mask is the upper triangle");
  const char* bytes = bound.bytes(mask);
  for (int64_t row = 0; row < kMaskSide; row += 89) {
    for (int64_t column = 0; column < kMaskSide; ++column) {
      if ((bytes[row * kMaskSide + column] != 0) != (column > row))
        rule.refuse("another value at " + std::to_string(row) + ", " + std::to_string(column));
    }
  }
}

// Keys or values of one head of one sequence, dense.
std::vector<float> read_context(const Bound& bound, const Setup& setup, int index, int64_t b, int64_t kv_head,
                                int64_t dim) {
  const View& view = bound.view(index);
  const int64_t length = setup.kv_lengths[b], size = bits_of(view.dtype) / 8;
  std::vector<float> out(static_cast<size_t>(length * dim));
  const Rows rows = setup.table >= 0 ? Rows{} : rows_of(view, setup.layout, setup.kv_heads);
  std::vector<int64_t> table;
  if (setup.table >= 0) table = bound.integers(setup.table);
  const int64_t row_blocks = setup.table >= 0 ? bound.view(setup.table).dim(1) : 0;
  const std::optional<DataRule> within =
      setup.table >= 0 ? std::optional(bound.rule("block ids lie within the cache")) : std::nullopt;
  for (int64_t s = 0; s < length; ++s) {
    int64_t at = rows.at(b, setup.kv_starts[b] + s, kv_head);
    if (setup.table >= 0) {
      const int64_t block = table[b * row_blocks + s / setup.block];
      if (block < 0 || block >= view.dim(0))
        within->refuse("block " + std::to_string(block) + " of " + std::to_string(view.dim(0)));
      const bool is_flat = view.rank() == 3;
      at = block * view.strides[0] + (is_flat ? s % setup.block * view.strides[1] + kv_head * dim
                                              : s % setup.block * view.strides[2] + kv_head * view.strides[1]);
    }
    for (int64_t i = 0; i < dim; ++i) {
      const char* from = bound.bytes(index) + (at + i) * size;
      out[s * dim + i] =
          view.dtype == ACL_BF16 ? from_bf16(read_as<uint16_t>(from)) : from_f16(read_as<uint16_t>(from));
    }
  }
  return out;
}

// First and past-the-last position that row `s` of sequence `b` sees.
std::pair<int64_t, int64_t> visible(const Setup& setup, int64_t b, int64_t s) {
  const int64_t length = setup.kv_lengths[b], diagonal = s + length - setup.q_lengths[b];
  if (setup.sparse == kRightDown) return {0, std::min(length, diagonal + 1)};
  if (setup.sparse == kBand) {
    return {std::max<int64_t>(0, diagonal - setup.before), std::min(length, diagonal + setup.after + 1)};
  }
  if (setup.sparse == 2) return {0, std::min(length, s + 1)};
  return {0, length};
}

// One row of one head: its output and the logarithm of its softmax's denominator.
float attend(const Setup& setup, const float* q, const std::vector<float>& k, const std::vector<float>& v,
             int64_t first, int64_t last, float* out) {
  std::fill(out, out + setup.value_dim, 0.0f);
  if (last <= first) return INFINITY;
  std::vector<float> scores(static_cast<size_t>(last - first));
  double top = -INFINITY, total = 0;
  for (int64_t s = first; s < last; ++s) {
    scores[s - first] = dot(q, k.data() + s * setup.dim, setup.dim) * static_cast<float>(setup.scale);
    top = std::max(top, static_cast<double>(scores[s - first]));
  }
  for (float& score : scores) {
    score = static_cast<float>(std::exp(score - top));
    total += score;
  }
  for (int64_t s = first; s < last; ++s)
    accumulate(scores[s - first], v.data() + s * setup.value_dim, setup.value_dim, out);
  for (int64_t i = 0; i < setup.value_dim; ++i) out[i] = static_cast<float>(out[i] / total);
  return static_cast<float>(top + std::log(total));
}

void run_attention(const Bound& bound, const Setup& setup) {
  if (setup.mask >= 0) check_mask(bound, setup.mask);
  const Rows q_rows = rows_of(bound.view(setup.q), setup.layout, setup.heads);
  const Rows out_rows = rows_of(bound.view(setup.out), setup.layout, setup.heads);
  const int64_t group = setup.heads / setup.kv_heads;
  std::vector<float> row(static_cast<size_t>(setup.dim)), result(static_cast<size_t>(setup.value_dim));
  std::vector<float> lse(static_cast<size_t>(setup.wants_lse ? bound.view(setup.lse).count() : 0));
  const View &q = bound.view(setup.q), &out = bound.view(setup.out);
  for (size_t b = 0; b < setup.q_lengths.size(); ++b) {
    for (int64_t kv_head = 0; kv_head < setup.kv_heads && setup.q_lengths[b] > 0; ++kv_head) {
      const std::vector<float> k = read_context(bound, setup, setup.k, b, kv_head, setup.dim);
      const std::vector<float> v = read_context(bound, setup, setup.v, b, kv_head, setup.value_dim);
      for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
        for (int64_t s = 0; s < setup.q_lengths[b]; ++s) {
          const int64_t from = q_rows.at(b, setup.q_starts[b] + s, h), to = out_rows.at(b, setup.q_starts[b] + s, h);
          for (int64_t i = 0; i < setup.dim; ++i)
            row[i] = static_cast<float>(load_double(bound.bytes(setup.q) + (from + i) * 2, q.dtype));
          const auto [first, last] = visible(setup, b, s);
          const float denominator = attend(setup, row.data(), k, v, first, last, result.data());
          for (int64_t i = 0; i < setup.value_dim; ++i)
            store_float(bound.bytes(setup.out) + (to + i) * 2, out.dtype, result[i]);
          if (setup.wants_lse) lse[(setup.q_starts[b] + s) * setup.heads + h] = denominator;
        }
      }
    }
  }
  if (setup.wants_lse) bound.put(setup.lse, lse);
}

}  // namespace

// The arguments that every version has, in the order of its signature.
struct AttentionInputs {
  FakeIn query;
  FakeIns key, value;
  FakeIn pse, mask;
  FakeInts q_lengths, kv_lengths;
  std::vector<std::pair<const char*, FakeIn>> others;  // in their order
  FakeInts prefix_length;
};

struct AttentionAttributes {
  int64_t heads;
  double scale;
  int64_t before, after;
  char* layout;
  int64_t kv_heads, sparse, precise, block, antiquant;
  bool lse;
  int64_t key_antiquant, value_antiquant;
};

namespace {

Setup describe(Call& call, const AttentionInputs& inputs, const AttentionAttributes& attributes) {
  Setup setup;
  setup.q = call.in("query", inputs.query);
  const std::vector<int> keys = call.in("key", inputs.key), values = call.in("value", inputs.value);
  call.in("pseShift", inputs.pse);
  setup.mask = call.in("attenMask", inputs.mask);
  for (const auto& [name, tensor] : inputs.others) {
    const int index = call.in(name, tensor);
    if (std::string(name) == "blockTable") setup.table = index;
  }
  setup.heads = call.attribute("numHeads", attributes.heads);
  setup.kv_heads = attributes.kv_heads == 0 ? setup.heads : attributes.kv_heads;
  setup.scale = attributes.scale;
  setup.before = attributes.before;
  setup.after = attributes.after;
  setup.layout = call.attribute("inputLayout", attributes.layout);
  setup.sparse = call.attribute("sparseMode", attributes.sparse);
  call.attribute("innerPrecise", attributes.precise);
  setup.block = call.attribute("blockSize", attributes.block);
  call.attribute("antiquantMode", attributes.antiquant);
  setup.wants_lse = attributes.lse;
  setup.is_packed = setup.layout == "TND";
  setup.has_one_part = keys.size() == 1 && values.size() == 1;
  setup.k = keys.empty() ? -1 : keys[0];
  setup.v = values.empty() ? -1 : values[0];
  return setup;
}

aclnnStatus attention(const char* op, const AttentionInputs& inputs, const AttentionAttributes& attributes, FakeIn out,
                      FakeIn lse, uint64_t* size, aclOpExecutor** executor) {
  return plan(op, size, executor, [&](Call& call) {
    Setup setup = describe(call, inputs, attributes);
    setup.out = call.out("attentionOut", out);
    setup.lse = call.out("softmaxLse", lse);
    const Dims q_lengths = call.array("actualSeqLengths", inputs.q_lengths);
    const Dims kv_lengths = call.array("actualSeqLengthsKv", inputs.kv_lengths);
    call.array("actualSharedPrefixLen", inputs.prefix_length);
    call.check();
    call.require(setup.has_one_part, "key and value are lists of one tensor");
    call.require(setup.heads > 0 && setup.kv_heads > 0 && setup.heads % setup.kv_heads == 0,
                 "numHeads is a multiple of numKeyValueHeads");
    setup.dim = dim_of(call.view(setup.q), setup.layout, setup.heads);
    const View& v = call.view(setup.v);
    const bool is_flat = setup.table >= 0 ? v.rank() == 3 : setup.layout == "BSH";
    setup.value_dim = is_flat ? v.dim(-1) / setup.kv_heads : v.dim(-1);
    set_lengths(call, setup, q_lengths, kv_lengths);
    check_attention(call, setup);
    call.run([setup](const Bound& bound) { run_attention(bound, setup); });
  });
}

}  // namespace
}  // namespace fakecann

using namespace fakecann;  // NOLINT: the exported names are global

#define FAKECANN_OTHERS                                                                                           \
  {"deqScale1", deqScale1}, {"quantScale1", quantScale1}, {"deqScale2", deqScale2}, {"quantScale2", quantScale2}, \
      {"quantOffset2", quantOffset2}, {"antiquantScale", antiquantScale}, {"antiquantOffset", antiquantOffset},   \
      {"blockTable", blockTable}, {"queryPaddingSize", queryPaddingSize}, {"kvPaddingSize", kvPaddingSize},       \
      {"keyAntiquantScale", keyAntiquantScale}, {"keyAntiquantOffset", keyAntiquantOffset},                       \
      {"valueAntiquantScale", valueAntiquantScale}, {"valueAntiquantOffset", valueAntiquantOffset},               \
      {"keySharedPrefix", keySharedPrefix}, {                                                                     \
    "valueSharedPrefix", valueSharedPrefix                                                                        \
  }
#define FAKECANN_ROPE_OTHERS \
  {"queryRope", queryRope}, {"keyRope", keyRope}, { "keyRopeAntiquantScale", keyRopeAntiquantScale }
#define FAKECANN_INPUTS(...)                                                                                           \
  AttentionInputs {                                                                                                    \
    query, key, value, pseShift, attenMask, actualSeqLengths, actualSeqLengthsKv, {__VA_ARGS__}, actualSharedPrefixLen \
  }
#define FAKECANN_ATTRIBUTES                                                                                          \
  AttentionAttributes {                                                                                              \
    numHeads, scaleValue, preTokens, nextTokens, inputLayout, numKeyValueHeads, sparseMode, innerPrecise, blockSize, \
        antiquantMode, softmaxLseFlag, keyAntiquantMode, valueAntiquantMode                                          \
  }

FAKECANN_OP(FusedInferAttentionScoreV2, FAKECANN_ATTENTION_INPUTS, FAKECANN_ATTENTION_ATTRIBUTES,
            FAKECANN_ATTENTION_OUTPUTS) {
  return attention("FusedInferAttentionScoreV2", FAKECANN_INPUTS(FAKECANN_OTHERS), FAKECANN_ATTRIBUTES, attentionOut,
                   softmaxLse, workspace_size, executor);
}

FAKECANN_OP(FusedInferAttentionScoreV3, FAKECANN_ATTENTION_INPUTS, FAKECANN_ATTENTION_ROPE_INPUTS,
            FAKECANN_ATTENTION_ATTRIBUTES, FAKECANN_ATTENTION_OUTPUTS) {
  return attention("FusedInferAttentionScoreV3", FAKECANN_INPUTS(FAKECANN_OTHERS, FAKECANN_ROPE_OTHERS),
                   FAKECANN_ATTRIBUTES, attentionOut, softmaxLse, workspace_size, executor);
}

FAKECANN_OP(FusedInferAttentionScoreV4, FAKECANN_ATTENTION_INPUTS, FAKECANN_ATTENTION_ROPE_INPUTS,
            FakeIn dequantScaleQuery, FAKECANN_ATTENTION_ATTRIBUTES, int64_t queryQuantMode,
            FAKECANN_ATTENTION_OUTPUTS) {
  if (queryQuantMode != 0)
    return report("aclnnFusedInferAttentionScoreV4", Failure(kBadParameter, "queryQuantMode is not emulated"));
  return attention("FusedInferAttentionScoreV4",
                   FAKECANN_INPUTS(FAKECANN_OTHERS, FAKECANN_ROPE_OTHERS, {"dequantScaleQuery", dequantScaleQuery}),
                   FAKECANN_ATTRIBUTES, attentionOut, softmaxLse, workspace_size, executor);
}
