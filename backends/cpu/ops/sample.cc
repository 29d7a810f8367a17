// SPDX-License-Identifier: Apache-2.0
//
// Sampling without a sort of the vocabulary: a lower bound of what is kept comes from the maxima of blocks, the logits
// above it are gathered, and the border of the kept set is found among those by selection. The draw then walks the kept
// set in order of the ids, as the contract says.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>

#include "ops.h"
#include "ops/philox.h"
#include "ops/tensor_args.h"
#include "ops/workspace.h"

namespace turbomind::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Nuclei are looked for among the tokens at least e^-level as likely as the likeliest, then among more.
constexpr float kLargestLevel = 24.0f;
constexpr float kNucleusLevels[] = {6.0f, 12.0f, kLargestLevel, kInfinity};
constexpr int kBuckets = 512;

struct Candidate {
  float logit;
  int32_t id;
};

// The contract's order: likelier first, ties to the lower id.
bool before(const Candidate& a, const Candidate& b) { return a.logit > b.logit || (a.logit == b.logit && a.id < b.id); }

struct Scratch {
  float* maxima;          // [ceil(V / kMaximaBlock)]
  float* selected;        // likewise
  float* sums;            // [ceil(V / kSumBlock)]
  Candidate* candidates;  // [V]
};

int64_t num_blocks(int64_t n, int64_t block) { return (n + block - 1) / block; }

Scratch take_scratch(WorkspaceArena& arena, int64_t vocab) {
  Scratch scratch;
  scratch.maxima = arena.take<float>(num_blocks(vocab, kMaximaBlock));
  scratch.selected = arena.take<float>(num_blocks(vocab, kMaximaBlock));
  scratch.sums = arena.take<float>(num_blocks(vocab, kSumBlock));
  scratch.candidates = arena.take<Candidate>(vocab);
  return scratch;
}

size_t thread_bytes(int64_t vocab) {
  WorkspaceArena arena;
  take_scratch(arena, vocab);
  return arena.used();
}

struct Params {
  float temperature;
  int64_t top_k;  // 0: all
  float top_p;
  float min_p;
  double uniform;
};

class RowSampler {
 public:
  RowSampler(const LogitsKernels& kernels, const float* logits, int64_t vocab, const Scratch& scratch)
      : kernels_(kernels), x_(logits), vocab_(vocab), scratch_(scratch) {
    max_ = kernels.block_maxima(logits, vocab, scratch.maxima);
  }

  int32_t run(const Params& params) {
    scale_ = 1.0f / params.temperature;
    // An infinite logit, or a temperature too small to divide by, leaves one candidate.
    if (!(params.temperature > 0.0f) || !std::isfinite(scale_) || !std::isfinite(max_)) return greedy();
    const bool top_k = params.top_k > 0 && params.top_k < vocab_;
    if (!top_k && params.top_p >= 1.0f && params.min_p <= 0.0f) return draw_from_all(params.uniform);
    Candidate worst{-kInfinity, static_cast<int32_t>(vocab_)};
    if (top_k) {
      worst = worst_of_top_k(params.top_k, params.top_p);
    } else if (params.top_p < 1.0f) {
      worst = worst_of_nucleus(params.top_p);
    }
    return draw_from_kept(worst, params.min_p, params.uniform);
  }

  // The largest logit, ties to the lower id; 0 if there is none.
  int32_t greedy() const {
    for (int64_t block = 0; block < num_blocks(vocab_, kMaximaBlock); ++block) {
      if (scratch_.maxima[block] != max_) continue;
      for (int64_t i = block * kMaximaBlock; i < vocab_; ++i) {
        if (x_[i] == max_) return static_cast<int32_t>(i);
      }
    }
    return 0;
  }

 private:
  // Candidates with logits >= bound, in order of their ids. Never those of -inf, which no draw can meet: a mask that
  // leaves fewer tokens than top_k asks for would otherwise have the whole vocabulary gathered.
  int64_t gather(float bound) const {
    bound = std::max(bound, std::numeric_limits<float>::lowest());
    int64_t count = 0;
    for (int64_t block = 0; block < num_blocks(vocab_, kMaximaBlock); ++block) {
      if (!(scratch_.maxima[block] >= bound)) continue;
      const int64_t end = std::min((block + 1) * kMaximaBlock, vocab_);
      for (int64_t i = block * kMaximaBlock; i < end; ++i) {
        scratch_.candidates[count] = {x_[i], static_cast<int32_t>(i)};
        count += x_[i] >= bound;
      }
    }
    return count;
  }

  double mass(const Candidate* begin, const Candidate* end) const {
    float weights[kSumBlock];
    double total = 0.0;
    for (const Candidate* block = begin; block < end; block += kSumBlock) {
      const int64_t count = std::min<int64_t>(kSumBlock, end - block);
      for (int64_t i = 0; i < count; ++i) weights[i] = block[i].logit;
      total += kernels_.exponential_sum(weights, max_, scale_, count, nullptr);
    }
    return total;
  }

  // Last of the shortest prefix, in the contract's order, of the first `count` candidates whose mass reaches `needed`.
  Candidate worst_of_mass(int64_t count, double needed) const {
    Candidate* begin = scratch_.candidates;
    Candidate* end = begin + count;
    double left = needed;
    while (end - begin > 1) {
      Candidate* middle = begin + (end - begin) / 2;
      std::nth_element(begin, middle, end, before);
      const double half = mass(begin, middle);
      if (half >= left) {
        end = middle;
      } else {
        left -= half;
        begin = middle;
      }
    }
    return *begin;
  }

  Candidate worst_of_top_k(int64_t k, float top_p) const {
    const int64_t blocks = num_blocks(vocab_, kMaximaBlock);
    float bound = -kInfinity;  // at least k logits reach it
    if (k <= blocks) {
      std::copy_n(scratch_.maxima, blocks, scratch_.selected);
      std::nth_element(scratch_.selected, scratch_.selected + k - 1, scratch_.selected + blocks, std::greater<>());
      bound = scratch_.selected[k - 1];
    }
    const int64_t found = gather(bound);
    const int64_t count = std::min(k, found);
    Candidate* last = scratch_.candidates + count - 1;
    std::nth_element(scratch_.candidates, last, scratch_.candidates + found, before);
    if (top_p >= 1.0f) return *last;
    return worst_of_mass(count, static_cast<double>(top_p) * mass(scratch_.candidates, last + 1));
  }

  // Candidates are counted by likelihood into buckets, so that only those at the border of the nucleus are compared.
  Candidate worst_of_nucleus(float top_p) const {
    const double needed = static_cast<double>(top_p) * kernels_.exponential_sum(x_, max_, scale_, vocab_, nullptr);
    for (const float level : kNucleusLevels) {
      const int64_t found = gather(max_ - level / scale_);
      const float buckets_per_logit = scale_ * kBuckets / std::min(level, kLargestLevel);
      double masses[kBuckets] = {};
      add_masses(found, buckets_per_logit, masses);
      double left = needed;
      for (int bucket = 0; bucket < kBuckets; ++bucket) {
        if (masses[bucket] < left || masses[bucket] == 0.0) {
          left -= masses[bucket];
          continue;
        }
        Candidate* begin = scratch_.candidates;
        const auto other = [&](const Candidate& c) { return bucket_of(c.logit, buckets_per_logit) != bucket; };
        return worst_of_mass(std::remove_if(begin, begin + found, other) - begin, left);
      }
    }
    return {-kInfinity, static_cast<int32_t>(vocab_)};  // rounding kept the sum below the mass needed: all stay
  }

  int bucket_of(float logit, float buckets_per_logit) const {
    const float bucket = (max_ - logit) * buckets_per_logit;
    return bucket < kBuckets - 1 ? static_cast<int>(bucket) : kBuckets - 1;
  }

  void add_masses(int64_t count, float buckets_per_logit, double (&masses)[kBuckets]) const {
    float logits[kSumBlock];
    float weights[kSumBlock];
    for (int64_t begin = 0; begin < count; begin += kSumBlock) {
      const int64_t length = std::min(kSumBlock, count - begin);
      for (int64_t i = 0; i < length; ++i) logits[i] = scratch_.candidates[begin + i].logit;
      kernels_.exponentials(logits, max_, scale_, length, weights);
      for (int64_t i = 0; i < length; ++i) {
        masses[bucket_of(logits[i], buckets_per_logit)] += static_cast<double>(weights[i]);
      }
    }
  }

  // Replaces the candidates' logits by their weights.
  void weigh(Candidate* begin, Candidate* end) const {
    float weights[kSumBlock];
    for (Candidate* block = begin; block < end; block += kSumBlock) {
      const int64_t count = std::min<int64_t>(kSumBlock, end - block);
      for (int64_t i = 0; i < count; ++i) weights[i] = block[i].logit;
      kernels_.exponentials(weights, max_, scale_, count, weights);
      for (int64_t i = 0; i < count; ++i) block[i].logit = weights[i];
    }
  }

  // Draws from the candidates up to `worst` in the contract's order that are at least min_p as likely as the likeliest.
  int32_t draw_from_kept(const Candidate& worst, float min_p, double uniform) const {
    // A little below what min_p asks for; the exact comparison follows.
    const float min_p_bound = min_p > 0.0f ? max_ + (std::log(min_p) - 1e-3f) / scale_ : -kInfinity;
    Candidate* begin = scratch_.candidates;
    Candidate* end = begin + gather(std::max(worst.logit, std::min(min_p_bound, max_)));
    end = std::remove_if(begin, end, [&](const Candidate& candidate) { return before(worst, candidate); });
    weigh(begin, end);
    end = std::remove_if(begin, end, [&](const Candidate& kept) { return kept.logit < std::min(min_p, 1.0f); });
    double total = 0.0;
    for (const Candidate* kept = begin; kept < end; ++kept) total += static_cast<double>(kept->logit);
    const double target = uniform * total;
    double running = 0.0;
    for (const Candidate* kept = begin; kept < end; ++kept) {
      running += static_cast<double>(kept->logit);
      if (running > target) return kept->id;
    }
    return greedy();
  }

  int32_t draw_from_all(double uniform) const {
    const double target = uniform * kernels_.exponential_sum(x_, max_, scale_, vocab_, scratch_.sums);
    double running = 0.0;
    int64_t block = 0;
    const int64_t last = num_blocks(vocab_, kSumBlock) - 1;
    while (block < last && running + static_cast<double>(scratch_.sums[block]) <= target) {
      running += static_cast<double>(scratch_.sums[block++]);
    }
    float weights[kSumBlock];
    const int64_t begin = block * kSumBlock;
    const int64_t count = std::min(kSumBlock, vocab_ - begin);
    kernels_.exponentials(x_ + begin, max_, scale_, count, weights);
    // The block's sum was rounded on another way: where the target lies past the last weight, that one is drawn.
    int64_t drawn = -1;
    for (int64_t i = 0; i < count && !(drawn >= 0 && running > target); ++i) {
      if (weights[i] > 0.0f) drawn = begin + i;
      running += static_cast<double>(weights[i]);
    }
    return drawn >= 0 ? static_cast<int32_t>(drawn) : greedy();
  }

  const LogitsKernels& kernels_;
  const float* x_;
  const int64_t vocab_;
  const Scratch& scratch_;
  float max_;
  float scale_ = 1.0f;  // 1 / temperature
};

}  // namespace

size_t CpuOps::sample_workspace(Context& context, const tm_sample_args& args) {
  return context.pool().num_threads() * thread_bytes(args.logits.shape[1]);
}

void CpuOps::sample(Stream& stream, const tm_sample_args& args, const tm_workspace& workspace) {
  const Matrix<float> logits = matrix_arg<float>(args.logits, "logits");
  const float* temperature = vector_arg<float>(args.temperature, "temperature");
  const int32_t* top_k = vector_arg<int32_t>(args.top_k, "top_k");
  const float* top_p = vector_arg<float>(args.top_p, "top_p");
  const float* min_p = vector_arg<float>(args.min_p, "min_p");
  const uint64_t* seed = vector_arg<uint64_t>(args.seed, "seed");
  const int64_t* position = vector_arg<int64_t>(args.position, "position");
  int32_t* out = vector_arg<int32_t>(args.out, "out");
  require(logits.rows == 0 || logits.cols > 0, "logits", "a vocabulary of at least 1");
  WorkspaceArena arena(workspace);
  const size_t bytes = thread_bytes(logits.cols);
  std::byte* memory = arena.take<std::byte>(stream.pool().num_threads() * bytes);
  stream.pool().parallel_for(logits.rows, [&](int64_t row, int thread) {
    WorkspaceArena own(tm_workspace{memory + thread * bytes, bytes});
    const Scratch scratch = take_scratch(own, logits.cols);
    RowSampler sampler(stream.kernels().logits, logits.row(row), logits.cols, scratch);
    out[row] = sampler.run({temperature[row], top_k[row], top_p[row], min_p[row],
                            philox_uniform(seed[row], static_cast<uint64_t>(position[row]))});
  });
}

}  // namespace turbomind::cpu
