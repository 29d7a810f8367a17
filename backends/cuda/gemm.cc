// SPDX-License-Identifier: Apache-2.0
#include "gemm.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <string>

#include "cuda_check.h"
#include "turbomind/abi/tm_backend.hpp"

namespace turbomind::cuda {
namespace {

constexpr int64_t kDeterministicRows = 256;  // the shape for which a deterministic kernel is chosen
constexpr int kMaxAlignment = 16;
constexpr int kCandidates = 8;       // kernels that are measured
constexpr int kRounds = 3;           // measurements of each, beside the first
constexpr float kMeasureMs = 25.0f;  // no further round once a shape has cost so much
constexpr float kAsFast = 1.01f;     // on a cool GPU less is chance, and at the power limit often the other way round

void check_blas(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  const tm_status code = status == CUBLAS_STATUS_NOT_SUPPORTED  ? TM_UNSUPPORTED
                         : status == CUBLAS_STATUS_ALLOC_FAILED ? TM_OUT_OF_MEMORY
                                                                : TM_DEVICE_ERROR;
  throw abi::Error(code, std::string(call) + ": " + cublasLtGetStatusString(status));
}

cudaDataType_t data_type(tm_dtype dtype) {
  switch (dtype) {
    case TM_F32:
      return CUDA_R_32F;
    case TM_F16:
      return CUDA_R_16F;
    case TM_BF16:
      return CUDA_R_16BF;
    default:
      throw abi::Error(TM_INVALID_ARGUMENT, "linear: expected float32, float16 or bfloat16, found dtype " +
                                                std::to_string(static_cast<int>(dtype)));
  }
}

int64_t element_bytes(tm_dtype dtype) { return dtype == TM_F32 ? 4 : 2; }

// The largest power of two, up to 16, that divides the address and the bytes of a row.
int alignment_of(const void* data, int64_t row_bytes) {
  const auto bits = reinterpret_cast<uintptr_t>(data) | static_cast<uintptr_t>(row_bytes);
  return static_cast<int>(std::min<uintptr_t>(bits & (~bits + 1), kMaxAlignment));
}

// Numbers of rows that share a choice of kernel: powers of two, and between them three steps, so that tiles fit.
int64_t rows_bucket(int64_t rows) {
  if (rows <= 16) return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(rows)));
  const int64_t step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(rows - 1))) / 4;
  return (rows + step - 1) / step * step;
}

// cuBLASLt thinks in columns: it computes out^T [n, rows] = w [n, k] * x^T.
struct Problem {
  cublasLtMatmulDescOpaque_t desc;
  cublasLtMatrixLayoutOpaque_t w;
  cublasLtMatrixLayoutOpaque_t x;
  cublasLtMatrixLayoutOpaque_t out;

  Problem(const GemmArgs& args, int64_t rows) {
    check_blas(cublasLtMatmulDescInit(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescInit");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    check_blas(cublasLtMatmulDescSetAttribute(&desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
               "cublasLtMatmulDescSetAttribute");
    const cudaDataType_t type = data_type(args.dtype);
    init(w, type, args.k, args.n, args.w_stride);
    init(x, type, args.k, rows, args.x_stride);
    init(out, data_type(args.out_dtype), args.n, rows, args.out_stride);
  }

 private:
  static void init(cublasLtMatrixLayoutOpaque_t& layout, cudaDataType_t type, int64_t rows, int64_t cols, int64_t ld) {
    check_blas(cublasLtMatrixLayoutInit(&layout, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols),
                                        std::max(ld, rows)),
               "cublasLtMatrixLayoutInit");
  }
};

class Preference {
 public:
  Preference() { check_blas(cublasLtMatmulPreferenceInit(&value_), "cublasLtMatmulPreferenceInit"); }

  template <class T>
  void set(cublasLtMatmulPreferenceAttributes_t attribute, T value) {
    check_blas(cublasLtMatmulPreferenceSetAttribute(&value_, attribute, &value, sizeof value),
               "cublasLtMatmulPreferenceSetAttribute");
  }
  cublasLtMatmulPreferenceOpaque_t* get() { return &value_; }

 private:
  cublasLtMatmulPreferenceOpaque_t value_;
};

cublasStatus_t multiply(cublasLtHandle_t handle, cudaStream_t stream, const GemmArgs& args,
                        const cublasLtMatmulAlgo_t& algo) {
  Problem problem(args, args.rows);
  const float one = 1.0f;
  const float zero = 0.0f;
  return cublasLtMatmul(handle, &problem.desc, &one, args.w, &problem.w, args.x, &problem.x, &zero, args.out,
                        &problem.out, args.out, &problem.out, &algo, args.workspace, Gemm::kWorkspaceBytes, stream);
}

}  // namespace

Gemm::Gemm(bool deterministic) : deterministic_(deterministic), begin_(make_timing_event()), end_(make_timing_event()) {
  check_blas(cublasLtCreate(&handle_), "cublasLtCreate");
}

Gemm::~Gemm() { cublasLtDestroy(handle_); }

Gemm::Key Gemm::key_of(const GemmArgs& args) const {
  // A single row may come with any stride: what matters is the address. But it must meet the kernel of many rows.
  const bool strided = args.rows > 1 || deterministic_;
  const int64_t x_row = strided ? args.x_stride * element_bytes(args.dtype) : 0;
  const int64_t out_row = strided ? args.out_stride * element_bytes(args.out_dtype) : 0;
  return {.rows = deterministic_ ? kDeterministicRows : rows_bucket(args.rows),
          .n = args.n,
          .k = args.k,
          .x_alignment = alignment_of(args.x, x_row),
          .w_alignment = alignment_of(args.w, args.w_stride * element_bytes(args.dtype)),
          .out_alignment = alignment_of(args.out, out_row),
          .dtype = args.dtype,
          .out_dtype = args.out_dtype};
}

std::vector<cublasLtMatmulAlgo_t> Gemm::candidates(const GemmArgs& args, const Key& key) const {
  Problem problem(args, key.rows);
  Preference preference;
  preference.set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes});
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(key.w_alignment));
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(key.x_alignment));
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(key.out_alignment));
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(key.out_alignment));
  if (deterministic_) {
    preference.set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE));
  }
  cublasLtMatmulHeuristicResult_t results[kCandidates]{};
  int found = 0;
  check_blas(cublasLtMatmulAlgoGetHeuristic(handle_, &problem.desc, &problem.w, &problem.x, &problem.out, &problem.out,
                                            preference.get(), kCandidates, results, &found),
             "cublasLtMatmulAlgoGetHeuristic");
  if (found == 0) check_blas(CUBLAS_STATUS_NOT_SUPPORTED, "cublasLtMatmulAlgoGetHeuristic");
  std::vector<cublasLtMatmulAlgo_t> algos;
  for (int i = 0; i < found; ++i) algos.push_back(results[i].algo);
  return algos;
}

float Gemm::milliseconds(cudaStream_t stream, const GemmArgs& args, const cublasLtMatmulAlgo_t& algo) const {
  // What the last product left in the caches would help the next one, and does not when a model runs.
  check_cuda(cudaMemsetAsync(args.workspace, 0, kWorkspaceBytes, stream), "cudaMemsetAsync");
  check_cuda(cudaEventRecord(begin_.get(), stream), "cudaEventRecord");
  const cublasStatus_t status = multiply(handle_, stream, args, algo);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) {
    return std::numeric_limits<float>::infinity();
  }
  check_blas(status, "cublasLtMatmul");
  check_cuda(cudaEventRecord(end_.get(), stream), "cudaEventRecord");
  check_cuda(cudaEventSynchronize(end_.get()), "cudaEventSynchronize");
  float elapsed = 0.0f;
  check_cuda(cudaEventElapsedTime(&elapsed, begin_.get(), end_.get()), "cudaEventElapsedTime");
  return elapsed;
}

cublasLtMatmulAlgo_t Gemm::measure(cudaStream_t stream, const GemmArgs& args,
                                   const std::vector<cublasLtMatmulAlgo_t>& candidates) const {
  std::vector<float> best;
  float spent = 0.0f;
  for (int round = 0; round <= kRounds && spent < kMeasureMs; ++round) {
    std::vector<float> times;
    for (const cublasLtMatmulAlgo_t& algo : candidates) {
      times.push_back(milliseconds(stream, args, algo));
      if (times.back() < std::numeric_limits<float>::infinity()) spent += times.back();
    }
    if (round <= 1) {
      best = times;  // the first run of a kernel also loads it
      continue;
    }
    for (size_t i = 0; i < times.size(); ++i) best[i] = std::min(best[i], times[i]);
  }
  // Of those that are as fast, the one that cuBLASLt ranks first.
  const float bound = *std::min_element(best.begin(), best.end()) * kAsFast;
  const auto chosen = std::find_if(best.begin(), best.end(), [=](float time) { return time <= bound; });
  return candidates[static_cast<size_t>(chosen - best.begin())];
}

cublasLtMatmulAlgo_t Gemm::choice(cudaStream_t stream, const GemmArgs& args) {
  const Key key = key_of(args);
  const std::lock_guard lock(mutex_);
  const auto found = choices_.find(key);
  if (found != choices_.end()) return found->second;
  const std::vector<cublasLtMatmulAlgo_t> algos = candidates(args, key);
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(stream, &capture), "cudaStreamIsCapturing");
  if (capture != cudaStreamCaptureStatusNone) return algos.front();  // nothing can be measured now
  const cublasLtMatmulAlgo_t algo = deterministic_ || algos.size() == 1 ? algos.front() : measure(stream, args, algos);
  choices_.emplace(key, algo);
  return algo;
}

void Gemm::run(cudaStream_t stream, const GemmArgs& args) {
  if (args.rows == 0) return;
  const cublasLtMatmulAlgo_t algo = choice(stream, args);
  check_blas(multiply(handle_, stream, args, algo), "cublasLtMatmul");
}

}  // namespace turbomind::cuda
