// SPDX-License-Identifier: Apache-2.0
//
// sample. The vendor's TopKTopPSample draws by another rule than the contract's and from logits of 16 bits (README.md
// says more), so the draw is composed: a stable sort finds the candidates, their masses go back to the order of ids,
// and a running sum is met with the row's own number.
#include <limits>

#include "constants.h"
#include "ops/vocabulary_rows.h"

namespace turbomind::ascend {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kRounds = 10;

const Operators& op() { return library().op; }

// Both 32-bit words of int64 numbers as int64: [..., 2] -> low and high words [count, 2] each.
struct Words {
  View low;
  View high;
};

// [count, 2] i64 whose elements' words are spread to [count, 2, 2].
Words split_words(Launch& launch, const View& numbers) {
  const int64_t count = numbers.dim(0);
  const View words = launch.take(kAclInt64, {count, 2, 2});
  launch.copy(words, make_view(numbers.data, kAclInt32, {count, 2, 2}));
  launch(op().BitwiseAndTensor, words, launch.context().constants().low_word().reshaped({1, 1, 1}), words);
  const auto word = [&](int64_t which) {
    View view = words.slice(2, which, 1);
    view.rank = 2;
    return view;
  };
  return {word(0), word(1)};
}

// A column of 64-bit numbers as its two words: i64 [count, 2].
View words_of(Launch& launch, const View& numbers) {
  const int64_t count = numbers.dim(0);
  const View words = launch.take(kAclInt64, {count, 2});
  launch.copy(words, make_view(numbers.data, kAclInt32, {count, 2}));
  launch(op().BitwiseAndTensor, words, launch.context().constants().low_word().reshaped({1, 1}), words);
  return words;
}

// The first word of Philox4x32-10 / 2^32 for key = seed and counter = (position, 0): f32 [count, 1]. `even` holds the
// counter's words 2 and 0, `odd` its words 1 and 3.
View uniform(Launch& launch, const View& seed, const View& position) {
  const Constants& constants = launch.context().constants();
  const int64_t count = seed.dim(0);
  const View even = launch.take(kAclInt64, {count, 2});
  const View odd = launch.take(kAclInt64, {count, 2});
  const View products = launch.take(kAclInt64, {count, 2});
  const View mixed = launch.take(kAclInt64, {count, 2});
  const View keys = launch.take(kAclInt64, {count, kRounds, 2});
  const View counter = words_of(launch, position);
  launch(op().Add, words_of(launch, seed).unsqueezed(1), constants.philox_increments().reshaped({1, kRounds, 2}),
         whole(1), keys);
  launch(op().BitwiseAndTensor, keys, constants.low_word().reshaped({1, 1, 1}), keys);
  launch(op().InplaceZero, even);
  launch(op().InplaceZero, odd);
  launch.copy(even.slice(1, 1, 1), counter.slice(1, 0, 1));
  launch.copy(odd.slice(1, 0, 1), counter.slice(1, 1, 1));
  for (int round = 0; round < kRounds; ++round) {
    const Launch::Scope scope(launch);
    View key = keys.slice(1, round, 1);
    key.rank = 2;
    key.shape[1] = 2;
    key.stride[1] = keys.stride[2];
    launch(op().Mul, even, constants.philox_factors().reshaped({1, 2}), products);
    const Words words = split_words(launch, products);
    launch(op().BitwiseXorTensor, words.high, odd, mixed);
    // The next even words change places: word 0 stands first here and second there.
    launch(op().BitwiseXorTensor, mixed.slice(1, 0, 1), key.slice(1, 0, 1), even.slice(1, 1, 1));
    launch(op().BitwiseXorTensor, mixed.slice(1, 1, 1), key.slice(1, 1, 1), even.slice(1, 0, 1));
    launch.copy(odd, words.low);
  }
  const View number = launch.take(kAclFloat, {count, 1});
  launch(op().Cast, even.slice(1, 1, 1), static_cast<int>(kAclFloat), number);
  launch(op().Muls, number, Number{0x1p-32}, number);
  return number;
}

struct Piece {
  int64_t rows;
  int64_t vocabulary;
  View temperature;  // f32 [rows, 1], as all below
  View top_k;        // i32
  View top_p;
  View min_p;
};

// bool [rows, vocabulary], by falling mass: which candidates stay. masses: those of the first top_k.
View kept(Launch& launch, const Piece& piece, const View& masses, const View& rank, const View& not_in_top_k) {
  const auto matrix = [&](AclType type) { return launch.take(type, {piece.rows, piece.vocabulary}); };
  const View sums = launch.take(kAclFloat, {piece.rows, piece.vocabulary + 1});
  const View limit = launch.take(kAclFloat, {piece.rows, 1});
  const View all = launch.take(kAclBool, {piece.rows, 1});
  const View keep = matrix(kAclBool);
  const View other = matrix(kAclBool);
  // Mass before each candidate, against top_p of the mass left.
  launch(op().InplaceZero, sums.slice(1, 0, 1));
  const View running = matrix(kAclFloat);
  launch(op().Cumsum, masses, int64_t{1}, static_cast<int>(kAclFloat), running);
  launch.copy(sums.slice(1, 1, piece.vocabulary), running);
  launch(op().Mul, piece.top_p, sums.slice(1, piece.vocabulary, 1), limit);
  launch(op().GeScalar, piece.top_p, Number{1}, all);
  launch(op().InplaceMaskedFillScalar, limit, all, Number{kInfinity});
  launch(op().LtTensor, sums.slice(1, 0, piece.vocabulary), limit, keep);
  launch(op().GeTensor, masses, piece.min_p, other);  // the largest mass is 1
  launch(op().LogicalAnd, keep, other, keep);
  launch(op().LogicalNot, not_in_top_k, other);
  launch(op().LogicalAnd, keep, other, keep);
  launch(op().EqScalar, rank, Number{0, kAclInt32}, other.slice(0, 0, 1));
  launch(op().LogicalOr, keep, other.slice(0, 0, 1), keep);
  return keep;
}

// The masses of the candidates that stay, in the order of ids: f32 [rows, vocabulary].
View kept_masses(Launch& launch, const Piece& piece, const View& masses) {
  const auto matrix = [&](AclType type) { return launch.take(type, {piece.rows, piece.vocabulary}); };
  const View sorted = matrix(kAclFloat);
  const View order = matrix(kAclInt64);
  const View beyond = matrix(kAclBool);
  const View rank = launch.take(kAclInt32, {1, piece.vocabulary});
  const View limit = launch.take(kAclInt32, {piece.rows, 1});
  const View none = launch.take(kAclBool, {piece.rows, 1});
  launch(op().Sort, masses, true, int64_t{-1}, true, sorted, order);
  launch(op().Arange, Number{0, kAclInt32}, Number{static_cast<double>(piece.vocabulary), kAclInt32},
         Number{1, kAclInt32}, rank.reshaped({piece.vocabulary}));
  launch.copy(limit, piece.top_k);
  launch(op().EqScalar, limit, Number{0, kAclInt32}, none);
  launch(op().InplaceMaskedFillScalar, limit, none, Number{static_cast<double>(piece.vocabulary), kAclInt32});
  launch(op().GeTensor, rank, limit, beyond);
  launch(op().InplaceMaskedFillScalar, sorted, beyond, Number{0});
  const View keep = kept(launch, piece, sorted, rank, beyond);
  launch(op().LogicalNot, keep, keep);
  launch(op().InplaceMaskedFillScalar, sorted, keep, Number{0});
  const View by_id = matrix(kAclFloat);
  launch(op().InplaceScatter, by_id, int64_t{1}, order, sorted, int64_t{0});
  return by_id;
}

// The first id at which the running sum of masses exceeds u times all of it, the last candidate at most: i64 [rows, 1].
View draw(Launch& launch, const Piece& piece, const View& masses, const View& u) {
  const auto matrix = [&](AclType type) { return launch.take(type, {piece.rows, piece.vocabulary}); };
  const View sums = matrix(kAclFloat);
  const View below = matrix(kAclBool);
  const View target = launch.take(kAclFloat, {piece.rows, 1});
  const View id = launch.take(kAclInt64, {piece.rows, 1});
  const View ids = launch.take(kAclFloat, {1, piece.vocabulary});
  const View candidates = matrix(kAclFloat);
  const View last = launch.take(kAclFloat, {piece.rows, 1});
  const View last_id = launch.take(kAclInt64, {piece.rows, 1});
  launch(op().Cumsum, masses, int64_t{1}, static_cast<int>(kAclFloat), sums);
  launch(op().Mul, sums.slice(1, piece.vocabulary - 1, 1), u, target);
  launch(op().LeTensor, sums, target, below);
  launch(op().ReduceSum, below, Numbers{{1}}, true, static_cast<int>(kAclInt64), id);
  // Rounding may let the target reach the sum itself.
  launch(op().Arange, Number{0}, Number{static_cast<double>(piece.vocabulary)}, Number{1},
         ids.reshaped({piece.vocabulary}));
  launch(op().GtScalar, masses, Number{0}, below);
  launch.copy(candidates, below);
  launch(op().Mul, candidates, ids, candidates);
  launch(op().Amax, candidates, Numbers{{1}}, true, last);
  launch(op().Cast, last, static_cast<int>(kAclInt64), last_id);
  launch(op().Minimum, id, last_id, id);
  return id;
}

void sample_piece(Launch& launch, const tm_sample_args& args, int64_t row, int64_t rows) {
  const int64_t vocabulary = args.logits.shape[1];
  const View logits = make_view(args.logits).slice(0, row, rows);
  const Piece piece{rows,
                    vocabulary,
                    column(args.temperature, kAclFloat, row, rows),
                    column(args.top_k, kAclInt32, row, rows),
                    column(args.top_p, kAclFloat, row, rows),
                    column(args.min_p, kAclFloat, row, rows)};
  const View best = launch.take(kAclInt64, {rows, 1});
  const View largest = launch.take(kAclFloat, {rows, 1});
  const View temperature = launch.take(kAclFloat, {rows, 1});
  const View greedy = launch.take(kAclBool, {rows, 1});
  const View nothing = launch.take(kAclBool, {rows, 1});
  const View masses = launch.take(kAclFloat, {rows, vocabulary});
  launch(op().ArgMax, logits, int64_t{1}, true, best);
  launch(op().Amax, logits, Numbers{{1}}, true, largest);
  launch(op().EqScalar, piece.temperature, Number{0}, greedy);
  launch(op().EqScalar, largest, Number{-kInfinity}, nothing);
  launch(op().LogicalOr, greedy, nothing, greedy);
  // What would divide by zero or subtract infinities takes harmless numbers; such rows do not draw.
  launch.copy(temperature, piece.temperature);
  launch(op().InplaceMaskedFillScalar, temperature, greedy, Number{1});
  launch(op().InplaceMaskedFillScalar, largest, nothing, Number{0});
  launch(op().Sub, logits, largest, Number{1}, masses);
  launch(op().Div, masses, temperature, masses);
  launch(op().Exp, masses, masses);
  const View by_id = kept_masses(launch, piece, masses);
  const View u = uniform(launch, column(args.seed, kAclInt64, row, rows), column(args.position, kAclInt64, row, rows));
  const View drawn = draw(launch, piece, by_id, u);
  launch(op().SWhere, greedy, best, drawn, drawn);
  launch(op().InplaceMaskedFillScalar, drawn, nothing, whole(0));
  launch(op().Cast, drawn, static_cast<int>(kAclInt32), column(args.out, kAclInt32, row, rows));
}

}  // namespace

void compose(Launch& launch, const tm_sample_args& args) {
  require_dtype(args.logits, TM_F32, "logits");
  for_pieces(launch, args.logits.shape[0], args.logits.shape[1],
             [&](int64_t row, int64_t count) { sample_piece(launch, args, row, count); });
}

}  // namespace turbomind::ascend
