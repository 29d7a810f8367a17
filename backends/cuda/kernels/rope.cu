// SPDX-License-Identifier: Apache-2.0
//
// rope, kv_write and their fusion with the norms of q and k: a warp per head of a token row. A lane owns rotation
// pairs, both elements of each, and elements past the rotated part, so nothing is exchanged but the sums and maxima of
// a head.
#include "kernels/kv_layout.h"
#include "kernels/launch.cuh"
#include "kernels/rope.h"

namespace turbomind::cuda {
namespace {

constexpr int kWarpsPerBlock = 8;

struct HeadRows {
  void* data;
  int64_t stride;  // elements from row to row
  int32_t heads;   // 0: not given
  int32_t dim;
};

struct Rotation {
  const int32_t* positions;  // [rows] or [3, rows]
  const float* cos_sin;      // [max_position, rotary_dim]
  int64_t rows;
  int64_t max_position;
  int32_t rotary_dim;  // 0: nothing is rotated
  bool interleaved;
  bool interleaved_axes;
  int32_t section[3];  // all 0: one axis
};

struct Args {
  HeadRows q;
  HeadRows k;
  HeadRows v;
  Rotation rotation;
  const float* q_weight;  // nullptr: no norm
  const float* k_weight;
  float eps;
  int64_t rows;
  bool write;  // k and v go to the pool; k is then left as it is
  std::byte* pool;
  KvLayout layout;
  const int32_t* slots;  // [rows]
};

// Elements of one head in a lane's registers: pairs lane * kPairs .., then the rest lane * 2 * kPairs .. of the rotated
// part on.
template <int kPairs>
struct HeadElements {
  float a[kPairs];
  float b[kPairs];
  float rest[2 * kPairs];
};

// Places of a lane's elements inside a head.
template <int kPairs>
struct Places {
  int dim;
  int rotary_dim;
  bool interleaved;
  int lane;

  __device__ int pair(int i) const { return lane * kPairs + i; }
  __device__ bool has_pair(int i) const { return pair(i) < rotary_dim / 2; }
  __device__ int first(int i) const { return interleaved ? 2 * pair(i) : pair(i); }
  __device__ int second(int i) const { return interleaved ? 2 * pair(i) + 1 : pair(i) + rotary_dim / 2; }
  __device__ int rest(int i) const { return rotary_dim + lane * 2 * kPairs + i; }
  __device__ bool has_rest(int i) const { return rest(i) < dim; }
};

// Calls fn(value, place) for each element of the lane.
template <int kPairs, class Fn>
__device__ __forceinline__ void for_elements(HeadElements<kPairs>& x, const Places<kPairs>& places, Fn&& fn) {
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    if (!places.has_pair(i)) continue;
    fn(x.a[i], places.first(i));
    fn(x.b[i], places.second(i));
  }
#pragma unroll
  for (int i = 0; i < 2 * kPairs; ++i) {
    if (places.has_rest(i)) fn(x.rest[i], places.rest(i));
  }
}

__device__ __forceinline__ int axis_of_pair(const Rotation& r, int pair) {
  if (r.interleaved_axes) {
    const int axis = pair % 3;
    return pair < 3 * r.section[axis] ? axis : 0;
  }
  return pair < r.section[0] ? 0 : (pair < r.section[0] + r.section[1] ? 1 : 2);
}

// Padding rows may hold any position: it is kept inside the table.
__device__ __forceinline__ const float* table_row(const Rotation& r, int axis, int64_t row) {
  int64_t position = r.positions[axis * r.rows + row];
  position = position < 0 ? 0 : (position >= r.max_position ? r.max_position - 1 : position);
  return r.cos_sin + position * r.rotary_dim;
}

template <int kPairs>
__device__ __forceinline__ void rotate(HeadElements<kPairs>& x, const Places<kPairs>& places, const Rotation& r,
                                       int64_t row) {
  const bool one_axis = r.section[0] + r.section[1] + r.section[2] == 0;
  const float* table = table_row(r, 0, row);
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    if (!places.has_pair(i)) continue;
    const int pair = places.pair(i);
    if (!one_axis) table = table_row(r, axis_of_pair(r, pair), row);
    const float c = table[pair];
    const float s = table[r.rotary_dim / 2 + pair];
    const float a = x.a[i];
    x.a[i] = a * c - x.b[i] * s;
    x.b[i] = a * s + x.b[i] * c;
  }
}

template <int kPairs>
__device__ __forceinline__ void normalize(HeadElements<kPairs>& x, const Places<kPairs>& places, const float* weight,
                                          float eps) {
  float squares = 0.0f;
  for_elements(x, places, [&](float& value, int) { squares += value * value; });
  const float factor = rsqrtf(warp_sum(squares) / static_cast<float>(places.dim) + eps);
  for_elements(x, places, [&](float& value, int place) { value *= factor * weight[place]; });
}

// Stores a head's keys or values of one token; int8 with the scale that brings the largest magnitude to 127.
template <class KV, int kPairs>
__device__ __forceinline__ void store(HeadElements<kPairs>& x, const Places<kPairs>& places, const KvTile& tile,
                                      std::byte* stored, float* scale, int place) {
  if constexpr (sizeof(KV) == 1) {
    float largest = 0.0f;
    for_elements(x, places, [&](float& value, int) { largest = fmaxf(largest, fabsf(value)); });
    largest = warp_max(largest);
    if (places.lane == 0) *scale = largest / 127.0f;
    for_elements(x, places, [&](float& value, int d) {
      // For values of half precision the product is exact, so ties are: they go to even.
      const float code = largest > 0.0f ? fminf(fmaxf(rintf(value * 127.0f / largest), -127.0f), 127.0f) : 0.0f;
      *reinterpret_cast<int8_t*>(stored + tile.offset(place, d)) = static_cast<int8_t>(code);
    });
  } else {
    for_elements(x, places, [&](float& value, int d) {
      *reinterpret_cast<KV*>(stored + tile.offset(place, d * static_cast<int>(sizeof(KV)))) = from_float<KV>(value);
    });
  }
}

template <class T, int kPairs>
__device__ __forceinline__ T* load_head(const HeadRows& rows, int64_t row, int head, const Places<kPairs>& places,
                                        HeadElements<kPairs>& x) {
  T* data = static_cast<T*>(rows.data) + row * rows.stride + static_cast<int64_t>(head) * rows.dim;
  for_elements(x, places, [&](float& value, int place) { value = to_float(data[place]); });
  return data;
}

// Blocks: (groups of heads, rows). Heads of a row: q's, k's, v's.
template <class T, class KV, int kPairs>
__global__ void __launch_bounds__(kWarpsPerBlock* kWarp) rope_heads(const Args args) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int index = static_cast<int>(blockIdx.x * kWarpsPerBlock + threadIdx.x / kWarp);
  if (index >= args.q.heads + args.k.heads + args.v.heads) return;
  const bool is_q = index < args.q.heads;
  const bool is_v = index >= args.q.heads + args.k.heads;
  const int head = is_q ? index : (is_v ? index - args.q.heads - args.k.heads : index - args.q.heads);
  const HeadRows& rows = is_q ? args.q : (is_v ? args.v : args.k);
  const float* weight = is_q ? args.q_weight : (is_v ? nullptr : args.k_weight);
  const bool rotates = !is_v && args.rotation.rotary_dim > 0;
  const Places<kPairs> places{rows.dim, rotates ? args.rotation.rotary_dim : 0, args.rotation.interleaved, lane};
  for (int64_t row = blockIdx.y; row < args.rows; row += gridDim.y) {
    const int32_t slot = args.write && !is_q ? args.slots[row] : 0;
    if (slot < 0) continue;
    HeadElements<kPairs> x;
    T* data = load_head<T>(rows, row, head, places, x);
    if (weight) normalize(x, places, weight, args.eps);
    if (rotates) rotate(x, places, args.rotation, row);
    if (is_q || !args.write) {
      for_elements(x, places, [&](float& value, int place) { data[place] = from_float<T>(value); });
      continue;
    }
    const KvLayout& layout = args.layout;
    std::byte* stored = args.pool + layout.head(slot / layout.block_size, head);
    float* scales = reinterpret_cast<float*>(stored + layout.scale_offset);
    const int place = slot % layout.block_size;
    if (is_v) {
      store<KV>(x, places, layout.values, stored + layout.value_offset, scales + layout.block_size + place, place);
    } else {
      store<KV>(x, places, layout.keys, stored, scales + place, place);
    }
  }
}

template <class T, class KV>
void launch_heads(cudaStream_t stream, const Args& args) {
  const int heads = args.q.heads + args.k.heads + args.v.heads;
  const int dim = max(max(args.q.heads ? args.q.dim : 0, args.k.heads ? args.k.dim : 0), args.v.heads ? args.v.dim : 0);
  if (args.rows == 0 || heads == 0) return;
  const dim3 grid(static_cast<unsigned>(ceil_div(heads, kWarpsPerBlock)), grid_y(args.rows));
  constexpr int kBlock = kWarpsPerBlock * kWarp;
  if (dim <= 2 * kWarp) {
    launch_kernel("rope", stream, grid, kBlock, 0, rope_heads<T, KV, 1>, args);
  } else if (dim <= 4 * kWarp) {
    launch_kernel("rope", stream, grid, kBlock, 0, rope_heads<T, KV, 2>, args);
  } else if (dim <= 8 * kWarp) {
    launch_kernel("rope", stream, grid, kBlock, 0, rope_heads<T, KV, 4>, args);
  } else {
    launch_kernel("rope", stream, grid, kBlock, 0, rope_heads<T, KV, 8>, args);
  }
}

// ---- whole vectors: 16-bit heads of kDim elements, rotated as a whole in NEOX pairs ----

// A lane owns eight elements of the first half of a head and the eight that they are paired with.
template <class T>
struct HeadVectors {
  float a[8];
  float b[8];
};

template <class T>
__device__ __forceinline__ void unpack(const Pack<T, 8>& pack, float (&x)[8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] = to_float(pack.v[i]);
}

template <class T>
__device__ __forceinline__ Pack<T, 8> packed(const float (&x)[8]) {
  Pack<T, 8> pack;
#pragma unroll
  for (int i = 0; i < 8; ++i) pack.v[i] = from_float<T>(x[i]);
  return pack;
}

__device__ __forceinline__ void load_floats(const float* from, float (&x)[8]) {
  const auto low = *reinterpret_cast<const float4*>(from);
  const auto high = *reinterpret_cast<const float4*>(from + 4);
  x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
  x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
}

template <class T, int kDim>
__device__ __forceinline__ void normalize(HeadVectors<T>& x, const float* weight, float eps, int first) {
  constexpr int kLanes = kDim / 16;
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < 8; ++i) squares += x.a[i] * x.a[i] + x.b[i] * x.b[i];
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) squares += __shfl_xor_sync(~0u, squares, offset);
  if (!weight) return;
  const float factor = rsqrtf(squares / static_cast<float>(kDim) + eps);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    x.a[i] *= factor * weight[first + i];
    x.b[i] *= factor * weight[first + kDim / 2 + i];
  }
}

// A lane's cosines and sines of one row.
struct Angles {
  float c[8];
  float s[8];
};

template <int kDim>
__device__ __forceinline__ void load_angles(const Rotation& r, int64_t row, int first, Angles& angles) {
  if (r.section[0] + r.section[1] + r.section[2] == 0) {
    const float* table = table_row(r, 0, row);
    load_floats(table + first, angles.c);
    load_floats(table + kDim / 2 + first, angles.s);
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float* table = table_row(r, axis_of_pair(r, first + i), row);
    angles.c[i] = table[first + i];
    angles.s[i] = table[kDim / 2 + first + i];
  }
}

template <class T>
__device__ __forceinline__ void rotate(HeadVectors<T>& x, const Angles& angles) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float a = x.a[i];
    x.a[i] = a * angles.c[i] - x.b[i] * angles.s[i];
    x.b[i] = a * angles.s[i] + x.b[i] * angles.c[i];
  }
}

// One of a row's heads: q's, k's, v's.
struct HeadPlace {
  bool is_q;
  bool is_v;
  int head;  // among those of its kind

  __device__ HeadPlace(const Args& args, int index)
      : is_q(index < args.q.heads),
        is_v(index >= args.q.heads + args.k.heads),
        head(is_q ? index : index - args.q.heads - (is_v ? args.k.heads : 0)) {}
  __device__ const HeadRows& rows(const Args& args) const { return is_q ? args.q : (is_v ? args.v : args.k); }
  __device__ const float* norm_weight(const Args& args) const {
    return is_q ? args.q_weight : (is_v ? nullptr : args.k_weight);
  }
};

// Queries go back to where they were, keys and values to their place in the pool.
template <class T, int kDim>
__device__ __forceinline__ void store_vectors(const Args& args, const HeadPlace& place, int32_t slot, int first,
                                              const HeadVectors<T>& x, T* data) {
  if (place.is_q) {
    *reinterpret_cast<Pack<T, 8>*>(data) = packed<T>(x.a);
    *reinterpret_cast<Pack<T, 8>*>(data + kDim / 2) = packed<T>(x.b);
    return;
  }
  if (slot < 0) return;
  const KvLayout& layout = args.layout;
  const KvTile& tile = place.is_v ? layout.values : layout.keys;
  const int row = slot % layout.block_size;
  std::byte* stored =
      args.pool + layout.head(slot / layout.block_size, place.head) + (place.is_v ? layout.value_offset : 0);
  *reinterpret_cast<Pack<T, 8>*>(stored + tile.offset(row, 2 * first)) = packed<T>(x.a);
  *reinterpret_cast<Pack<T, 8>*>(stored + tile.offset(row, 2 * first + kDim)) = packed<T>(x.b);
}

// kDim / 16 lanes per kHeads heads of a token row, rows after rows. Lanes of several heads send for all of them before
// they wait, and look their angles up once; with few rows it is better to have more lanes.
template <class T, int kDim, int kHeads>
__global__ void __launch_bounds__(kWarpsPerBlock* kWarp) rope_vectors(const Args args) {
  constexpr int kLanes = kDim / 16;
  const int heads = args.q.heads + args.k.heads + args.v.heads;
  const int groups = (heads + kHeads - 1) / kHeads;
  const int64_t index = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kLanes;
  const bool inside = index < args.rows * groups;  // every lane of a warp takes part in the sums
  const int64_t row = inside ? index / groups : 0;
  const int first_head = inside ? static_cast<int>(index % groups) * kHeads : heads;
  const int first = static_cast<int>(threadIdx.x) % kLanes * 8;
  const auto data_of = [&](const HeadPlace& place) {
    const HeadRows& rows = place.rows(args);
    return static_cast<T*>(rows.data) + row * rows.stride + static_cast<int64_t>(place.head) * kDim + first;
  };
  Pack<T, 8> a[kHeads] = {};
  Pack<T, 8> b[kHeads] = {};
#pragma unroll
  for (int i = 0; i < kHeads; ++i) {
    if (first_head + i >= heads) continue;
    const T* data = data_of(HeadPlace(args, first_head + i));
    a[i] = *reinterpret_cast<const Pack<T, 8>*>(data);
    b[i] = *reinterpret_cast<const Pack<T, 8>*>(data + kDim / 2);
  }
  Angles angles;
  load_angles<kDim>(args.rotation, row, first, angles);
  const int32_t slot = args.slots[row];
#pragma unroll
  for (int i = 0; i < kHeads; ++i) {
    const HeadPlace place(args, first_head + i);
    HeadVectors<T> x;
    unpack(a[i], x.a);
    unpack(b[i], x.b);
    if (args.q_weight || args.k_weight) normalize<T, kDim>(x, place.norm_weight(args), args.eps, first);
    if (first_head + i >= heads) continue;
    if (!place.is_v) rotate(x, angles);
    store_vectors<T, kDim>(args, place, slot, first, x, data_of(place));
  }
}

bool takes_vectors(const HeadRows& rows, int dim) {
  return rows.heads > 0 && rows.dim == dim && rows.stride % 8 == 0 && aligned_to_vector(rows.data);
}

// Whether the whole call can be done in vectors.
bool takes_vectors(const Args& args, tm_dtype dtype, tm_dtype kv_dtype) {
  const int dim = args.q.dim;
  return (dtype == TM_F16 || dtype == TM_BF16) && kv_dtype == dtype && (dim == 64 || dim == 128 || dim == 256) &&
         args.rotation.rotary_dim == dim && !args.rotation.interleaved && takes_vectors(args.q, dim) &&
         takes_vectors(args.k, dim) && takes_vectors(args.v, dim) && aligned_to_vector(args.rotation.cos_sin) &&
         args.layout.keys.swizzled && args.layout.values.swizzled;
}

template <class T, int kDim>
void launch_vectors(cudaStream_t stream, const Args& args) {
  constexpr int kBlock = kWarpsPerBlock * kWarp;
  constexpr int64_t kManyLanes = int64_t{1} << 18;  // more than the largest GPUs run at a time
  const int heads = args.q.heads + args.k.heads + args.v.heads;
  const auto blocks = [&](int heads_per_lane) {
    const int64_t lanes = args.rows * ceil_div(heads, heads_per_lane) * (kDim / 16);
    return dim3(static_cast<unsigned>(ceil_div<int64_t>(lanes, kBlock)));
  };
  if (args.rows * heads * (kDim / 16) > kManyLanes) {
    launch_kernel("rope", stream, blocks(4), kBlock, 0, rope_vectors<T, kDim, 4>, args);
  } else {
    launch_kernel("rope", stream, blocks(1), kBlock, 0, rope_vectors<T, kDim, 1>, args);
  }
}

template <class T>
void launch_vectors(cudaStream_t stream, const Args& args) {
  if (args.q.dim == 64) return launch_vectors<T, 64>(stream, args);
  if (args.q.dim == 128) return launch_vectors<T, 128>(stream, args);
  launch_vectors<T, 256>(stream, args);
}

// ---- arguments ----

HeadRows head_rows(const tm_tensor& tensor) {
  if (!tensor.data) return {};
  return {tensor.data, tensor.stride[0], static_cast<int32_t>(tensor.shape[1]), static_cast<int32_t>(tensor.shape[2])};
}

Rotation make_rotation(const tm_rope_args& args) {
  Rotation r{};
  r.positions = static_cast<const int32_t*>(args.positions.data);
  r.cos_sin = static_cast<const float*>(args.cos_sin.data);
  r.rows = args.q.shape[0];
  r.max_position = args.cos_sin.shape[0];
  r.rotary_dim = args.rotary_dim;
  r.interleaved = args.style == TM_ROPE_INTERLEAVED;
  r.interleaved_axes = args.mrope_interleaved != 0;
  for (int i = 0; i < 3; ++i) r.section[i] = args.mrope_section[i];
  return r;
}

void add_write(Args& args, const tm_kv_write_args& write, const StepView& step) {
  args.k = head_rows(write.k);
  args.v = head_rows(write.v);
  args.write = true;
  args.pool = static_cast<std::byte*>(write.kv.data);
  args.layout = make_kv_layout(write.kv.spec);
  args.slots = step.row_slot;
}

void launch_write(cudaStream_t stream, const Args& args, tm_dtype dtype, tm_dtype kv_dtype) {
  dispatch_float(dtype, "k", [&](auto zero) {
    using T = decltype(zero);
    if (kv_dtype == TM_I8) return launch_heads<T, int8_t>(stream, args);
    dispatch_float(kv_dtype, "kv", [&](auto stored) { launch_heads<T, decltype(stored)>(stream, args); });
  });
}

}  // namespace

void launch_rope(cudaStream_t stream, const tm_rope_args& rope) {
  Args args{};
  args.q = head_rows(rope.q);
  args.k = head_rows(rope.k);
  args.rotation = make_rotation(rope);
  args.rows = rope.q.shape[0];
  dispatch_float(rope.q.dtype, "q", [&](auto zero) { launch_heads<decltype(zero), float>(stream, args); });
  check_launch("rope");
}

void launch_kv_write(cudaStream_t stream, const tm_kv_write_args& write, const StepView& step) {
  Args args{};
  add_write(args, write, step);
  args.rows = write.k.shape[0];
  launch_write(stream, args, write.k.dtype, write.kv.spec.dtype);
  check_launch("kv_write");
}

void launch_qk_norm_rope_kv_write(cudaStream_t stream, const tm_qk_norm_rope_kv_write_args& fused,
                                  const StepView& step) {
  Args args{};
  add_write(args, fused.kv_write, step);
  args.q = head_rows(fused.rope.q);
  args.rotation = make_rotation(fused.rope);
  args.q_weight = static_cast<const float*>(fused.q_norm_weight.data);
  args.k_weight = static_cast<const float*>(fused.k_norm_weight.data);
  args.eps = fused.norm_eps;
  args.rows = fused.rope.q.shape[0];
  if (args.rows > 0 && takes_vectors(args, fused.rope.q.dtype, fused.kv_write.kv.spec.dtype)) {
    if (fused.rope.q.dtype == TM_F16) return launch_vectors<__half>(stream, args);
    return launch_vectors<__nv_bfloat16>(stream, args);
  }
  launch_write(stream, args, fused.rope.q.dtype, fused.kv_write.kv.spec.dtype);
  check_launch("qk_norm_rope_kv_write");
}

}  // namespace turbomind::cuda
