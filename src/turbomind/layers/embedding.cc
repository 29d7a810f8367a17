// SPDX-License-Identifier: Apache-2.0
#include "turbomind/layers/embedding.h"

namespace turbomind {
namespace {

Range vocab_share(const LayerContext& context, int64_t vocab_size) {
  if (vocab_size % context.world_size() != 0) return whole(vocab_size);
  return equal_share("vocab_size", vocab_size, context.rank(), context.world_size());
}

}  // namespace

Embedding::Embedding(const LayerContext& context, const std::string& name, int64_t vocab_size, int64_t hidden_size)
    : vocab_size_(vocab_size),
      my_rows_(vocab_share(context, vocab_size)),
      table_(context, {{name, vocab_size, my_rows_}}, hidden_size, whole(hidden_size), false, true) {}

void Embedding::forward(const StepContext& step, const Tensor& ids, float scale, const Tensor& out) const {
  step.ops.embedding({.ids = ids, .weight = table_.weight(), .row_offset = my_rows_.begin, .scale = scale, .out = out});
  // An id of another rank's rows gave zeros here, so the sum is exact.
  if (my_rows_.count != vocab_size_) step.all_reduce(out);
}

LmHead::LmHead(const LayerContext& context, int64_t vocab_size, int64_t hidden_size, const Embedding* tied)
    : vocab_size_(vocab_size),
      own_(tied ? std::nullopt
                : std::optional<Linear>(
                      std::in_place, context,
                      std::vector<LinearPart>{{"lm_head", vocab_size, vocab_share(context, vocab_size)}}, hidden_size,
                      whole(hidden_size), false)),
      weight_(tied ? tied->table() : *own_) {}

Tensor LmHead::forward(Ops& ops, Arena& arena, Comm* comm, const Tensor& x) const {
  const int64_t rows = x.shape[0];
  const int64_t share = weight_.out_features();
  const Tensor logits = arena.allocate("logits", TM_F32, {rows, vocab_size_});
  if (share == vocab_size_) {
    weight_.forward(ops, x, logits);
    return logits;
  }
  const Tensor mine = arena.allocate("logits_share", TM_F32, {rows, share});
  const Tensor gathered = arena.allocate("logits_gathered", TM_F32, {comm->size(), rows, share});
  weight_.forward(ops, x, mine);
  if (!arena.measuring()) comm->all_gather(ops.stream(), mine, gathered);
  const Tensor blocks = reshape(gathered, {comm->size() * rows, share});
  for (int64_t rank = 0; rank < comm->size(); ++rank) {
    // A cast between equal dtypes copies; its output rows may be strided.
    ops.cast({.in = row_slice(blocks, rank * rows, rows), .out = column_slice(logits, rank * share, share)});
  }
  return logits;
}

}  // namespace turbomind
