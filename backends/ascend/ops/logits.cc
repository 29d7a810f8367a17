// SPDX-License-Identifier: Apache-2.0
//
// logits_process and logprobs. Penalties touch few tokens, so they are lists of (row, token) whose change is added to
// the logits; an entry that means nothing adds 0.
#include <limits>

#include "constants.h"
#include "ops/vocabulary_rows.h"

namespace turbomind::ascend {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Tokens of rows: all [count, 1].
struct Entries {
  View rows;    // i64, valid ones or 0
  View ids;     // i32, likewise
  View counts;  // f32
  View valid;   // bool
};

class Process {
 public:
  Process(Launch& launch, const tm_logits_process_args& args)
      : launch_(launch), args_(args), rows_(args.logits.shape[0]), stride_(args.logits.stride[0]) {
    const int64_t reach = (rows_ - 1) * stride_ + args.logits.shape[1];
    flat_ = make_view(args.logits.data, kAclFloat, {reach});
  }

  void run() {
    if (has(args_.repetition_penalty) || has(args_.presence_penalty) || has(args_.frequency_penalty)) penalties();
    if (has(args_.bias_offsets) && args_.bias_ids.shape[0] > 0) bias();
    if (has(args_.bitmask)) bitmask();
  }

 private:
  // Counting knows shapes only.
  bool has(const tm_tensor& tensor) const { return launch_.counting() ? tensor.ndim > 0 : given(tensor); }

  void penalties() {
    const int64_t listed = has(args_.history_offsets) ? args_.history_ids.shape[0] : 0;
    const int64_t pending = has(args_.pending) ? args_.pending.shape[1] : 0;
    View known;  // f32 [T, P]: how often the list holds a pending token
    if (pending > 0) {
      known = launch_.take(kAclFloat, {rows_, pending});
      launch_(op().InplaceZero, known);
    }
    if (listed > 0) {
      Entries entries = list(args_.history_offsets, args_.history_ids);
      launch_.copy(entries.counts, make_view(args_.history_counts).unsqueezed(1));
      if (pending > 0) count_pending(entries, known);
      penalize(entries);
    }
    if (pending > 0) penalize(pending_entries(known));
  }

  // The entries of a CSR list; what lies past its end is not valid.
  Entries list(const tm_tensor& offsets, const tm_tensor& ids) {
    const int64_t count = ids.shape[0];
    const View marks = launch_.take(kAclFloat, {count + 1});
    const View ones = launch_.take(kAclFloat, {rows_});
    const View ends = launch_.take(kAclInt64, {rows_});
    const View row_numbers = launch_.take(kAclFloat, {count + 1});
    const View bounded = launch_.take(kAclFloat, {count, 1});
    // An entry's row is the number of rows that end at or before it.
    launch_(op().InplaceZero, marks);
    launch_(op().InplaceFillScalar, ones, Number{1});
    launch_(op().Cast, make_view(offsets).slice(0, 1, rows_), static_cast<int>(kAclInt64), ends);
    launch_(op().ScatterAdd, marks, int64_t{0}, ends, ones, marks);
    launch_(op().Cumsum, marks, int64_t{0}, static_cast<int>(kAclFloat), row_numbers);
    const View numbers = row_numbers.slice(0, 0, count).unsqueezed(1);
    Entries entries = take_entries(count);
    launch_(op().LtScalar, numbers, Number{static_cast<double>(rows_)}, entries.valid);
    launch_(op().Clamp, numbers, Number{0}, Number{static_cast<double>(rows_ - 1)}, bounded);
    launch_(op().Cast, bounded, static_cast<int>(kAclInt64), entries.rows);
    const View zero = launch_.take(kAclInt32, {1, 1});
    launch_(op().InplaceZero, zero);
    launch_(op().SWhere, entries.valid, make_view(ids).unsqueezed(1), zero, entries.ids);
    return entries;
  }

  Entries take_entries(int64_t count) {
    return {launch_.take(kAclInt64, {count, 1}), launch_.take(kAclInt32, {count, 1}),
            launch_.take(kAclFloat, {count, 1}), launch_.take(kAclBool, {count, 1})};
  }

  // Adds the pending occurrences of listed tokens to their counts and notes which pending tokens are listed.
  void count_pending(const Entries& entries, const View& known) {
    const int64_t count = entries.ids.dim(0);
    const int64_t pending = known.dim(1);
    const View tokens = launch_.take(kAclInt32, {count, pending});
    const View same = launch_.take(kAclBool, {count, pending});
    const View hits = launch_.take(kAclFloat, {count, pending});
    const View more = launch_.take(kAclFloat, {count, 1});
    const View targets = launch_.take(kAclInt64, {count, pending});
    launch_(op().IndexSelect, make_view(args_.pending), int64_t{0}, entries.rows.reshaped({count}), tokens);
    launch_(op().EqTensor, tokens, entries.ids, same);
    launch_(op().LogicalAnd, same, entries.valid, same);
    launch_.copy(hits, same);
    launch_(op().ReduceSum, hits, Numbers{{1}}, true, static_cast<int>(kAclFloat), more);
    launch_(op().Add, entries.counts, more, Number{1}, entries.counts);
    launch_.copy(targets, entries.rows);
    launch_(op().ScatterAdd, known, int64_t{0}, targets, hits, known);
  }

  // Pending tokens that the list does not hold, each once.
  Entries pending_entries(const View& known) {
    const int64_t pending = known.dim(1);
    const View tokens = make_view(args_.pending);
    const View same = launch_.take(kAclBool, {rows_, pending, pending});
    const View hits = launch_.take(kAclFloat, {rows_, pending, pending});
    const View numbers = launch_.take(kAclInt32, {pending});
    const View earlier = launch_.take(kAclBool, {pending, pending});
    const View repeats = launch_.take(kAclFloat, {rows_, pending});
    const View row_numbers = launch_.take(kAclInt64, {rows_});
    Entries entries = take_entries(rows_ * pending);
    launch_(op().EqTensor, tokens.unsqueezed(2), tokens.unsqueezed(1), same);
    launch_.copy(hits, same);
    const auto by_token = [&](const View& view) { return view.reshaped({rows_, pending}); };
    launch_(op().ReduceSum, hits, Numbers{{2}}, false, static_cast<int>(kAclFloat), by_token(entries.counts));
    launch_(op().Arange, Number{0, kAclInt32}, Number{static_cast<double>(pending), kAclInt32}, Number{1, kAclInt32},
            numbers);
    launch_(op().LtTensor, numbers.unsqueezed(0), numbers.unsqueezed(1), earlier);
    launch_(op().LogicalAnd, same, earlier.unsqueezed(0), same);
    launch_.copy(hits, same);
    launch_(op().ReduceSum, hits, Numbers{{2}}, false, static_cast<int>(kAclFloat), repeats);
    launch_(op().Add, repeats, known, Number{1}, repeats);
    const View fresh = launch_.take(kAclBool, {rows_, pending});
    launch_(op().EqScalar, repeats, Number{0}, fresh);
    launch_(op().GeScalar, tokens, Number{0, kAclInt32}, by_token(entries.valid));
    launch_(op().LogicalAnd, by_token(entries.valid), fresh, by_token(entries.valid));
    launch_(op().Clamp, tokens, Number{0, kAclInt32}, Number{std::numeric_limits<int32_t>::max(), kAclInt32},
            by_token(entries.ids));
    launch_(op().Arange, whole(0), whole(rows_), whole(1), row_numbers);
    launch_.copy(by_token(entries.rows), row_numbers.unsqueezed(1));
    return entries;
  }

  // Places of the entries in the flat logits: i64 [count].
  View places(const Entries& entries) {
    const int64_t count = entries.ids.dim(0);
    const View place = launch_.take(kAclInt64, {count, 1});
    const View id = launch_.take(kAclInt64, {count, 1});
    launch_(op().Muls, entries.rows, whole(stride_), place);
    launch_.copy(id, entries.ids);
    launch_(op().Add, place, id, whole(1), place);
    return place.reshaped({count});
  }

  // A row's setting for each entry; f32 [count, 1].
  View setting(const tm_tensor& tensor, const Entries& entries) {
    const int64_t count = entries.rows.dim(0);
    const View values = launch_.take(kAclFloat, {count, 1});
    launch_(op().IndexSelect, make_view(tensor), int64_t{0}, entries.rows.reshaped({count}), values.reshaped({count}));
    return values;
  }

  void penalize(const Entries& entries) {
    const int64_t count = entries.ids.dim(0);
    const View place = places(entries);
    const View old = launch_.take(kAclFloat, {count, 1});
    const View changed = launch_.take(kAclFloat, {count, 1});
    launch_(op().IndexSelect, flat_, int64_t{0}, place, old.reshaped({count}));
    launch_.copy(changed, old);
    if (has(args_.repetition_penalty)) repeat(entries, old, changed);
    if (has(args_.presence_penalty)) {
      const View occurs = launch_.take(kAclBool, {count, 1});
      const View once = launch_.take(kAclFloat, {count, 1});
      const View penalty = setting(args_.presence_penalty, entries);
      launch_(op().GtScalar, entries.counts, Number{0}, occurs);
      launch_.copy(once, occurs);
      launch_(op().Mul, penalty, once, penalty);
      launch_(op().Sub, changed, penalty, Number{1}, changed);
    }
    if (has(args_.frequency_penalty)) {
      const View penalty = setting(args_.frequency_penalty, entries);
      launch_(op().Mul, penalty, entries.counts, penalty);
      launch_(op().Sub, changed, penalty, Number{1}, changed);
    }
    // A forbidden token stays forbidden: the difference of two infinities is none.
    const View forbidden = launch_.take(kAclBool, {count, 1});
    launch_(op().EqScalar, old, Number{-kInfinity}, forbidden);
    launch_(op().Sub, changed, old, Number{1}, changed);
    launch_(op().InplaceMaskedFillScalar, changed, forbidden, Number{0});
    add(place, changed, entries.valid);
  }

  void repeat(const Entries& entries, const View& old, const View& changed) {
    const int64_t count = old.dim(0);
    const View penalty = setting(args_.repetition_penalty, entries);
    const View divided = launch_.take(kAclFloat, {count, 1});
    const View multiplied = launch_.take(kAclFloat, {count, 1});
    const View positive = launch_.take(kAclBool, {count, 1});
    launch_(op().Div, old, penalty, divided);
    launch_(op().Mul, old, penalty, multiplied);
    launch_(op().GtScalar, old, Number{0}, positive);
    launch_(op().SWhere, positive, divided, multiplied, changed);
  }

  void add(const View& place, const View& change, const View& valid) {
    const int64_t count = change.dim(0);
    const View invalid = launch_.take(kAclBool, {count, 1});
    launch_(op().LogicalNot, valid, invalid);
    launch_(op().InplaceMaskedFillScalar, change, invalid, Number{0});
    launch_(op().ScatterAdd, flat_, int64_t{0}, place, change.reshaped({count}), flat_);
  }

  void bias() {
    const Entries entries = list(args_.bias_offsets, args_.bias_ids);
    launch_.copy(entries.counts, make_view(args_.bias_values).unsqueezed(1));
    add(places(entries), entries.counts, entries.valid);
  }

  // Bit v % 32 of word v / 32 is, on a little-endian machine, bit v % 8 of byte v / 8.
  void bitmask() {
    constexpr int64_t kWordBytes = 4;
    constexpr int64_t kByteBits = 8;
    const int64_t vocabulary = args_.logits.shape[1];
    const int64_t bytes = args_.bitmask.shape[1] * kWordBytes;
    View words = make_view(args_.bitmask.data, kAclUint8, {rows_, bytes});
    words.stride[0] = args_.bitmask.stride[0] * kWordBytes;
    for_pieces(launch_, rows_, bytes * kByteBits, [&](int64_t row, int64_t count) {
      const View bits = launch_.take(kAclUint8, {count, bytes, kByteBits});
      const View forbidden = launch_.take(kAclBool, {count, bytes, kByteBits});
      launch_(op().BitwiseAndTensor, words.slice(0, row, count).unsqueezed(2),
              launch_.context().constants().bits().reshaped({1, 1, kByteBits}), bits);
      launch_(op().EqScalar, bits, Number{0, kAclInt32}, forbidden);
      launch_(op().InplaceMaskedFillScalar, make_view(args_.logits).slice(0, row, count),
              forbidden.reshaped({count, bytes * kByteBits}).slice(1, 0, vocabulary), Number{-kInfinity});
    });
  }

  static const Operators& op() { return library().op; }

  Launch& launch_;
  const tm_logits_process_args& args_;
  int64_t rows_;
  int64_t stride_;
  View flat_;
};

// Rows [row, row + count) of a logprobs call.
void logprobs_piece(Launch& launch, const tm_logprobs_args& args, int64_t row, int64_t count) {
  const Operators& op = library().op;
  const int64_t vocabulary = args.logits.shape[1];
  const View logits = make_view(args.logits).slice(0, row, count);
  const View all = launch.take(kAclFloat, {count, vocabulary});
  const View ids = launch.take(kAclInt64, {count, 1});
  const View chosen = launch.take(kAclFloat, {count, 1});
  launch(op.LogSoftmax, logits, int64_t{-1}, all);
  launch.copy(ids, column(args.ids, kAclInt32, row, count));
  launch(op.Gather, all, int64_t{1}, ids, chosen);
  launch.copy(column(args.logprobs, kAclFloat, row, count), chosen);
  if (given(args.ranks) || launch.counting()) {
    const View larger = launch.take(kAclBool, {count, vocabulary});
    const View rank = launch.take(kAclInt64, {count, 1});
    const View logit = launch.take(kAclFloat, {count, 1});
    launch(op.Gather, logits, int64_t{1}, ids, logit);
    launch(op.GtTensor, logits, logit, larger);
    launch(op.ReduceSum, larger, Numbers{{1}}, true, static_cast<int>(kAclInt64), rank);
    launch(op.Cast, rank, static_cast<int>(kAclInt32), column(args.ranks, kAclInt32, row, count));
  }
  const int64_t top = args.top_ids.ndim == 2 ? args.top_ids.shape[1] : 0;
  if (top == 0 || !(given(args.top_ids) || launch.counting())) return;
  const View sorted = launch.take(kAclFloat, {count, vocabulary});
  const View order = launch.take(kAclInt64, {count, vocabulary});
  const View best = launch.take(kAclInt64, {count, top});
  const View values = launch.take(kAclFloat, {count, top});
  launch(op.Sort, logits, true, int64_t{-1}, true, sorted, order);
  launch.copy(best, order.slice(1, 0, top));
  launch(op.Gather, all, int64_t{1}, best, values);
  launch(op.Cast, best, static_cast<int>(kAclInt32), make_view(args.top_ids).slice(0, row, count));
  launch.copy(make_view(args.top_logprobs).slice(0, row, count), values);
}

}  // namespace

void compose(Launch& launch, const tm_logits_process_args& args) {
  require_dtype(args.logits, TM_F32, "logits");
  if (args.logits.shape[0] > 0) Process(launch, args).run();
}

void compose(Launch& launch, const tm_logprobs_args& args) {
  require_dtype(args.logits, TM_F32, "logits");
  for_pieces(launch, args.logits.shape[0], args.logits.shape[1],
             [&](int64_t row, int64_t count) { logprobs_piece(launch, args, row, count); });
}

}  // namespace turbomind::ascend
