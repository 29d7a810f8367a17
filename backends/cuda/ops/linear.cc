// SPDX-License-Identifier: Apache-2.0
#include "kernels/linear.h"

#include "gemm.h"
#include "kernels/elementwise.h"
#include "ops.h"
#include "ops/tensor_args.h"
#include "ops/workspace.h"
#include "weight.h"

namespace turbomind::cuda {
namespace {

constexpr int64_t kVectorElements = 8;  // 16 bytes of a 16-bit dtype

int64_t element_bytes(tm_dtype dtype) { return dtype == TM_F32 ? 4 : 2; }

const Weight& weight_arg(const tm_weight* handle, const tm_tensor& x, const char* argument) {
  require(handle != nullptr, argument, "a weight");
  const Weight& weight = *abi::as<const Weight>(handle);
  require_matrix(x, weight.dtype(), "x");
  require(x.shape[1] == weight.cols(), "x",
          std::to_string(weight.cols()) + " columns, found " + std::to_string(x.shape[1]));
  return weight;
}

LinearShape shape_of(const tm_tensor& x, const Weight& weight, const tm_tensor& out) {
  return {.rows = x.shape[0],
          .n = weight.rows(),
          .k = weight.cols(),
          .x_stride = x.stride[0],
          .w_stride = weight.stride(),
          .out_stride = out.stride[0]};
}

bool is_vector_aligned(const tm_tensor& x) {
  return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && (x.shape[0] == 1 || x.stride[0] % kVectorElements == 0);
}

bool is_narrow(const Context& context, const tm_tensor& x, const Weight& weight) {
  return !context.deterministic() && weight.dtype() != TM_F32 && x.shape[0] <= kMaxNarrowRows &&
         weight.cols() % kVectorElements == 0 && is_vector_aligned(x);
}

// Whether both products and the activation are one kernel of sm_90.
bool is_wide_gated(const Context& context, const tm_linear_gated_activation_args& args, const Weight& gate) {
  return context.architecture() == 90 && !context.deterministic() && gate.dtype() != TM_F32 &&
         args.x.shape[0] >= kMinWideRows && gate.rows() % kVectorElements == 0 && is_vector_aligned(args.x) &&
         is_vector_aligned(args.out) && !args.gate_bias.data && !args.up_bias.data &&
         (args.kind == TM_ACTIVATION_SILU || args.kind == TM_ACTIVATION_GELU_TANH);
}

struct GatedScratch {
  void* gemm;
  tm_tensor gate;
};

GatedScratch take_gated_scratch(WorkspaceArena& arena, const tm_linear_gated_activation_args& args) {
  GatedScratch scratch{arena.take<std::byte>(static_cast<int64_t>(Gemm::kWorkspaceBytes)), args.out};
  const int64_t width = (args.out.shape[1] + kVectorElements - 1) / kVectorElements * kVectorElements;
  scratch.gate.data = arena.take<std::byte>(args.out.shape[0] * width * element_bytes(args.out.dtype));
  scratch.gate.stride[0] = width;
  return scratch;
}

struct Product {
  const tm_tensor& x;
  const Weight& weight;
  const tm_tensor& out;
  Epilogue epilogue;
  void* scratch;  // Gemm::kWorkspaceBytes
};

void run(Stream& stream, const Product& p) {
  const LinearShape shape = shape_of(p.x, p.weight, p.out);
  if (shape.rows == 0) return;
  if (is_narrow(stream.context(), p.x, p.weight)) {
    return launch_narrow_linear(stream.handle(), shape, p.x.data, p.weight.data(), p.out.data, p.x.dtype, p.out.dtype,
                                p.epilogue, stream.context().num_sms());
  }
  stream.context().gemm().run(stream.handle(), {.x = p.x.data,
                                                .w = p.weight.data(),
                                                .out = p.out.data,
                                                .rows = shape.rows,
                                                .n = shape.n,
                                                .k = shape.k,
                                                .x_stride = shape.x_stride,
                                                .w_stride = shape.w_stride,
                                                .out_stride = shape.out_stride,
                                                .dtype = p.x.dtype,
                                                .out_dtype = p.out.dtype,
                                                .workspace = p.scratch});
  if (!p.epilogue.bias && p.epilogue.activation == TM_ACTIVATION_NONE) return;
  launch_linear_epilogue(stream.handle(), p.out.data, p.out.dtype, shape.rows, shape.n, shape.out_stride, p.epilogue);
}

}  // namespace

void CudaOps::linear(Stream& stream, const tm_linear_args& args, const tm_workspace& workspace) {
  require(args.num_weights >= 1 && args.num_weights <= TM_MAX_FUSED_WEIGHTS, "num_weights",
          "at least 1 and at most " + std::to_string(TM_MAX_FUSED_WEIGHTS));
  WorkspaceArena arena(workspace);
  void* scratch = arena.take<std::byte>(Gemm::kWorkspaceBytes);
  for (int32_t i = 0; i < args.num_weights; ++i) {
    const Weight& weight = weight_arg(args.weight[i], args.x, "weight");
    const tm_tensor& out = args.out[i];
    require_matrix(out, out.dtype == TM_F32 ? TM_F32 : args.x.dtype, "out");
    require(out.shape[0] == args.x.shape[0] && out.shape[1] == weight.rows(), "out",
            std::to_string(args.x.shape[0]) + " rows of " + std::to_string(weight.rows()));
    require_vector(args.bias[i], TM_F32, "bias");
    run(stream, {.x = args.x,
                 .weight = weight,
                 .out = out,
                 .epilogue = {static_cast<const float*>(args.bias[i].data), args.activation},
                 .scratch = scratch});
  }
}

// The gate's product goes to scratch memory, the up's to where the result will be.
void CudaOps::linear_gated_activation(Stream& stream, const tm_linear_gated_activation_args& args,
                                      const tm_workspace& workspace) {
  const Weight& gate = weight_arg(args.gate, args.x, "gate");
  const Weight& up = weight_arg(args.up, args.x, "up");
  require_matrix(args.out, args.x.dtype, "out");
  require(args.out.shape[0] == args.x.shape[0] && args.out.shape[1] == gate.rows() && up.rows() == gate.rows(), "out",
          std::to_string(args.x.shape[0]) + " rows of " + std::to_string(gate.rows()));
  require_vector(args.gate_bias, TM_F32, "gate_bias");
  require_vector(args.up_bias, TM_F32, "up_bias");
  const auto* gate_bias = static_cast<const float*>(args.gate_bias.data);
  const auto* up_bias = static_cast<const float*>(args.up_bias.data);
  if (args.out.shape[0] == 0) return;
  if (is_narrow(stream.context(), args.x, gate)) {
    return launch_narrow_gated_linear(stream.handle(), shape_of(args.x, gate, args.out), args.x.data,
                                      {gate.data(), up.data(), gate_bias, up_bias}, args.out.data, args.x.dtype,
                                      args.kind, stream.context().num_sms());
  }
  if (is_wide_gated(stream.context(), args, gate)) {
    return launch_wide_gated_linear(stream.handle(), shape_of(args.x, gate, args.out), args.x.data,
                                    {gate.data(), up.data(), nullptr, nullptr}, args.out.data, args.x.dtype, args.kind,
                                    stream.context().num_sms());
  }
  WorkspaceArena arena(workspace);
  const GatedScratch scratch = take_gated_scratch(arena, args);
  run(stream, {.x = args.x,
               .weight = gate,
               .out = scratch.gate,
               .epilogue = {gate_bias, TM_ACTIVATION_NONE},
               .scratch = scratch.gemm});
  run(stream,
      {.x = args.x, .weight = up, .out = args.out, .epilogue = {up_bias, TM_ACTIVATION_NONE}, .scratch = scratch.gemm});
  launch_gated_activation(stream.handle(), {.gate = scratch.gate, .up = args.out, .kind = args.kind, .out = args.out});
}

size_t CudaOps::linear_gated_activation_workspace(Context&, const tm_linear_gated_activation_args& args) {
  WorkspaceArena arena;
  take_gated_scratch(arena, args);
  return arena.used();
}

size_t CudaOps::linear_workspace(Context&, const tm_linear_args&) { return Gemm::kWorkspaceBytes; }

void CudaOps::grouped_linear(Stream& stream, const tm_grouped_linear_args& args, const tm_workspace&) {
  const Weight& weight = weight_arg(args.weight, args.x, "weight");
  require_matrix(args.out, args.x.dtype, "out");
  require(args.out.shape[1] == weight.rows(), "out",
          std::to_string(weight.rows()) + " columns, found " + std::to_string(args.out.shape[1]));
  require(args.expert_offsets.shape[0] == weight.num_experts() + 1, "expert_offsets",
          std::to_string(weight.num_experts() + 1) + " numbers, found " + std::to_string(args.expert_offsets.shape[0]));
  require_vector(args.expert_offsets, TM_I32, "expert_offsets");
  launch_grouped_linear(stream.handle(), shape_of(args.x, weight, args.out), args.x.data, weight.data(), args.out.data,
                        args.x.dtype, static_cast<const int32_t*>(args.expert_offsets.data), weight.num_experts());
}

}  // namespace turbomind::cuda
