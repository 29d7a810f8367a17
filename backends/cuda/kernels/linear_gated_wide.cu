// SPDX-License-Identifier: Apache-2.0
//
// Many rows of out = activation(x * gate^T) * (x * up^T) on the tensor cores of sm_90a, so that neither product is
// written. A block multiplies 128 rows with 128 rows of each weight: a warp drives the copy engine, two warpgroups of
// 64 rows hold both products in registers. Two blocks make a cluster of 256 rows; one brings the gate's rows for both,
// the other the up's.
#include <cudaTypedefs.h>

#include <algorithm>

#include "kernels/activation.cuh"
#include "kernels/common.cuh"
#include "kernels/linear.h"
#include "kernels/mma.cuh"
#include "kernels/wgmma.cuh"

namespace turbomind::cuda {
namespace {

constexpr int kClusterBlocks = 2;
constexpr int kGroups = 2;      // warpgroups that multiply
constexpr int kGroupRows = 64;  // rows of x of a warpgroup
constexpr int kBlockRows = kGroups * kGroupRows;
constexpr int kCols = 128;  // of out, of a block
constexpr int kDepth = 64;  // of k at a time: 128 bytes of every row
constexpr int kStages = 4;
constexpr int kThreads = (1 + kGroups) * kWarpgroup;
constexpr int kPanelBytes = kDepth * 2;
constexpr int kRowBytes = kBlockRows * kPanelBytes;  // of x in a stage
constexpr int kColBytes = kCols * kPanelBytes;       // of one weight in a stage

struct Shared {
  alignas(kSwizzleAtomBytes) std::byte x[kStages][kRowBytes];
  alignas(kSwizzleAtomBytes) std::byte w[kStages][2 * kColBytes];  // gate, up
  alignas(kSwizzleAtomBytes) std::byte out[kBlockRows * kCols * 2];
  Barrier full[kStages];
  Barrier empty[kStages];
};

struct Call {
  void* out;
  int64_t out_stride;
  int rows;
  int n;
  int steps;  // of kDepth
  int row_tiles;
  int col_tiles;
};

#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define TM_CLUSTER  // other GPUs get an empty kernel
#else
#define TM_CLUSTER __cluster_dims__(kClusterBlocks, 1, 1)

constexpr int kRowsAhead = 8;  // clusters one below the other that run before the next column, for the L2's sake
constexpr int kReleases = kClusterBlocks * kGroups * kWarpgroup / kWarp;

struct Tile {
  int row;
  int col;
};

__device__ __forceinline__ int block_of_cluster() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
  return static_cast<int>(rank);
}

// Tiles of a cluster in turn; false: there are no more.
class Order {
 public:
  __device__ explicit Order(const Call& call) : row_tiles_(call.row_tiles), col_tiles_(call.col_tiles) {}

  __device__ bool next(Tile& tile) {
    const int clusters = static_cast<int>(gridDim.x) / kClusterBlocks;
    const int index = static_cast<int>(blockIdx.x) / kClusterBlocks + round_++ * clusters;
    if (index >= row_tiles_ * col_tiles_) return false;
    const int strip = index / (kRowsAhead * col_tiles_);
    const int in_strip = index - strip * kRowsAhead * col_tiles_;
    const int height = min(kRowsAhead, row_tiles_ - strip * kRowsAhead);
    tile.row = ((strip * kRowsAhead + in_strip % height) * kClusterBlocks + block_of_cluster()) * kBlockRows;
    tile.col = in_strip / height * kCols;
    return true;
  }

 private:
  const int row_tiles_;
  const int col_tiles_;
  int round_ = 0;
};

// A box of a matrix to shared memory; with several blocks of the cluster in `blocks` to the same place in each.
__device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap& map, int col, int row, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];\n" ::"r"(
          to),
      "l"(&map), "r"(col), "r"(row), "r"(barrier)
      : "memory");
}
__device__ __forceinline__ void copy_box_to_all(uint32_t to, const CUtensorMap& map, int col, int row,
                                                uint32_t barrier) {
  constexpr uint16_t kAll = (1 << kClusterBlocks) - 1;
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%2, %3}], [%4], %5;\n" ::"r"(to),
      "l"(&map), "r"(col), "r"(row), "r"(barrier), "h"(kAll)
      : "memory");
}

// Arrives at the barrier's twin in a block of the cluster.
__device__ __forceinline__ void arrive_at(uint32_t barrier, int block) {
  asm volatile(
      "{\n.reg .b32 twin;\nmapa.shared::cluster.u32 twin, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [twin];\n}\n" ::"r"(barrier),
      "r"(block)
      : "memory");
}

__device__ __forceinline__ void sync_cluster() {
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;\n" ::: "memory");
}

__device__ void bring(const CUtensorMap& x, const CUtensorMap& weight, const Call& call, Shared& shared) {
  Order order(call);
  Tile tile;
  Ring<kStages> ring;
  const int block = block_of_cluster();
  while (order.next(tile)) {
    for (int step = 0; step < call.steps; ++step) {
      const int k = step * kDepth;
      shared.empty[ring.stage].wait(ring.parity ^ 1);
      Barrier& full = shared.full[ring.stage];
      full.arrive_and_expect(kRowBytes + 2 * kColBytes);
      copy_box(shared_address(shared.x[ring.stage]), x, k, tile.row, shared_address(&full));
      copy_box_to_all(shared_address(shared.w[ring.stage]) + block * kColBytes, weight, k, tile.col,
                      shared_address(&full));
      ring.next();
    }
  }
}

template <class T, tm_activation_kind kKind>
class GatedMultiplier {
 public:
  __device__ GatedMultiplier(const Call& call, Shared& shared)
      : call_(call),
        shared_(shared),
        group_(static_cast<int>(uniform(threadIdx.x / kWarpgroup)) - 1),
        warp_(static_cast<int>(threadIdx.x) % kWarpgroup / kWarp),
        lane_(static_cast<int>(threadIdx.x) % kWarp) {}

  __device__ void run(const Tile& tile) {
    int last = 0;
    for (int step = 0; step < call_.steps; ++step) {
      shared_.full[ring_.stage].wait(ring_.parity);
      issue(step > 0);
      if (step > 0) {
        wait_products<1>();
        release(last);
      }
      last = ring_.stage;
      ring_.next();
    }
    wait_products<0>();
    pin_registers(sums_);
    release(last);
    store(tile);
  }

 private:
  __device__ void issue(int accumulate) {
    const uint64_t a =
        operand(uniform(shared_address(shared_.x[ring_.stage])) + group_ * kGroupRows * kPanelBytes, kPanelBytes);
    const uint64_t b = operand(uniform(shared_address(shared_.w[ring_.stage])), kPanelBytes);
    pin_registers(sums_);
    fence_products();
#pragma unroll
    for (int k = 0; k < kDepth / 16; ++k) {
      multiply_shared<T>(sums_, operand_at(a, k * 32), operand_at(b, k * 32), k > 0 ? 1 : accumulate);
    }
    commit_products();
  }

  // An arrival of each warp in each block: both blocks bring what all of them read.
  __device__ void release(int stage) {
    if (lane_ < kClusterBlocks) arrive_at(shared_address(&shared_.empty[stage]), lane_);
  }

  static __device__ __forceinline__ float activated(float x) {
    if constexpr (kKind == TM_ACTIVATION_SILU) return __fdividef(x, 1.0f + __expf(-x));
    return activate(kKind, x);
  }

  // Through shared memory, so that whole rows leave at once; a warp's rows are its own.
  __device__ void store(const Tile& tile) {
    constexpr int kChunks = kCols / 8;
    constexpr int kWarpRows = 16;
    std::byte* staging = shared_.out + (group_ * (kWarpgroup / kWarp) + warp_) * kWarpRows * kCols * 2;
    __syncwarp();
#pragma unroll
    for (int j = 0; j < kCols / 2; j += 2) {
      const int row = lane_ / 4 + (j / 2 % 2) * 8;
      const uint32_t at = SharedTile<kWarpRows>::offset(row, j / 4) + static_cast<uint32_t>(lane_ % 4) * 4;
      const float first = activated(sums_[j]) * sums_[kCols / 2 + j];
      const float second = activated(sums_[j + 1]) * sums_[kCols / 2 + j + 1];
      *reinterpret_cast<uint32_t*>(staging + at) = pack_pair<T>(first, second);
    }
    __syncwarp();
    T* out = static_cast<T*>(call_.out);
#pragma unroll
    for (int i = lane_; i < kWarpRows * kChunks; i += kWarp) {
      const int local = i / kChunks;
      const int chunk = i % kChunks;
      const int row = tile.row + group_ * kGroupRows + warp_ * kWarpRows + local;
      const int col = tile.col + chunk * 8;
      if (row >= call_.rows || col >= call_.n) continue;
      const auto value = *reinterpret_cast<const uint4*>(staging + SharedTile<kWarpRows>::offset(local, chunk));
      *reinterpret_cast<uint4*>(out + row * call_.out_stride + col) = value;
    }
  }

  const Call& call_;
  Shared& shared_;
  const int group_;
  const int warp_;
  const int lane_;
  Ring<kStages> ring_;
  float sums_[kCols];  // 64 rows by kCols of each weight over 128 threads: gate, then up
};

#endif

template <class T, tm_activation_kind kKind>
__global__ void TM_CLUSTER __launch_bounds__(kThreads, 1)
    multiply_gated(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap gate,
                   const __grid_constant__ CUtensorMap up, const __grid_constant__ Call call) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(kSwizzleAtomBytes) std::byte dynamic[];
  auto& shared = *reinterpret_cast<Shared*>(dynamic);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      shared.full[i].init(1);
      shared.empty[i].init(kReleases);
    }
    fence_barriers();
  }
  sync_cluster();
  if (threadIdx.x < kWarpgroup) {
    give_registers<40>();
    if (threadIdx.x == 0) bring(x, block_of_cluster() == 0 ? gate : up, call, shared);
  } else {
    take_registers<232>();
    GatedMultiplier<T, kKind> multiplier(call, shared);
    Order order(call);
    Tile tile;
    while (order.next(tile)) multiplier.run(tile);
  }
  __syncwarp();
  sync_cluster();  // no block leaves while another may still write to it
#endif
}

PFN_cuTensorMapEncodeTiled_v12000 map_encoder() {
  static const auto encoder = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
               "cudaGetDriverEntryPointByVersion");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  return encoder;
}

// [rows, k] of a 16-bit dtype in boxes of kDepth by box_rows, as tensor cores read them.
CUtensorMap make_map(const void* data, tm_dtype dtype, int64_t rows, int64_t k, int64_t stride, uint32_t box_rows) {
  CUtensorMap map;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(k), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride) * 2};
  const cuuint32_t box[2] = {kDepth, box_rows};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result =
      map_encoder()(&map, dtype == TM_F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2,
                    const_cast<void*>(data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                    CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw abi::Error(TM_DEVICE_ERROR, "cuTensorMapEncodeTiled: error " + std::to_string(static_cast<int>(result)));
  }
  return map;
}

template <class T, tm_activation_kind kKind>
void launch(cudaStream_t stream, const LinearShape& shape, const void* x, const GatedWeights& w, void* out,
            tm_dtype dtype, int num_sms) {
  constexpr auto kKernel = multiply_gated<T, kKind>;
  constexpr int kBytes = static_cast<int>(sizeof(Shared));
  check_cuda(cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
             "cudaFuncSetAttribute");
  const auto tiles = [](int64_t size, int64_t tile) { return static_cast<int>(ceil_div(size, tile)); };
  const Call call{.out = out,
                  .out_stride = shape.out_stride,
                  .rows = static_cast<int>(shape.rows),
                  .n = static_cast<int>(shape.n),
                  .steps = tiles(shape.k, kDepth),
                  .row_tiles = tiles(shape.rows, kClusterBlocks * kBlockRows),
                  .col_tiles = tiles(shape.n, kCols)};
  const auto clusters = static_cast<unsigned>(std::min(call.row_tiles * call.col_tiles, num_sms / kClusterBlocks));
  kKernel<<<clusters * kClusterBlocks, kThreads, kBytes, stream>>>(
      make_map(x, dtype, shape.rows, shape.k, shape.x_stride, kBlockRows),
      make_map(w.gate, dtype, shape.n, shape.k, shape.w_stride, kCols),
      make_map(w.up, dtype, shape.n, shape.k, shape.w_stride, kCols), call);
  check_launch("linear_gated_activation");
}

template <class T>
void launch_kind(cudaStream_t stream, const LinearShape& shape, const void* x, const GatedWeights& w, void* out,
                 tm_dtype dtype, tm_activation_kind kind, int num_sms) {
  if (kind == TM_ACTIVATION_SILU) {
    launch<T, TM_ACTIVATION_SILU>(stream, shape, x, w, out, dtype, num_sms);
  } else {
    launch<T, TM_ACTIVATION_GELU_TANH>(stream, shape, x, w, out, dtype, num_sms);
  }
}

}  // namespace

void launch_wide_gated_linear(cudaStream_t stream, const LinearShape& shape, const void* x, const GatedWeights& w,
                              void* out, tm_dtype dtype, tm_activation_kind kind, int num_sms) {
  if (dtype == TM_F16) {
    launch_kind<__half>(stream, shape, x, w, out, dtype, kind, num_sms);
  } else {
    launch_kind<__nv_bfloat16>(stream, shape, x, w, out, dtype, kind, num_sms);
  }
}

}  // namespace turbomind::cuda
