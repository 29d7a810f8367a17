// SPDX-License-Identifier: Apache-2.0
#include "ops/attention_rows.h"

#include <algorithm>
#include <limits>

#include "kv_layout.h"

namespace turbomind::ascend {
namespace {

constexpr int64_t kMaxScores = int64_t{8} << 20;  // elements of one piece
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// [positions, kv_heads, dim] in float32, contiguous.
View widened(Launch& launch, const View& rows, int64_t dim) {
  const View wide = launch.take(kAclFloat, {rows.dim(0), rows.dim(1), dim});
  launch.copy(wide, rows.slice(2, 0, dim));
  return wide;
}

// One piece of rows. Heads that share keys stand together: [kv_heads, group, rows, ...].
void attend_piece(Launch& launch, const AttentionProblem& problem, const View& q, const View& keys, const View& values,
                  const View& hidden, const View& out) {
  const Operators& op = library().op;
  const int64_t rows = q.dim(0);
  const int64_t heads = q.dim(1);
  const int64_t kv_heads = keys.dim(1);
  const int64_t group = heads / kv_heads;
  const int64_t positions = keys.dim(0);
  const bool has_sinks = problem.sinks.data || launch.counting();
  const int64_t columns = positions + (has_sinks ? 1 : 0);
  const View queries = launch.take(kAclFloat, {kv_heads, group, rows, q.dim(2)});
  launch.copy(queries, q.split(1, group).permuted({1, 2, 0, 3}));
  const View scores = launch.take(kAclFloat, {kv_heads, group * rows, positions});
  launch(op.BatchMatMul, queries.reshaped({kv_heads, group * rows, q.dim(2)}), keys.permuted({1, 2, 0}), scores,
         kCubeKeepDtype);
  if (problem.softcap > 0) {
    launch(op.Muls, scores, Number{static_cast<double>(problem.scale) / problem.softcap}, scores);
    launch(op.Tanh, scores, scores);
    launch(op.Muls, scores, Number{problem.softcap}, scores);
  } else {
    launch(op.Muls, scores, Number{problem.scale}, scores);
  }
  const View by_row = scores.reshaped({kv_heads, group, rows, positions});
  if (hidden.data) {
    launch(op.InplaceMaskedFillScalar, by_row, hidden.unsqueezed(0).unsqueezed(0), Number{-kInfinity});
  }
  View shares = by_row;
  if (has_sinks) {
    const View more = launch.take(kAclFloat, {kv_heads, group, rows, columns});
    if (problem.sinks.data) {
      launch.copy(more.slice(3, 0, positions), by_row);
      launch.copy(more.slice(3, positions, 1), problem.sinks.split(0, group).unsqueezed(2).unsqueezed(3));
      shares = more;
    }
  }
  const View softmax = launch.take(kAclFloat, {kv_heads, group, rows, columns});
  launch(op.Softmax, shares, int64_t{-1}, softmax);
  View weights = softmax;
  if (has_sinks) {
    weights = launch.take(kAclFloat, {kv_heads, group, rows, positions});
    launch.copy(weights, softmax.slice(3, 0, positions));
  }
  const View result = launch.take(kAclFloat, {kv_heads, group * rows, values.dim(2)});
  launch(op.BatchMatMul, weights.reshaped({kv_heads, group * rows, positions}), values.permuted({1, 0, 2}), result,
         kCubeKeepDtype);
  launch.copy(out.split(1, group).permuted({1, 2, 0, 3}), result.reshaped({kv_heads, group, rows, values.dim(2)}));
}

// Some rows of a sequence.
struct SequenceRows {
  View q;
  View positions;
  View ends;  // the first position that each does not see
  View out;

  SequenceRows slice(int64_t begin, int64_t count) const {
    return {q.slice(0, begin, count), positions.slice(0, begin, count), ends.slice(0, begin, count),
            out.slice(0, begin, count)};
  }
};

// bool [rows, positions]: places from a row's end on, and before its window.
View hidden_places(Launch& launch, const View& places, const SequenceRows& of, int64_t window) {
  const Operators& op = library().op;
  const int64_t rows = of.positions.dim(0);
  const int64_t positions = places.dim(0);
  const View row = of.positions.unsqueezed(1);
  const View hidden = launch.take(kAclBool, {rows, positions});
  launch(op.GeTensor, places.unsqueezed(0), of.ends.unsqueezed(1), hidden);
  if (window == 0) return hidden;
  const View last_hidden = launch.take(kAclInt32, {rows, 1});
  const View before = launch.take(kAclBool, {rows, positions});
  launch(op.Adds, row, Number{static_cast<double>(-window), kAclInt32}, Number{1, kAclInt32}, last_hidden);
  launch(op.LeTensor, places.unsqueezed(0), last_hidden, before);
  launch(op.LogicalOr, hidden, before, hidden);
  return hidden;
}

View count_up(Launch& launch, int64_t count) {
  const View places = launch.take(kAclInt32, {count});
  launch(library().op.Arange, Number{0, kAclInt32}, Number{static_cast<double>(count), kAclInt32}, Number{1, kAclInt32},
         places);
  return places;
}

// What no row of a sequence looks at: all of `hidden` in a column. bool [positions, 1].
View unseen_places(Launch& launch, const View& places, const View& first_row, const View& last_row, int64_t window) {
  const Operators& op = library().op;
  const int64_t positions = places.dim(0);
  const View unseen = launch.take(kAclBool, {positions, 1});
  launch(op.GtTensor, places.unsqueezed(1), last_row.unsqueezed(1), unseen);
  if (window == 0) return unseen;
  const View last_hidden = launch.take(kAclInt32, {1, 1});
  const View before = launch.take(kAclBool, {positions, 1});
  launch(op.Adds, first_row.unsqueezed(1), Number{static_cast<double>(-window), kAclInt32}, Number{1, kAclInt32},
         last_hidden);
  launch(op.LeTensor, places.unsqueezed(1), last_hidden, before);
  launch(op.LogicalOr, unseen, before, unseen);
  return unseen;
}

// bool [rows, rows]: 1 where a row meets one of another sequence, or padding.
View other_sequences(Launch& launch, const Plan& plan, int64_t rows) {
  const Operators& op = library().op;
  const View sequences = plan.sequences().slice(0, 0, rows);
  const View hidden = launch.take(kAclBool, {rows, rows});
  launch(op.EqTensor, sequences.unsqueezed(1), sequences.unsqueezed(0), hidden);
  launch(op.LogicalNot, hidden, hidden);
  launch(op.LogicalOr, hidden, plan.padding().slice(0, 0, rows).unsqueezed(0), hidden);
  return hidden;
}

// The blocks of a table row one after the other: [blocks * block_size, heads, width].
View gather_blocks(Launch& launch, const View& cache, const View& table) {
  const int64_t block = cache.dim(1) * cache.dim(2) * cache.dim(3);
  const View from = cache.slice(0, kSpareBlocks, cache.dim(0) - kSpareBlocks);
  const View blocks = launch.take(cache.type, {table.dim(0), block});
  launch(library().op.IndexSelect, from.reshaped({from.dim(0), block}), int64_t{0}, table, blocks);
  return blocks.reshaped({table.dim(0) * cache.dim(1), cache.dim(2), cache.dim(3)});
}

// The same in the numbers that codes stand for: f32 where the cache has scales.
View gather_numbers(Launch& launch, const View& cache, const View& scales, const View& table) {
  const View stored = gather_blocks(launch, cache, table);
  if (!scales.rank) return stored;
  const View wide = launch.take(kAclFloat, {stored.dim(0), stored.dim(1), stored.dim(2)});
  launch.copy(wide, stored);
  launch(library().op.Mul, wide, gather_blocks(launch, scales, table), wide);
  return wide;
}

struct PagedCall {
  AttentionProblem problem;
  KvLayout layout;
  View keys;
  View values;
  View key_scales;  // rank 0: the cache has none
  View value_scales;
  SequenceRows rows;  // of all sequences
};

// Rows of the plan's sequence `slot`, over its first `blocks` blocks.
void attend_sequence(Launch& launch, const PagedCall& call, const Plan& plan, int64_t slot, int64_t blocks,
                     const SequenceRows& rows) {
  const View row = plan.block_table().slice(0, slot, 1).slice(1, 0, blocks);
  const View table = make_view(row.data, row.type, {blocks});
  const View keys = gather_numbers(launch, call.keys, call.key_scales, table);
  const View values = gather_numbers(launch, call.values, call.value_scales, table);
  const View places = count_up(launch, keys.dim(0));
  const View unseen = unseen_places(launch, places, plan.first_positions().slice(0, slot, 1),
                                    plan.last_positions().slice(0, slot, 1), call.problem.window);
  const View hidden = hidden_places(launch, places, rows, call.problem.window);
  const Attended attended{keys.slice(2, 0, call.layout.dim_k), values.slice(2, 0, call.layout.dim_v), unseen};
  attend(launch, call.problem, rows.q, attended, hidden, rows.out);
}

void attend_eager(Launch& launch, const PagedCall& call, const Plan& plan) {
  int64_t begin = 0;
  for (int64_t s = 0; s < plan.num_seqs(); ++s) {
    const int64_t end = plan.q_ends()[static_cast<size_t>(s)];
    const int64_t rows = end - begin;
    const int64_t blocks = (plan.contexts()[static_cast<size_t>(s)] + kBlockSize - 1) / kBlockSize;
    if (rows > 0) {
      const Launch::Scope scope(launch);
      attend_sequence(launch, call, plan, s, blocks, call.rows.slice(begin, rows));
    }
    begin = end;
  }
}

// A capture knows the sequences' places but not their rows: every row meets every sequence, and keeps what it got from
// its own. Only decode steps, where row and sequence are the same, are told apart.
void attend_captured(Launch& launch, const PagedCall& call, const Plan& plan) {
  const Operators& op = library().op;
  const View& out = call.rows.out;
  const int64_t rows = out.dim(0);
  const int64_t blocks = plan.block_table().dim(1);
  const bool decodes = !launch.counting() && plan.max_q_len() == 1 && plan.padded_seqs() == rows;
  const int64_t slots = launch.counting() ? 1 : plan.padded_seqs();
  for (int64_t slot = 0; slot < slots; ++slot) {
    const Launch::Scope scope(launch);
    if (decodes) {
      attend_sequence(launch, call, plan, slot, blocks, call.rows.slice(slot, 1));
      continue;
    }
    const View own = launch.take(kAclBool, {rows});
    SequenceRows all = call.rows;
    all.out = launch.take(out.type, {rows, out.dim(1), out.dim(2)});
    attend_sequence(launch, call, plan, slot, blocks, all);
    launch(op.EqScalar, plan.sequences().slice(0, 0, rows), Number{static_cast<double>(slot), kAclInt32}, own);
    launch(op.SWhere, own.unsqueezed(1).unsqueezed(2), all.out, out, out);
  }
}

}  // namespace

void attend(Launch& launch, const AttentionProblem& problem, const View& q, const Attended& attended,
            const View& hidden, const View& out) {
  const View keys = widened(launch, attended.keys, attended.keys.dim(2));
  const View values = widened(launch, attended.values, attended.values.dim(2));
  // A share of zero does not silence a NaN.
  if (attended.unseen.data) {
    launch(library().op.InplaceMaskedFillScalar, values, attended.unseen.unsqueezed(2), Number{0});
  }
  const int64_t step = std::max<int64_t>(1, kMaxScores / (q.dim(1) * problem.most_positions));
  for (int64_t row = 0; row < q.dim(0); row += step) {
    const Launch::Scope scope(launch);
    const int64_t count = std::min(step, q.dim(0) - row);
    const View piece_hidden = hidden.data ? hidden.slice(0, row, count) : View{};
    attend_piece(launch, problem, q.slice(0, row, count), keys, values, piece_hidden, out.slice(0, row, count));
  }
}

void attention_by_rows(Launch& launch, const tm_attention_args& args, const Plan& plan) {
  PagedCall call;
  call.layout = make_kv_layout(launch.context().profile(), args.kv.spec);
  call.problem = {args.scale, args.window, args.softcap, plan.max_context(),
                  given(args.sinks) ? make_view(args.sinks) : View{}};
  call.keys = call.layout.keys(args.kv);
  call.values = call.layout.values(args.kv);
  if (call.layout.has_scales()) {
    call.key_scales = call.layout.key_scales(args.kv);
    call.value_scales = call.layout.value_scales(args.kv);
  }
  const int64_t rows = args.q.shape[0];
  call.rows = {make_view(args.q), plan.positions().slice(0, 0, rows), plan.row_ends().slice(0, 0, rows),
               make_view(args.out)};
  // The longest contexts, all rows at once: what a capture does is what wants most.
  const bool captured = launch.counting() || launch.stream().capturing();
  captured ? attend_captured(launch, call, plan) : attend_eager(launch, call, plan);
}

void attention_dense_by_rows(Launch& launch, const tm_attention_dense_args& args, const Plan& plan) {
  const View q = make_view(args.q);
  const View k = make_view(args.k);
  const View v = make_view(args.v);
  const View out = make_view(args.out);
  const AttentionProblem problem{args.scale, 0, 0, std::max<int64_t>(q.dim(0), 1), View{}};
  if (launch.counting() || launch.stream().capturing()) {
    return attend(launch, problem, q, {k, v, View{}}, other_sequences(launch, plan, q.dim(0)), out);
  }
  int64_t begin = 0;
  for (const int64_t end : plan.q_ends()) {
    const int64_t rows = end - begin;
    const Launch::Scope scope(launch);
    if (rows > 0) {
      attend(launch, problem, q.slice(0, begin, rows), {k.slice(0, begin, rows), v.slice(0, begin, rows), View{}},
             View{}, out.slice(0, begin, rows));
    }
    begin = end;
  }
}

}  // namespace turbomind::ascend
