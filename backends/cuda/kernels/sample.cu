// SPDX-License-Identifier: Apache-2.0
//
// Sampling without a sort: a block per row. Weights are integers (multiples of 2^-44 of the likeliest token's), so sums
// are exact and do not depend on any order. The border of the kept set, the k-th token or the one at which the mass
// reaches top_p, is found by histograms over ranges of logits that shrink until few candidates are left to be ranked
// against each other. The draw finds the first id, in order of ids, at which the running sum exceeds its target.
#include <climits>
#include <cmath>

#include "kernels/common.cuh"
#include "kernels/logits.h"

namespace turbomind::cuda {
namespace {

using Mass = unsigned long long;

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarp;
constexpr int kBins = 2 * kThreads;
constexpr int kCandidates = kThreads;  // a border of so few is ranked; a larger one is cut again
constexpr int kMaxCuts = 8;            // each divides a range by kBins, so floats are told apart after four
constexpr float kMassUnits = 0x1p44f;  // 2^18 tokens of the largest weight fit 62 bits
constexpr float kLog2E = 1.4426950408889634f;

struct SampleArgs {
  const float* logits;
  const float* temperature;
  const int32_t* top_k;
  const float* top_p;
  const float* min_p;
  const uint64_t* seed;
  const int64_t* position;
  int32_t* out;
  int64_t stride;
  int32_t vocab;
};

// First word of Philox4x32-10 with key = seed and counter = (position, 0). Salmon et al., SC 2011.
__device__ uint32_t philox_word(uint64_t seed, uint64_t position) {
  uint32_t key0 = static_cast<uint32_t>(seed);
  uint32_t key1 = static_cast<uint32_t>(seed >> 32);
  uint32_t counter[4] = {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0};
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57u} * counter[2];
    const uint32_t next0 = static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key0;
    const uint32_t next2 = static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key1;
    counter[1] = static_cast<uint32_t>(b);
    counter[3] = static_cast<uint32_t>(a);
    counter[0] = next0;
    counter[2] = next2;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter[0];
}

struct Token {
  float logit;
  int id;
};

// The contract's order: likelier first, ties to the lower id.
__device__ __forceinline__ bool before(Token a, Token b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

struct Shared {
  unsigned counts[kBins];
  unsigned mass_low[kBins];
  unsigned mass_high[kBins];
  Token candidates[kCandidates];
  Mass masses[kCandidates];
  Mass warp_mass[kWarps];
  Mass warp_count[kWarps];
  Token warp_token[kWarps];
  float warp_float[kWarps];
  // What one thread found for all.
  Mass above_count;
  Mass above_mass;
  Mass through_mass;
  Token token;
  int bin;
  unsigned num_candidates;
};

// The last kept token, and the mass of all kept.
struct Border {
  Token worst;
  Mass mass;
};

class RowSampler {
 public:
  __device__ RowSampler(const float* x, int vocab, Shared& shared) : x_(x), vocab_(vocab), s_(shared) {}

  // The largest logit and its lowest id; finds the least finite logit on the way.
  __device__ Token find_largest() {
    Token best{-INFINITY, INT_MAX};
    float least = INFINITY;
    for_all([&](int id, float logit) {
      if (before({logit, id}, best)) best = {logit, id};
      if (logit > -INFINITY) least = fminf(least, logit);
    });
    largest_ = block_reduce(best, s_.warp_token);
    least_ =
        turbomind::cuda::block_reduce(least, s_.warp_float, INFINITY, [](float a, float b) { return fminf(a, b); });
    return largest_;
  }

  __device__ int run(float temperature, int top_k, float top_p, float min_p, uint32_t uniform) {
    const Token best = find_largest();
    const float inverse = 1.0f / temperature;
    // An infinite logit, or a temperature too small to divide by, leaves one candidate.
    if (!(temperature > 0.0f) || !isfinite(inverse) || !isfinite(best.logit)) return best.id == INT_MAX ? 0 : best.id;
    scale_ = inverse * kLog2E;
    min_weight_ = fminf(min_p, 1.0f);
    const bool cut_k = top_k > 0 && top_k < vocab_;
    if (cut_k) find_border([&](Mass count, Mass) { return count >= static_cast<Mass>(top_k); });
    if (top_p < 1.0f) {
      const Mass all = cut_k ? border_.mass : total_mass();
      const double wanted = static_cast<double>(top_p) * static_cast<double>(all);
      const Mass needed = wanted > 1.0 ? static_cast<Mass>(ceil(wanted)) : 1;
      find_border([&](Mass, Mass mass) { return mass >= needed; });
    }
    const int drawn = first_past([&](int id, float logit) { return kept_mass({logit, id}); },
                                 [&](Mass total) { return __umul64hi(total, static_cast<Mass>(uniform) << 32); });
    return drawn < vocab_ ? drawn : best.id;
  }

 private:
  static __device__ Token block_reduce(Token value, Token* shared) {
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      const Token other{__shfl_xor_sync(~0u, value.logit, offset), __shfl_xor_sync(~0u, value.id, offset)};
      if (before(other, value)) value = other;
    }
    __syncthreads();
    if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
    __syncthreads();
    static_assert(kWarps == kWarp);
    value = shared[threadIdx.x % kWarp];
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      const Token other{__shfl_xor_sync(~0u, value.logit, offset), __shfl_xor_sync(~0u, value.id, offset)};
      if (before(other, value)) value = other;
    }
    return value;
  }

  template <class Fn>
  __device__ void for_all(Fn&& fn) const {
    if (!aligned_row()) {
      for (int i = static_cast<int>(threadIdx.x); i < vocab_; i += kThreads) fn(i, x_[i]);
      return;
    }
    const int vectors = vocab_ / 4;
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < vectors; i += kThreads) {
      const float4 v = reinterpret_cast<const float4*>(x_)[i];
      fn(4 * i, v.x);
      fn(4 * i + 1, v.y);
      fn(4 * i + 2, v.z);
      fn(4 * i + 3, v.w);
    }
    const int tail = 4 * vectors + static_cast<int>(threadIdx.x);
    if (tail < vocab_) fn(tail, x_[tail]);
  }

  __device__ bool aligned_row() const { return reinterpret_cast<uintptr_t>(x_) % sizeof(float4) == 0; }

  // exp((logit - largest) / temperature); 0 for NaN.
  __device__ float weight(float logit) const {
    const float w = exp2f((logit - largest_.logit) * scale_);
    return w > 0.0f ? w : 0.0f;
  }

  __device__ Mass mass(float logit) const { return __float2ull_rn(weight(logit) * kMassUnits); }

  __device__ Mass kept_mass(Token token) const {
    if (before(border_.worst, token) || !(weight(token.logit) >= min_weight_)) return 0;
    return mass(token.logit);
  }

  __device__ Mass total_mass() {
    Mass sum = 0;
    for_all([&](int, float logit) { sum += mass(logit); });
    return block_sum(sum, s_.warp_mass);
  }

  // Bins of the range [low, high] of logits, the largest logits in bin 0; descending logits have ascending bins.
  struct Range {
    float high;
    float low;

    __device__ bool has(float logit) const { return logit <= high && logit >= low; }
    __device__ int bin(float logit) const {
      if (high == low) return 0;
      const int at = static_cast<int>((high - logit) / (high - low) * kBins);
      return at < kBins - 1 ? at : kBins - 1;
    }
  };

  // border_ becomes the first token, in the contract's order, at which reached(count, mass) of all tokens up to and
  // with it holds; unchanged if it never does.
  template <class Reached>
  __device__ void find_border(Reached&& reached) {
    Range range{largest_.logit, least_};
    Mass count = 0;  // of the tokens before the range
    Mass mass_above = 0;
    for (int cut = 0; cut < kMaxCuts; ++cut) {
      fill_bins(range);
      if (!find_bin(reached, count, mass_above)) return;
      const int bin = s_.bin;
      count = s_.above_count;
      mass_above = s_.above_mass;
      if (s_.counts[bin] <= kCandidates) return rank_candidates(reached, range, bin, count, mass_above);
      range = narrow(range, bin);
      if (range.high == range.low) break;
    }
    find_tie(reached, range.low, count, mass_above);
  }

  __device__ void fill_bins(const Range& range) {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kThreads) {
      s_.counts[i] = 0;
      s_.mass_low[i] = 0;
      s_.mass_high[i] = 0;
    }
    __syncthreads();
    for_all([&](int, float logit) {
      if (!range.has(logit)) return;
      const int bin = range.bin(logit);
      const Mass m = mass(logit);
      const auto low = static_cast<unsigned>(m);
      atomicAdd(&s_.counts[bin], 1u);
      if (m == 0) return;
      const unsigned old = atomicAdd(&s_.mass_low[bin], low);
      const unsigned high = static_cast<unsigned>(m >> 32) + (old + low < old ? 1u : 0u);
      if (high) atomicAdd(&s_.mass_high[bin], high);
    });
    __syncthreads();
  }

  __device__ Mass bin_mass(int bin) const { return (static_cast<Mass>(s_.mass_high[bin]) << 32) | s_.mass_low[bin]; }

  // Sum of the values of the lanes up to and with this one.
  static __device__ Mass scan_warp(Mass value) {
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const Mass other = __shfl_up_sync(~0u, value, offset);
      if (static_cast<int>(threadIdx.x) % kWarp >= offset) value += other;
    }
    return value;
  }

  // Sum of the values of the threads before this one.
  static __device__ Mass scan_before(Mass value, Mass* shared) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const Mass running = scan_warp(value);
    __syncthreads();
    if (lane == kWarp - 1) shared[warp] = running;
    __syncthreads();
    return running - value + warp_reduce(lane < warp ? shared[lane] : 0, [](Mass x, Mass y) { return x + y; });
  }

  // The bin in which the border lies, with what lies before it, for all threads; false: there is none.
  template <class Reached>
  __device__ bool find_bin(Reached&& reached, Mass count, Mass mass_above) {
    const int first = 2 * static_cast<int>(threadIdx.x);
    count += scan_before(s_.counts[first] + s_.counts[first + 1], s_.warp_count);
    mass_above += scan_before(bin_mass(first) + bin_mass(first + 1), s_.warp_mass);
    bool found = false;
    for (int bin = first; bin < first + 2; ++bin) {
      const Mass next_count = count + s_.counts[bin];
      const Mass next_mass = mass_above + bin_mass(bin);
      if (s_.counts[bin] > 0 && reached(next_count, next_mass) && !(count > 0 && reached(count, mass_above))) {
        s_.bin = bin;
        s_.above_count = count;
        s_.above_mass = mass_above;
        found = true;
      }
      count = next_count;
      mass_above = next_mass;
    }
    return __syncthreads_or(found);
  }

  // The range that the tokens of a bin really span.
  __device__ Range narrow(const Range& range, int bin) {
    float high = -INFINITY;
    float low = INFINITY;
    for_all([&](int, float logit) {
      if (!range.has(logit) || range.bin(logit) != bin) return;
      high = fmaxf(high, logit);
      low = fminf(low, logit);
    });
    high = turbomind::cuda::block_reduce(high, s_.warp_float, -INFINITY, [](float a, float b) { return fmaxf(a, b); });
    low = turbomind::cuda::block_reduce(low, s_.warp_float, INFINITY, [](float a, float b) { return fminf(a, b); });
    return {high, low};
  }

  // A thread per token of the bin: what lies before it says whether it is the border.
  template <class Reached>
  __device__ void rank_candidates(Reached&& reached, const Range& range, int bin, Mass count, Mass mass_above) {
    if (threadIdx.x == 0) s_.num_candidates = 0;
    __syncthreads();
    for_all([&](int id, float logit) {
      if (!range.has(logit) || range.bin(logit) != bin) return;
      const unsigned at = atomicAdd(&s_.num_candidates, 1u);
      s_.candidates[at] = {logit, id};
      s_.masses[at] = mass(logit);
    });
    __syncthreads();
    const unsigned num = s_.num_candidates;
    if (threadIdx.x < num) {
      const Token own = s_.candidates[threadIdx.x];
#pragma unroll 1
      for (unsigned i = 0; i < num; ++i) {
        if (!before(s_.candidates[i], own)) continue;
        ++count;
        mass_above += s_.masses[i];
      }
      const Mass through = mass_above + s_.masses[threadIdx.x];
      if (reached(count + 1, through) && !(count > 0 && reached(count, mass_above))) {
        s_.token = own;
        s_.through_mass = through;
      }
    }
    __syncthreads();
    border_ = {s_.token, s_.through_mass};
  }

  // The border lies among many tokens of the same logit.
  template <class Reached>
  __device__ void find_tie(Reached&& reached, float logit, Mass count, Mass mass_above) {
    const Mass each = mass(logit);
    Mass low = 1;  // how many of them are kept: bisection
    Mass high = static_cast<Mass>(vocab_);
    while (low < high) {
      const Mass middle = (low + high) / 2;
      if (reached(count + middle, mass_above + middle * each)) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    const int id = first_past([&](int, float other) { return Mass{other == logit}; }, [&](Mass) { return low - 1; });
    border_ = {{logit, id}, mass_above + low * each};
  }

  // The first id at which the running sum of measure(id, logit) exceeds target(sum of all); vocab_ if none does.
  template <class Measure, class Target>
  __device__ int first_past(Measure&& measure, Target&& target) {
    const int step = (vocab_ + kThreads * kWarp - 1) / (kThreads * kWarp) * kWarp;  // ids of a part
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    // Runs of kWarps parts, then the parts of the run, each summed by a warp.
    sum_ranges(measure, warp * kWarps * step, kWarps * step);
    const Mass total = warp_reduce(s_.warp_mass[lane], [](Mass x, Mass y) { return x + y; });
    Mass left = target(total);
    if (left >= total) return vocab_;
    int begin = pick_range(left) * kWarps * step;
    sum_ranges(measure, begin + warp * step, step);
    begin += pick_range(left) * step;
    for (int at = begin; at < begin + step; at += kWarp) {  // every warp does the same
      const int id = at + lane;
      const Mass running = scan_warp(id < vocab_ ? measure(id, x_[id]) : 0);
      const unsigned past = __ballot_sync(~0u, running > left);
      if (past) return at + __ffs(static_cast<int>(past)) - 1;
      left -= __shfl_sync(~0u, running, kWarp - 1);
    }
    return vocab_;
  }

  // s_.warp_mass[w] = sum over the `count` ids from the warp's `begin` on.
  template <class Measure>
  __device__ void sum_ranges(Measure&& measure, int begin, int count) {
    Mass sum = 0;
    const int end = min(begin + count, vocab_);
#pragma unroll 4
    for (int id = begin + static_cast<int>(threadIdx.x) % kWarp; id < end; id += kWarp) sum += measure(id, x_[id]);
    sum = warp_reduce(sum, [](Mass x, Mass y) { return x + y; });
    __syncthreads();
    if (threadIdx.x % kWarp == 0) s_.warp_mass[threadIdx.x / kWarp] = sum;
    __syncthreads();
  }

  // Which warp's range the target, less than the sum of all, lies in; takes the sums before it off.
  __device__ int pick_range(Mass& left) const {
    const Mass own = s_.warp_mass[threadIdx.x % kWarp];
    const Mass running = scan_warp(own);
    const int range = __ffs(static_cast<int>(__ballot_sync(~0u, running > left))) - 1;
    left -= __shfl_sync(~0u, running - own, range);
    return range;
  }

  const float* x_;
  const int vocab_;
  Shared& s_;
  Token largest_{};
  float least_ = 0.0f;
  float scale_ = 1.0f;  // log2(e) / temperature
  float min_weight_ = 0.0f;
  Border border_{{-INFINITY, INT_MAX}, 0};
};

__global__ void __launch_bounds__(kThreads) sample_rows(const SampleArgs args) {
  __shared__ Shared shared;
  const int64_t row = blockIdx.x;
  RowSampler sampler(args.logits + row * args.stride, args.vocab, shared);
  const uint32_t uniform = philox_word(args.seed[row], static_cast<uint64_t>(args.position[row]));
  const int token = sampler.run(args.temperature[row], args.top_k[row], args.top_p[row], args.min_p[row], uniform);
  if (threadIdx.x == 0) args.out[row] = token;
}

}  // namespace

void launch_sample(cudaStream_t stream, const tm_sample_args& op) {
  SampleArgs args{};
  args.logits = static_cast<const float*>(op.logits.data);
  args.temperature = static_cast<const float*>(op.temperature.data);
  args.top_k = static_cast<const int32_t*>(op.top_k.data);
  args.top_p = static_cast<const float*>(op.top_p.data);
  args.min_p = static_cast<const float*>(op.min_p.data);
  args.seed = static_cast<const uint64_t*>(op.seed.data);
  args.position = static_cast<const int64_t*>(op.position.data);
  args.out = static_cast<int32_t*>(op.out.data);
  args.stride = op.logits.stride[0];
  args.vocab = static_cast<int32_t>(op.logits.shape[1]);
  if (op.logits.shape[0] == 0) return;
  sample_rows<<<static_cast<unsigned>(op.logits.shape[0]), kThreads, 0, stream>>>(args);
  check_launch("sample");
}

}  // namespace turbomind::cuda
