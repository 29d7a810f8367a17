// SPDX-License-Identifier: Apache-2.0
//
// A whole backend in one file: the required ops as plain loops over float32 in host memory, and no optional slot. The
// core converts weights to float32 and composes the fused ops, so real models run. tests/conformance tells whether a
// kernel that takes the place of a loop is right.
#include <cstdlib>

#include "tm_backend_host.hpp"

namespace example {

namespace host = turbomind::abi::host;
using host::activate;
using host::kInfinity;
using host::row;
using host::Stream;
using turbomind::abi::as;
using turbomind::abi::Error;

void require(bool condition, const std::string& message) {
  if (!condition) throw Error(TM_INVALID_ARGUMENT, message);
}

struct Context {
  Context(int32_t index, const tm_config& config, const tm_host_api*) {
    require(index == 0, "device index: expected 0, found " + std::to_string(index));
    for (size_t i = 0; i < config.num_entries; ++i) {
      const std::string key = config.entries[i].key;
      require(key == "deterministic" || key == "num_threads", "unknown setting " + key);
    }
  }

  void props(tm_device_props* out) {
    tm_device_props p{.struct_size = out->struct_size, .name = "host loops", .arch = "portable"};
    p.total_memory_bytes = kMemoryBytes;
    p.memory_alignment = 256;
    p.activation_dtypes = p.kv_dtypes = 1u << TM_F32;
    p.preferred_activation = p.preferred_kv = TM_F32;
    p.kv_block_sizes[0] = p.preferred_kv_block_size = 16;  // tokens
    p.host_accessible = p.always_deterministic = p.num_compute_units = 1;
    std::memcpy(out, &p, std::min(out->struct_size, sizeof p));
  }

  void set_thread() {}
  void mem_info(uint64_t* free_bytes, uint64_t* total_bytes) { *free_bytes = *total_bytes = kMemoryBytes; }
  void* alloc(tm_memory_kind, size_t bytes) {
    return bytes > kMemoryBytes ? nullptr : std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  }
  void free(tm_memory_kind, void* data) { std::free(data); }

  void query_weight(const tm_weight_desc& desc, tm_weight_info* out) {
    out->supported = desc.format == TM_WEIGHT_F32;
    out->packed_bytes = sizeof(float) * static_cast<size_t>(desc.rows * desc.cols * std::max(desc.num_experts, 1));
    if (!out->supported) std::strcpy(out->reason, "only float32 weights");
  }

  size_t kv_pool_bytes(const tm_kv_spec& spec, int64_t num_blocks) {
    if (spec.dtype != TM_F32 || spec.block_size != 16) throw Error(TM_UNSUPPORTED, "KV is float32 in blocks of 16");
    const int64_t token_size = int64_t{spec.num_kv_heads} * (spec.head_dim_k + spec.head_dim_v);
    return sizeof(float) * static_cast<size_t>(num_blocks * spec.block_size * token_size);
  }

  size_t workspace_size(tm_op_id, const void*) { return 0; }
  static constexpr uint64_t kMemoryBytes = uint64_t{8} << 30;
};

// Row-major float32 [experts * rows, cols].
struct Weight {
  Weight(Stream&, const tm_weight_desc& desc, void* dst)
      : data(static_cast<float*>(dst)), rows(desc.rows), cols(desc.cols) {
    float* to = data;
    for (int32_t p = 0; p < desc.num_parts; ++p) {
      const auto* from = static_cast<const char*>(desc.parts[p].data);
      for (int64_t i = 0; i < desc.parts[p].rows; ++i, to += cols) {
        std::memcpy(to, from + i * desc.parts[p].row_stride_bytes, sizeof(float) * static_cast<size_t>(cols));
      }
    }
  }

  float* data;
  int64_t rows, cols;
};

struct Plan {
  Plan(Context&, const tm_plan_limits& limits) : step(limits) {}
  void update(Stream&, const tm_step_meta& meta) { step.update(meta); }
  host::Step step;
};

// Where a pool keeps a token: k of all heads, then v of all heads.
float* token(const tm_kv_pool& kv, int64_t place) {
  return static_cast<float*>(kv.data) + place * kv.spec.num_kv_heads * (kv.spec.head_dim_k + kv.spec.head_dim_v);
}

float dot(const float* a, const float* b, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// out[t, i] = fn(t, i).
template <class Fn>
void map(const tm_tensor& out, Fn fn) {
  for (int64_t t = 0; t < out.shape[0]; ++t) {
    for (int64_t i = 0; i < out.shape[1]; ++i) row(out, t)[i] = fn(t, i);
  }
}

// One query head: key(j) and value(j) for j in [0, count).
template <class Key, class Value>
void attend(const float* q, int64_t count, Key key, int64_t dim_k, Value value, int64_t dim_v, float scale,
            float softcap, float sink, float* out) {
  std::vector<float> scores;
  float largest = sink;
  for (int64_t j = 0; j < count; ++j) {
    const float score = dot(q, key(j), dim_k) * scale;
    scores.push_back(softcap > 0 ? softcap * std::tanh(score / softcap) : score);
    largest = std::max(largest, scores.back());
  }
  float total = sink == -kInfinity ? 0 : std::exp(sink - largest);
  for (float& score : scores) total += score = std::exp(score - largest);
  std::fill_n(out, dim_v, 0.0f);
  for (int64_t j = 0; j < count; ++j) {
    for (int64_t d = 0; d < dim_v; ++d) out[d] += scores[static_cast<size_t>(j)] / total * value(j)[d];
  }
}

struct Ops {
#define TM_DECLARE(name) static void name(Stream&, const tm_##name##_args&, const tm_workspace&);
  TM_REQUIRED_OPS(TM_DECLARE)
#undef TM_DECLARE
};

#define OP(name) void Ops::name(Stream&, const tm_##name##_args& a, const tm_workspace&)

OP(embedding) {
  const Weight& w = *as<Weight>(a.weight);
  map(a.out, [&](int64_t t, int64_t i) {
    const int64_t id = *row<int32_t>(a.ids, t) - a.row_offset;
    return id < 0 || id >= w.rows ? 0 : w.data[id * w.cols + i] * a.scale;
  });
}

OP(rms_norm) {
  const int64_t width = a.weight.shape[0], heads = a.x.ndim == 3 ? a.x.shape[1] : 1;
  for (int64_t i = 0; i < a.x.shape[0] * heads; ++i) {
    const float* x = row(a.x, i / heads) + i % heads * width;
    float* out = row(a.out, i / heads) + i % heads * width;
    const float factor = 1 / std::sqrt(dot(x, x, width) / static_cast<float>(width) + a.eps);
    for (int64_t j = 0; j < width; ++j) out[j] = x[j] * factor * row(a.weight, 0)[j];
  }
}

OP(layer_norm) {
  const int64_t width = a.x.shape[1];
  for (int64_t t = 0; t < a.x.shape[0]; ++t) {
    const float* x = row(a.x, t);
    const double mean = std::accumulate(x, x + width, 0.0) / static_cast<double>(width);
    double variance = 0;
    for (int64_t i = 0; i < width; ++i) variance += (x[i] - mean) * (x[i] - mean) / static_cast<double>(width);
    for (int64_t i = 0; i < width; ++i) {
      const double scaled = (x[i] - mean) / std::sqrt(variance + a.eps) * row(a.weight, 0)[i];
      row(a.out, t)[i] = static_cast<float>(scaled + (a.bias.data ? row(a.bias, 0)[i] : 0));
    }
  }
}

OP(activation) {
  map(a.out, [&](int64_t t, int64_t i) { return activate(a.kind, row(a.x, t)[i]); });
}

OP(gated_activation) {
  map(a.out, [&](int64_t t, int64_t i) { return activate(a.kind, row(a.gate, t)[i]) * row(a.up, t)[i]; });
}

OP(add) {
  map(a.out, [&](int64_t t, int64_t i) { return row(a.a, t)[i] + row(a.b, t)[i]; });
}

OP(linear) {
  for (int w = 0; w < a.num_weights; ++w) {
    const Weight& weight = *as<Weight>(a.weight[w]);
    require(a.x.shape[1] == weight.cols && a.out[w].shape[1] == weight.rows, "linear: x and out must fit the weight");
    map(a.out[w], [&](int64_t t, int64_t i) {
      const float bias = a.bias[w].data ? row(a.bias[w], 0)[i] : 0;
      return activate(a.activation, dot(row(a.x, t), weight.data + i * weight.cols, weight.cols) + bias);
    });
  }
}

OP(grouped_linear) {
  const Weight& w = *as<Weight>(a.weight);
  int64_t expert = 0;
  map(a.out, [&](int64_t t, int64_t i) {
    while (t >= row<int32_t>(a.expert_offsets, 0)[expert + 1]) ++expert;
    return dot(row(a.x, t), w.data + (expert * w.rows + i) * w.cols, w.cols);
  });
}

OP(rope) {
  const int64_t pairs = a.rotary_dim / 2, tokens = a.q.shape[0];
  const int32_t* section = a.mrope_section;
  for (const tm_tensor& x : {a.q, a.k}) {
    for (int64_t n = 0; x.data && n < tokens * x.shape[1] * pairs; ++n) {
      const int64_t pair = n % pairs, head = n / pairs % x.shape[1], t = n / pairs / x.shape[1];
      int64_t axis = 0;
      if (a.mrope_interleaved) {
        axis = pair < 3 * section[pair % 3] ? pair % 3 : 0;
      } else if (section[0] + section[1] + section[2] > 0) {
        axis = pair < section[0] ? 0 : pair < section[0] + section[1] ? 1 : 2;
      }
      const float* angle = row(a.cos_sin, static_cast<int32_t*>(a.positions.data)[axis * tokens + t]);
      float* first = row(x, t) + head * x.shape[2] + (a.style == TM_ROPE_NEOX ? pair : 2 * pair);
      float* second = first + (a.style == TM_ROPE_NEOX ? pairs : 1);
      const float rotated = *first * angle[pair] - *second * angle[pairs + pair];
      *second = *first * angle[pairs + pair] + *second * angle[pair];
      *first = rotated;
    }
  }
}

OP(kv_write) {
  const auto& step = as<Plan>(a.plan)->step;
  step.for_rows([&](int64_t t, int64_t sequence, int64_t position) {
    float* to = token(a.kv, step.place(sequence, position));
    std::copy_n(row(a.v, t), a.v.shape[1] * a.v.shape[2], std::copy_n(row(a.k, t), a.k.shape[1] * a.k.shape[2], to));
  });
}

OP(attention) {
  const auto& step = as<Plan>(a.plan)->step;
  const tm_kv_spec& s = a.kv.spec;
  const int64_t heads = a.q.shape[1];
  step.for_rows([&](int64_t t, int64_t sequence, int64_t position) {
    const int64_t begin = a.window > 0 ? std::max<int64_t>(0, position - a.window + 1) : 0;
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t kv_head = h * s.num_kv_heads / heads;
      const auto at = [&](int64_t j) { return token(a.kv, step.place(sequence, begin + j)); };
      const auto key = [&](int64_t j) { return at(j) + kv_head * s.head_dim_k; };
      const auto value = [&](int64_t j) { return at(j) + s.num_kv_heads * s.head_dim_k + kv_head * s.head_dim_v; };
      attend(row(a.q, t) + h * s.head_dim_k, position - begin + 1, key, s.head_dim_k, value, s.head_dim_v, a.scale,
             a.softcap, a.sinks.data ? row(a.sinks, 0)[h] : -kInfinity, row(a.out, t) + h * s.head_dim_v);
    }
  });
  for (int64_t t = step.num_tokens(); t < step.padded_tokens(); ++t) {
    std::fill_n(row(a.out, t), heads * s.head_dim_v, 0.0f);
  }
}

OP(attention_dense) {
  const auto& step = as<Plan>(a.plan)->step;
  const int64_t heads = a.q.shape[1], kv_heads = a.k.shape[1], dim_k = a.q.shape[2], dim_v = a.v.shape[2];
  for (int64_t s = 0; s < step.num_seqs(); ++s) {
    const int64_t begin = step.first_row(s), count = step.first_row(s + 1) - begin;
    for (int64_t n = 0; n < count * heads; ++n) {
      const int64_t t = begin + n / heads, h = n % heads, kv_head = h * kv_heads / heads;
      const auto key = [&](int64_t j) { return row(a.k, begin + j) + kv_head * dim_k; };
      const auto value = [&](int64_t j) { return row(a.v, begin + j) + kv_head * dim_v; };
      attend(row(a.q, t) + h * dim_k, count, key, dim_k, value, dim_v, a.scale, 0, -kInfinity,
             row(a.out, t) + h * dim_v);
    }
  }
}

OP(kv_copy_blocks) {
  const int64_t size = token(a.kv, a.kv.spec.block_size) - token(a.kv, 0);
  for (int64_t i = 0; i < a.num_pairs; ++i) {
    std::copy_n(token(a.kv, 0) + a.pairs[2 * i] * size, size, token(a.kv, 0) + a.pairs[2 * i + 1] * size);
  }
}

#define HOST_OP(name) \
  OP(name) { host::name(a); }
HOST_OP(cast)
HOST_OP(gather_rows)
HOST_OP(scatter_rows)
HOST_OP(moe_route)
HOST_OP(moe_permute)
HOST_OP(moe_combine)
HOST_OP(logits_process)
HOST_OP(sample)
HOST_OP(logprobs)

struct Backend {
  static constexpr const char* kName = "example";
  static constexpr const char* kVersion = "1.0.0";
  static std::string probe() { return {}; }
  static int32_t device_count() { return 1; }
  using Context = example::Context;
  using Stream = host::Stream;
  using Event = host::Event;
  using Weight = example::Weight;
  using Plan = example::Plan;
  using Ops = example::Ops;
};

}  // namespace example

TM_EXPORT_BACKEND(example::Backend)
