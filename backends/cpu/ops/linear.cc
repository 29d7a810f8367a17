// SPDX-License-Identifier: Apache-2.0
//
// linear, grouped_linear and linear_gated_activation: the activations are brought into tiles once per call, then every
// thread takes rectangles of panels x tokens.
#include <algorithm>

#include "ops.h"
#include "ops/tensor_args.h"
#include "ops/workspace.h"
#include "weights/weight.h"

namespace turbomind::cpu {
namespace {

constexpr int64_t kSerialPrepareElements = 16384;  // activations to prepare before threads pay
constexpr int64_t kTasksPerThread = 8;
constexpr int64_t kMinTaskPanels = 4;
constexpr int64_t kManyRows = 64;  // from here on a task is long: more and narrower ones end the threads together
constexpr int64_t kTaskActivationBytes = 640 << 10;  // of one task, so that they stay in L2 while panels pass

// One pass over a weight. The second stage of a gated output multiplies into what the first one stored.
struct Stage {
  Panels panels;
  bool int8;
  bool bf16;
  const float* bias;
  tm_activation_kind activation;
  bool multiply;
};

struct Output {
  Stage stages[2];
  int num_stages;
  float* data;  // [rows, panels.rows]
  int64_t stride;
};

// Activations of the call in the forms its weights want, and float32 scratch for each thread.
struct Scratch {
  int32_t* words;     // int8 tiles; nullptr: no weight needs them
  int32_t* outliers;  // what they leave out
  float* floats;      // float32 tiles; likewise
  uint16_t* halves;   // bfloat16 tiles; likewise
  float* threads;     // [num_threads, thread_floats]
  int64_t thread_floats;
};

// The forms of activations that the weights of a call want.
struct Forms {
  bool int8 = false;
  bool bf16 = false;
  bool f32 = false;

  void add(const Weight& weight) {
    int8 |= weight.uses_int8();
    bf16 |= weight.uses_bf16();
    f32 |= !weight.uses_int8() && !weight.uses_bf16();
  }
};

Scratch take_scratch(WorkspaceArena& arena, Context& context, int64_t rows, int64_t cols, const Forms& forms) {
  Scratch scratch{};
  if (forms.bf16) scratch.halves = arena.take<uint16_t>(rows * bf16_cols(cols));
  if (forms.int8) {
    scratch.words = arena.take<int32_t>(rows * activation_words_per_token(cols));
    scratch.outliers = arena.take<int32_t>(rows * outlier_words_per_token(cols));
    scratch.thread_floats = outlier_scratch_floats(cols);
  }
  if (forms.f32) {
    scratch.floats = arena.take<float>(rows * cols);
    scratch.thread_floats = std::max(scratch.thread_floats, kExpandedScratchFloats);
  }
  scratch.threads = arena.take<float>(context.pool().num_threads() * scratch.thread_floats);
  return scratch;
}

TokenTiles make_tiles(int64_t first_row, int64_t rows, int max_tokens) {
  return {first_row, rows, (rows + max_tokens - 1) / max_tokens};
}

// Token rows that meet the same matrix.
struct Segment {
  TokenTiles int8_tiles;
  TokenTiles f32_tiles;
  TokenTiles bf16_tiles;
};

Segment make_segment(const KernelTable& kernels, int64_t first_row, int64_t rows) {
  return {make_tiles(first_row, rows, kernels.linear_int8.max_tile_tokens),
          make_tiles(first_row, rows, kernels.linear_expanded.max_tile_tokens),
          kernels.linear_bf16.run ? make_tiles(first_row, rows, kernels.linear_bf16.max_tile_tokens) : TokenTiles{}};
}

void prepare_tile(const KernelTable& kernels, const Matrix<float>& x, const Segment& segment, int64_t tile,
                  const Scratch& scratch) {
  if (scratch.words && tile < segment.int8_tiles.count) {
    const int64_t row = segment.int8_tiles.begin(tile);
    kernels.quantize.quantize_tile(x.row(row), x.stride, segment.int8_tiles.tokens(tile), x.cols,
                                   scratch.words + row * activation_words_per_token(x.cols),
                                   scratch.outliers + row * outlier_words_per_token(x.cols));
  }
  if (scratch.floats && tile < segment.f32_tiles.count) {
    const int64_t row = segment.f32_tiles.begin(tile);
    kernels.quantize.transpose_tile(x.row(row), x.stride, segment.f32_tiles.tokens(tile), x.cols,
                                    scratch.floats + row * x.cols);
  }
  if (scratch.halves && tile < segment.bf16_tiles.count) {
    const int64_t row = segment.bf16_tiles.begin(tile);
    kernels.linear_bf16.round_tile(x.row(row), x.stride, segment.bf16_tiles.tokens(tile), x.cols,
                                   scratch.halves + row * bf16_cols(x.cols));
  }
}

int64_t num_tiles(const Segment& segment, const Scratch& scratch) {
  const int64_t tiles = std::max(segment.int8_tiles.count, segment.f32_tiles.count);
  return scratch.halves ? std::max(tiles, segment.bf16_tiles.count) : tiles;
}

void prepare_segment(Stream& stream, const Matrix<float>& x, const Segment& segment, const Scratch& scratch) {
  const int64_t tiles = num_tiles(segment, scratch);
  const auto prepare = [&](int64_t tile) { prepare_tile(stream.kernels(), x, segment, tile, scratch); };
  if (x.rows * x.cols < kSerialPrepareElements) {
    for (int64_t tile = 0; tile < tiles; ++tile) prepare(tile);
  } else {
    stream.pool().parallel_for(tiles, prepare);
  }
}

// How the outputs of a call are cut into tasks: token chunks x panel chunks of each output.
struct Cut {
  int64_t token_chunks;
  int64_t chunk_panels;

  int64_t panel_chunks(const Output& output) const {
    return (output.stages[0].panels.count() + chunk_panels - 1) / chunk_panels;
  }
};

Cut make_cut(int num_threads, const Output* outputs, int num_outputs, int64_t rows) {
  int64_t panels = 0;
  for (int i = 0; i < num_outputs; ++i) panels += outputs[i].stages[0].panels.count();
  const bool many = rows >= kManyRows;
  const int64_t wanted = (many ? 2 : 1) * kTasksPerThread * num_threads;
  const int64_t min_panels = many ? kMinTaskPanels / 2 : kMinTaskPanels;
  const int64_t chunk_panels = round_up(std::max((panels + wanted - 1) / wanted, min_panels), min_panels);
  const int64_t row_bytes = activation_words_per_token(outputs[0].stages[0].panels.cols) * sizeof(int32_t);
  const int64_t for_cache = (rows * row_bytes + kTaskActivationBytes - 1) / kTaskActivationBytes;
  const int64_t for_threads = (wanted + panels / chunk_panels) / (panels / chunk_panels + 1) - 1;
  return {std::max<int64_t>(1, std::max(for_cache, std::min(for_threads, rows / 64))), chunk_panels};
}

LinearFn linear_kernel(const KernelTable& kernels, const Stage& stage, int64_t num_tiles) {
  const int format = static_cast<int>(stage.panels.format);
  if (stage.bf16) return kernels.linear_bf16.run;
  if (stage.int8) return kernels.linear_int8.run[format];
  const int min_tiles = kernels.linear_expanded.min_float_tiles;
  const bool expands = is_quantized(stage.panels.format) || (min_tiles > 0 && num_tiles >= min_tiles);
  return expands ? kernels.linear_expanded.run[format] : kernels.linear_float.run[format];
}

void run_task(const KernelTable& kernels, const Output& output, const Segment& segment, const Scratch& scratch,
              const Cut& cut, int64_t token_chunk, int64_t panel_chunk, int thread) {
  for (int i = 0; i < output.num_stages; ++i) {
    const Stage& stage = output.stages[i];
    const TokenTiles& tiles = stage.int8 ? segment.int8_tiles : stage.bf16 ? segment.bf16_tiles : segment.f32_tiles;
    LinearTask task{};
    task.panels = stage.panels;
    task.panel_begin = panel_chunk * cut.chunk_panels;
    task.panel_end = std::min(task.panel_begin + cut.chunk_panels, stage.panels.count());
    task.activations = stage.int8   ? static_cast<const void*>(scratch.words)
                       : stage.bf16 ? static_cast<const void*>(scratch.halves)
                                    : scratch.floats;
    task.outliers = scratch.outliers;
    task.tiles = tiles;
    task.tile_begin = tiles.count * token_chunk / cut.token_chunks;
    task.tile_end = tiles.count * (token_chunk + 1) / cut.token_chunks;
    task.out = output.data;
    task.out_stride = output.stride;
    task.bias = stage.bias;
    task.activation = stage.activation;
    task.multiply = stage.multiply;
    task.scratch = scratch.threads + thread * scratch.thread_floats;
    linear_kernel(kernels, stage, task.tile_end - task.tile_begin)(task);
  }
}

// All outputs of one activation. Token chunks are outermost: threads share a chunk's activations in the cache.
void run_outputs(Stream& stream, const Matrix<float>& x, const Output* outputs, int num_outputs,
                 const Scratch& scratch) {
  const Segment segment = make_segment(stream.kernels(), 0, x.rows);
  prepare_segment(stream, x, segment, scratch);
  const Cut cut = make_cut(stream.pool().num_threads(), outputs, num_outputs, x.rows);
  int64_t tasks_per_chunk = 0;
  for (int i = 0; i < num_outputs; ++i) tasks_per_chunk += cut.panel_chunks(outputs[i]);
  stream.pool().parallel_for(cut.token_chunks * tasks_per_chunk, [&](int64_t index, int thread) {
    int64_t panel_chunk = index % tasks_per_chunk;
    const Output* output = outputs;
    while (panel_chunk >= cut.panel_chunks(*output)) panel_chunk -= cut.panel_chunks(*output++);
    run_task(stream.kernels(), *output, segment, scratch, cut, index / tasks_per_chunk, panel_chunk, thread);
  });
}

const Weight& weight_arg(const tm_weight* handle, const char* argument, int64_t cols) {
  require(handle != nullptr, argument, "a weight");
  const Weight& weight = *abi::as<const Weight>(handle);
  require(weight.cols() == cols, argument, std::to_string(cols) + " columns, found " + std::to_string(weight.cols()));
  return weight;
}

Stage make_stage(const Weight& weight, const tm_tensor& bias, tm_activation_kind activation, bool multiply) {
  return {weight.panels(), weight.uses_int8(), weight.uses_bf16(), vector_arg<float>(bias, "bias"), activation,
          multiply};
}

std::string shape_text(int64_t rows, int64_t cols) {
  return std::string("[").append(std::to_string(rows)).append(", ").append(std::to_string(cols)).append("]");
}

// [rows, weight.rows]
Matrix<float> out_arg(const tm_tensor& tensor, int64_t rows, const Weight& weight) {
  const Matrix<float> out = matrix_arg<float>(tensor, "out");
  require(out.rows == rows && out.cols == weight.rows(), "out",
          shape_text(rows, weight.rows()) + ", found " + shape_text(out.rows, out.cols));
  return out;
}

size_t workspace_bytes(Context& context, int64_t rows, int64_t cols, const tm_weight* const* weights, int num_weights) {
  Forms forms;
  for (int i = 0; i < num_weights; ++i) {
    if (weights[i]) {
      forms.add(*abi::as<const Weight>(weights[i]));
    } else {
      forms = {true, true, true};
    }
  }
  WorkspaceArena arena;
  take_scratch(arena, context, rows, cols, forms);
  return arena.used();
}

}  // namespace

size_t CpuOps::linear_workspace(Context& context, const tm_linear_args& args) {
  return workspace_bytes(context, args.x.shape[0], args.x.shape[1], args.weight, args.num_weights);
}

void CpuOps::linear(Stream& stream, const tm_linear_args& args, const tm_workspace& workspace) {
  const Matrix<float> x = matrix_arg<float>(args.x, "x");
  require(args.num_weights >= 1 && args.num_weights <= TM_MAX_FUSED_WEIGHTS, "num_weights",
          "1 to " + std::to_string(TM_MAX_FUSED_WEIGHTS) + ", found " + std::to_string(args.num_weights));
  Output outputs[TM_MAX_FUSED_WEIGHTS];
  Forms forms;
  for (int i = 0; i < args.num_weights; ++i) {
    const Weight& weight = weight_arg(args.weight[i], "weight", x.cols);
    const Matrix<float> out = out_arg(args.out[i], x.rows, weight);
    outputs[i] = {{make_stage(weight, args.bias[i], args.activation, false)}, 1, out.data, out.stride};
    forms.add(weight);
  }
  if (x.rows == 0) return;
  WorkspaceArena arena(workspace);
  const Scratch scratch = take_scratch(arena, stream.context(), x.rows, x.cols, forms);
  run_outputs(stream, x, outputs, args.num_weights, scratch);
}

size_t CpuOps::linear_gated_activation_workspace(Context& context, const tm_linear_gated_activation_args& args) {
  const tm_weight* const weights[] = {args.gate, args.up};
  return workspace_bytes(context, args.x.shape[0], args.x.shape[1], weights, 2);
}

void CpuOps::linear_gated_activation(Stream& stream, const tm_linear_gated_activation_args& args,
                                     const tm_workspace& workspace) {
  const Matrix<float> x = matrix_arg<float>(args.x, "x");
  const Weight& gate = weight_arg(args.gate, "gate", x.cols);
  const Weight& up = weight_arg(args.up, "up", x.cols);
  require(gate.rows() == up.rows(), "up", std::to_string(gate.rows()) + " rows, found " + std::to_string(up.rows()));
  const Matrix<float> out = out_arg(args.out, x.rows, gate);
  if (x.rows == 0) return;
  WorkspaceArena arena(workspace);
  Forms forms;
  forms.add(gate);
  forms.add(up);
  const Scratch scratch = take_scratch(arena, stream.context(), x.rows, x.cols, forms);
  const Output output{
      {make_stage(up, args.up_bias, TM_ACTIVATION_NONE, false), make_stage(gate, args.gate_bias, args.kind, true)},
      2,
      out.data,
      out.stride};
  run_outputs(stream, x, &output, 1, scratch);
}

size_t CpuOps::grouped_linear_workspace(Context& context, const tm_grouped_linear_args& args) {
  return workspace_bytes(context, args.x.shape[0], args.x.shape[1], &args.weight, 1);
}

void CpuOps::grouped_linear(Stream& stream, const tm_grouped_linear_args& args, const tm_workspace& workspace) {
  const Matrix<float> x = matrix_arg<float>(args.x, "x");
  const Weight& weight = weight_arg(args.weight, "weight", x.cols);
  const Matrix<float> out = out_arg(args.out, x.rows, weight);
  const int32_t* offsets = vector_arg<int32_t>(args.expert_offsets, "expert_offsets");
  if (x.rows == 0) return;
  WorkspaceArena arena(workspace);
  Forms forms;
  forms.add(weight);
  const Scratch scratch = take_scratch(arena, stream.context(), x.rows, x.cols, forms);
  const auto segment_of = [&](int64_t expert) {
    return make_segment(stream.kernels(), offsets[expert], offsets[expert + 1] - offsets[expert]);
  };
  const int experts = weight.num_experts();
  stream.pool().parallel_for(experts, [&](int64_t expert) {
    const Segment segment = segment_of(expert);
    const int64_t tiles = num_tiles(segment, scratch);
    for (int64_t tile = 0; tile < tiles; ++tile) prepare_tile(stream.kernels(), x, segment, tile, scratch);
  });
  const Cut cut{1, round_up(std::max<int64_t>(1, weight.panels().count() / 8), kMinTaskPanels)};
  const Output any_expert{{make_stage(weight, {}, TM_ACTIVATION_NONE, false)}, 1, out.data, out.stride};
  const int64_t panel_chunks = cut.panel_chunks(any_expert);
  stream.pool().parallel_for(experts * panel_chunks, [&](int64_t index, int thread) {
    const int64_t expert = index / panel_chunks;
    Output output = any_expert;
    output.stages[0].panels = weight.panels(static_cast<int>(expert));
    run_task(stream.kernels(), output, segment_of(expert), scratch, cut, 0, index % panel_chunks, thread);
  });
}

}  // namespace turbomind::cpu
