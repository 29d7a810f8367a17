/* SPDX-License-Identifier: Apache-2.0
 *
 * The backend contract: what a device plug-in offers the TurboMind core.
 *
 * A plug-in is a shared library with one exported symbol, tm_backend_get_api(). It returns a table of tables; each
 * table starts with struct_size, so that a minor version may append slots. A NULL slot means "not offered". The ABI
 * major version must match exactly. C++ authors use the adapter in tm_backend.hpp instead of filling tables by hand.
 *
 * Rules for every call
 *  - Returns a status; never throws, exits, aborts or prints. Text of the last failure: tm_backend_api::last_error
 *    (per thread). A plug-in reads no environment variable: settings come through tm_config, logs go to the host.
 *  - Plug-ins are loaded once and never unloaded.
 *
 * Rules for growing (minor versions)
 *  - Fields, slots and enum values are appended only; reserved fields must be zero. An appended field that is zero
 * means the older behaviour. The core leaves it zero unless the plug-in's abi_minor covers it; a callee reads only what
 *    struct_size covers, and answers an enum value it does not know with TM_UNSUPPORTED.
 *  - An op added by a minor version is optional for every plug-in.
 *
 * Rules for every op (tm_op_api)
 *  - Asynchronous on the given stream, in stream order. No allocation, no host synchronisation, safe to capture.
 *  - Scratch memory is the caller's: tm_workspace, of at least workspace_size() bytes for the same op, with the same or
 *    larger shapes. Contents are undefined before and after.
 *  - Same inputs give the same bits. If the context was created with deterministic=1 (or device_props says
 *    always_deterministic), a row's result does not depend on the other rows of the call either.
 *  - Outputs never alias inputs unless the field says so. Strides are in elements; the innermost stride is 1. A tensor
 *    may have zero rows: the op then does nothing.
 *  - All data pointers are device pointers unless the field says "host".
 *  - Everything that changes from step to step is either data behind a fixed pointer or metadata in a tm_plan, so a
 *    captured step can be replayed after plan_update().
 */
#ifndef TM_BACKEND_H_
#define TM_BACKEND_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TM_ABI_MAJOR 1
#define TM_ABI_MINOR 1
#define TM_MAX_DIMS 4
#define TM_MAX_FUSED_WEIGHTS 4
#define TM_MAX_WEIGHT_PARTS 4
#define TM_UNIQUE_ID_BYTES 8192

/* Last enumerator of every enum: C lets a compiler choose the size of an enum by its values, so this fixes it at 32
 * bits (compilers with -fshort-enums included) and keeps it when values are appended. Never passed. */
#define TM_MAX_ENUM 0x7FFFFFFF

/* ------------------------------------------------------------------------------------------------ basic types */

typedef enum tm_status {
  TM_OK = 0,
  TM_INVALID_ARGUMENT = 1,
  TM_UNSUPPORTED = 2,
  TM_OUT_OF_MEMORY = 3,
  TM_DEVICE_ERROR = 4, /* this call failed; the context is still usable */
  TM_DEVICE_LOST = 5,  /* the context and everything made from it is dead; only free and destroy calls remain valid */
  TM_INTERNAL = 6,
  TM_NOT_READY = 7, /* event_query: not yet reached */
  TM_STATUS_MAX_ENUM = TM_MAX_ENUM
} tm_status;

typedef enum tm_dtype {
  TM_F32 = 0,
  TM_F16 = 1,
  TM_BF16 = 2,
  TM_I8 = 3,
  TM_U8 = 4,
  TM_I32 = 5,
  TM_U32 = 6,
  TM_I64 = 7,
  TM_U64 = 8,
  TM_F8_E4M3 = 9,
  TM_F8_E5M2 = 10,
  TM_DTYPE_MAX_ENUM = TM_MAX_ENUM
} tm_dtype;

/* Raw layout of a weight as it comes from a checkpoint: [rows, cols] row-major, quantised along cols. */
typedef enum tm_weight_format {
  TM_WEIGHT_F32 = 0,
  TM_WEIGHT_F16 = 1,
  TM_WEIGHT_BF16 = 2,
  TM_WEIGHT_GGUF_Q4_0 = 10, /* GGUF block types, byte for byte (ggml quantisation blocks of 32 or 256) */
  TM_WEIGHT_GGUF_Q4_1 = 11,
  TM_WEIGHT_GGUF_Q5_0 = 12,
  TM_WEIGHT_GGUF_Q5_1 = 13,
  TM_WEIGHT_GGUF_Q8_0 = 14,
  TM_WEIGHT_GGUF_Q4_K = 15,
  TM_WEIGHT_GGUF_Q5_K = 16,
  TM_WEIGHT_GGUF_Q6_K = 17,
  TM_WEIGHT_INT4_GROUP = 30,   /* u4 codes, low nibble first; scales/zeros [rows, cols / group_size] */
  TM_WEIGHT_INT8_GROUP = 31,   /* u8 codes; scales/zeros [rows, cols / group_size] */
  TM_WEIGHT_INT8_CHANNEL = 32, /* i8 codes, scales [rows]; activations quantised per token (W8A8) */
  TM_WEIGHT_FP8_TENSOR = 40,   /* e4m3 codes, scales [1] */
  TM_WEIGHT_FP8_CHANNEL = 41,  /* e4m3 codes, scales [rows] */
  TM_WEIGHT_FP8_BLOCK128 = 42, /* e4m3 codes, scales [ceil(rows/128), ceil(cols/128)] */
  TM_WEIGHT_MXFP4 = 50,        /* e2m1 codes, e8m0 scales [rows, cols / 32] */
  TM_WEIGHT_FORMAT_MAX_ENUM = TM_MAX_ENUM
} tm_weight_format;

/* How a linear may compute. DEFAULT: the backend's best (e.g. integer dot products on quantised activations).
 * FLOAT32: no rounding of activations or of dequantised weights below float32. */
typedef enum tm_compute {
  TM_COMPUTE_DEFAULT = 0,
  TM_COMPUTE_FLOAT32 = 1,
  TM_COMPUTE_MAX_ENUM = TM_MAX_ENUM
} tm_compute;

typedef enum tm_activation_kind {
  TM_ACTIVATION_NONE = 0,
  TM_ACTIVATION_SILU = 1,
  TM_ACTIVATION_GELU_TANH = 2,
  TM_ACTIVATION_GELU_ERF = 3,
  TM_ACTIVATION_QUICK_GELU = 4,
  TM_ACTIVATION_RELU = 5,
  TM_ACTIVATION_KIND_MAX_ENUM = TM_MAX_ENUM
} tm_activation_kind;

typedef enum tm_rope_style {
  TM_ROPE_NEOX = 0,
  TM_ROPE_INTERLEAVED = 1,
  TM_ROPE_STYLE_MAX_ENUM = TM_MAX_ENUM
} tm_rope_style;
typedef enum tm_memory_kind {
  TM_MEMORY_DEVICE = 0,
  TM_MEMORY_PINNED_HOST = 1,
  TM_MEMORY_KIND_MAX_ENUM = TM_MAX_ENUM
} tm_memory_kind;
typedef enum tm_copy_kind {
  TM_HOST_TO_DEVICE = 0,
  TM_DEVICE_TO_HOST = 1,
  TM_DEVICE_TO_DEVICE = 2,
  TM_COPY_KIND_MAX_ENUM = TM_MAX_ENUM
} tm_copy_kind;
typedef enum tm_reduce_op { TM_REDUCE_SUM = 0, TM_REDUCE_MAX = 1, TM_REDUCE_OP_MAX_ENUM = TM_MAX_ENUM } tm_reduce_op;
typedef enum tm_log_level {
  TM_LOG_DEBUG = 0,
  TM_LOG_INFO = 1,
  TM_LOG_WARNING = 2,
  TM_LOG_ERROR = 3,
  TM_LOG_LEVEL_MAX_ENUM = TM_MAX_ENUM
} tm_log_level;
typedef enum tm_route_score {
  TM_ROUTE_SOFTMAX = 0,
  TM_ROUTE_SIGMOID = 1,
  TM_ROUTE_SCORE_MAX_ENUM = TM_MAX_ENUM
} tm_route_score;

typedef struct tm_context tm_context; /* one opened device */
typedef struct tm_stream tm_stream;
typedef struct tm_event tm_event;
typedef struct tm_weight tm_weight; /* a packed weight; its layout is the backend's secret */
typedef struct tm_plan tm_plan;
typedef struct tm_graph tm_graph;
typedef struct tm_comm tm_comm;

/* A view. data == NULL means "argument not given" where a field is optional. */
typedef struct tm_tensor {
  void* data;
  tm_dtype dtype;
  int32_t ndim;
  int64_t shape[TM_MAX_DIMS];
  int64_t stride[TM_MAX_DIMS]; /* elements; stride[ndim - 1] == 1 */
} tm_tensor;

typedef struct tm_workspace {
  void* data; /* aligned to 256 bytes */
  size_t bytes;
} tm_workspace;

typedef struct tm_config_entry {
  const char* key;
  const char* value;
} tm_config_entry;

typedef struct tm_config {
  const tm_config_entry* entries;
  size_t num_entries;
} tm_config;

/* What the host gives a plug-in. Any slot may be NULL. Callable from any thread. */
typedef struct tm_host_api {
  size_t struct_size;
  uint32_t abi_major;
  uint32_t abi_minor;
  void* host; /* passed back as the first argument */
  void (*log)(void* host, tm_log_level level, const char* message);
  void (*trace_begin)(void* host, const char* name);
  void (*trace_end)(void* host);
} tm_host_api;

/* ------------------------------------------------------------------------------------------------ device */

typedef struct tm_device_props {
  size_t struct_size;
  char name[128]; /* human readable, e.g. the processor's model name */
  char arch[64];  /* what the kernels were chosen for, e.g. "avx512-vnni-bf16" */
  uint64_t total_memory_bytes;
  uint64_t memory_alignment;     /* bytes, a power of two >= 256; every alloc() of either kind is aligned at least so */
  uint64_t activation_dtypes;    /* bit (1 << tm_dtype) for each dtype the ops take as activations */
  uint64_t kv_dtypes;            /* bit (1 << tm_dtype) for each KV cache dtype */
  tm_dtype preferred_activation; /* used when the model's config says "auto" */
  tm_dtype preferred_kv;
  int32_t kv_block_sizes[8]; /* allowed tokens per block, ascending, 0-terminated */
  int32_t preferred_kv_block_size;
  int32_t host_accessible;      /* 1: device pointers may be read and written by the host after a synchronise */
  int32_t always_deterministic; /* 1: results never depend on the batch around a row */
  int32_t can_capture;          /* 1: the graph table works; 0: steps run eagerly */
  int32_t asynchronous;         /* 1: ops return before they ran */
  int32_t num_compute_units;    /* threads, SMs or AI cores */
  int32_t
      attention_spans; /* 1: attention takes tm_step_meta.spans (since 1.1); models that need them are refused else */
} tm_device_props;

typedef struct tm_device_api {
  size_t struct_size;
  /* Number of devices of this backend; 0 with TM_OK if none. */
  tm_status (*count)(int32_t* out);
  /* Keys every backend understands: "deterministic" ("0"/"1"), "num_threads". An unknown key is TM_INVALID_ARGUMENT. */
  tm_status (*context_create)(int32_t device_index, const tm_config* config, tm_context** out);
  void (*context_destroy)(tm_context*);
  tm_status (*props)(tm_context*, tm_device_props* out); /* caller sets out->struct_size */
  tm_status (*mem_info)(tm_context*, uint64_t* free_bytes, uint64_t* total_bytes);
  tm_status (*alloc)(tm_context*, tm_memory_kind, size_t bytes, void** out);
  void (*free)(tm_context*, tm_memory_kind, void* data); /* no queued work may still use it */
  /* Pageable host memory: the call may block, and is not allowed in a capture. */
  tm_status (*copy_async)(tm_stream*, void* dst, const void* src, size_t bytes, tm_copy_kind);
  tm_status (*memset_async)(tm_stream*, void* dst, int value, size_t bytes);
  tm_status (*stream_create)(tm_context*, tm_stream** out);
  void (*stream_destroy)(tm_stream*);
  tm_status (*stream_synchronize)(tm_stream*); /* also reports errors of earlier asynchronous work */
  tm_status (*event_create)(tm_context*, tm_event** out);
  void (*event_destroy)(tm_event*);
  tm_status (*event_record)(tm_event*, tm_stream*);
  tm_status (*event_wait)(tm_event*, tm_stream*); /* the stream waits; the host does not */
  tm_status (*event_synchronize)(tm_event*);
  tm_status (*event_query)(tm_event*); /* TM_OK or TM_NOT_READY */
  /* Binds the calling host thread to the context's device; called once by each thread that issues work. */
  tm_status (*set_thread)(tm_context*);
} tm_device_api;

/* ------------------------------------------------------------------------------------------------ weights */

/* One slice of rows of a weight, in host memory. Several parts fuse q/k/v or gate/up without a copy by the core; a
 * column slice for tensor parallelism is data moved inside the row with row_stride_bytes left at the full row. */
typedef struct tm_weight_part {
  const void* data;   /* host, any alignment; [rows, cols] in the weight's format */
  const void* scales; /* host; formats with separate scales only, else NULL */
  const void* zeros;  /* host; zero points (uint8 for int4/int8 groups), else NULL */
  int64_t rows;
  int64_t row_stride_bytes;
  int64_t scale_stride_bytes;
  int64_t zero_stride_bytes;
  int32_t scale_row_phase; /* where the slice's first row and column stand inside their scale block or group: */
  int32_t scale_col_phase; /* a tensor-parallel slice need not start on a block boundary */
  float input_scale;       /* static activation scale; 0 = activations are scaled dynamically */
  float global_scale;      /* multiplies every scale; 0 = 1 */
  uint64_t reserved[4];
} tm_weight_part;

typedef struct tm_weight_desc {
  size_t struct_size;
  tm_weight_format format;
  tm_compute compute;
  tm_dtype scale_dtype;        /* of scales; formats with separate scales only */
  int32_t group_size;          /* int4/int8 groups only, else 0 */
  int32_t num_experts;         /* 0: a plain matrix; E > 0: part e holds expert e (num_parts == E) */
  int32_t is_embedding;        /* 1: rows are also looked up by the embedding op */
  int64_t rows;                /* out features (of one expert); the sum of parts' rows for a plain matrix */
  int64_t cols;                /* in features */
  const tm_weight_part* parts; /* may be NULL in query() */
  int32_t num_parts;
  tm_dtype
      activation_dtype; /* of the x it will meet: a backend whose matrix units take no mixed operands packs for it */
} tm_weight_desc;

typedef struct tm_weight_info {
  size_t struct_size;     /* set by the caller */
  int32_t supported;      /* 0: reason says why; the core asks again with another format, then without FLOAT32 */
  size_t packed_bytes;    /* device memory that pack() wants from the caller; may be 0 */
  int32_t borrows_source; /* 1: the packed weight goes on reading the parts' host memory, which must stay mapped */
  char reason[160];
} tm_weight_info;

typedef struct tm_weight_api {
  size_t struct_size;
  tm_status (*query)(tm_context*, const tm_weight_desc*, tm_weight_info* out);
  /* dst: packed_bytes of device memory owned by the caller, alive until free(). Synchronous with respect to the parts:
   * they may be released on return unless borrows_source. */
  tm_status (*pack)(tm_stream*, const tm_weight_desc*, void* dst, tm_weight** out);
  void (*free)(tm_weight*);
} tm_weight_api;

/* ------------------------------------------------------------------------------------------------ KV cache */

typedef struct tm_kv_spec {
  int32_t num_kv_heads;
  int32_t head_dim_k;
  int32_t head_dim_v;
  int32_t block_size; /* tokens */
  tm_dtype dtype;     /* TM_I8: symmetric, one scale per token and head kept inside the pool */
  float k_scale;      /* fp8: stored = x / scale; 0 = 1 */
  float v_scale;
  uint32_t reserved[6];
} tm_kv_spec;

/* The pool of one layer, zeroed by the core before its first use. Blocks are numbered 0..num_blocks-1; where a block's
 * bytes lie is the backend's business. */
typedef struct tm_kv_pool {
  void* data;
  int64_t num_blocks;
  tm_kv_spec spec;
  uint64_t reserved[4];
} tm_kv_pool;

typedef struct tm_kv_api {
  size_t struct_size;
  /* Device bytes of a pool of num_blocks; at most linear in num_blocks plus a constant. Unsupported spec:
   * TM_UNSUPPORTED. */
  tm_status (*pool_bytes)(tm_context*, const tm_kv_spec*, int64_t num_blocks, size_t* out);
  /* Optional: canonical exchange form for swapping and disaggregation, k of all ids
   * [num_ids, block_size, heads, head_dim_k] in spec.dtype, then v likewise, then the int8 scales, f32 [num_ids, 2,
   * block_size, heads]; this rank's heads only; dst and src are device or pinned host memory. block_ids: host, copied
   * before return. */
  tm_status (*export_blocks)(tm_stream*, const tm_kv_pool*, const int32_t* block_ids, int64_t num_ids, void* dst);
  tm_status (*import_blocks)(tm_stream*, const tm_kv_pool*, const int32_t* block_ids, int64_t num_ids, const void* src);
} tm_kv_api;

/* ------------------------------------------------------------------------------------------------ plans */

/* One kind of attention call that will use a plan; lets a backend choose kernels and split schedules in update(). */
typedef struct tm_attention_shape {
  int32_t num_heads;
  int32_t window; /* as in tm_attention_args */
  tm_kv_spec kv;
} tm_attention_shape;

typedef struct tm_plan_limits {
  size_t struct_size;
  int64_t max_tokens;
  int64_t max_seqs;
  int64_t max_blocks_per_seq; /* 0: the plan serves attention_dense only */
  int32_t block_size;
  const tm_attention_shape* shapes; /* the distinct ones of the model; copied; NULL: unknown */
  int32_t num_shapes;
} tm_plan_limits;

/* Host metadata of one step. Sequence s owns the token rows cu_seqlens_q[s] .. cu_seqlens_q[s+1]; its last row stands
 * at position context_lens[s] - 1. Token at position p lives in block block_table[s][p / block_size], place p %
 * block_size. Rows past num_tokens up to padded_tokens are padding: ops may compute them, kv_write does not
 * store them, attention writes zeros there. Table entries wholly before every window of the model are unspecified and
 * may be negative. */
typedef struct tm_step_meta {
  size_t struct_size;
  int64_t num_seqs;
  int64_t num_tokens;
  const int32_t* cu_seqlens_q; /* host [num_seqs + 1] */
  const int32_t* context_lens; /* host [num_seqs], including this step's tokens; NULL for attention_dense */
  const int32_t* block_table;  /* host [num_seqs, block_table_stride]; NULL for attention_dense */
  int64_t block_table_stride;
  /* The shape a captured step has. A graph may be replayed only with the values it was captured with; 0 in an eager
   * step. */
  int64_t padded_tokens;
  int64_t padded_seqs;
  int32_t max_q_len; /* most rows of one sequence, or the capture's bound for it */
  /* Since 1.1. Spans of positions that see each other (the tokens of a picture): a row inside one also sees the
   * positions behind it up to the span's end; those before it as ever. host [num_spans, 3]: sequence, first position,
   * end; in order, apart, at most up to the sequence's context_len. */
  const int32_t* spans;
  int64_t num_spans;
} tm_step_meta;

typedef struct tm_plan_api {
  size_t struct_size;
  tm_status (*create)(tm_context*, const tm_plan_limits*, tm_plan** out);
  /* Host arrays are copied before return. Ordered on the stream: work issued later sees the new metadata, work issued
   * before keeps the old. Does not wait for the stream: two updates may be in flight. */
  tm_status (*update)(tm_plan*, tm_stream*, const tm_step_meta*);
  void (*free)(tm_plan*);
} tm_plan_api;

/* ------------------------------------------------------------------------------------------------ capture */

typedef struct tm_graph_api {
  size_t struct_size;
  tm_status (*capture_begin)(tm_stream*);
  tm_status (*capture_end)(tm_stream*, tm_graph** out);
  /* plans: the plans that the captured ops refer to (the same objects), already updated for this replay. May wait for
   * the previous launch of the same graph, for nothing else. TM_UNSUPPORTED, before any of it runs, where a plan has
   * spans and the captured ops do not look for them. */
  tm_status (*launch)(tm_graph*, tm_stream*, tm_plan* const* plans, int32_t num_plans);
  void (*free)(tm_graph*);
} tm_graph_api;

/* ------------------------------------------------------------------------------------------------ collectives */

/* All ranks call in the same order. Asynchronous and capture-safe like ops; init_rank is collective and blocks.
 * Reductions accumulate in rank order on deterministic contexts, else in an order of the backend's choice. in == out is
 * allowed except for all_to_all. Shapes: all_gather out = [size, ...in]; reduce_scatter in = [size, ...out]. */
typedef struct tm_comm_api {
  size_t struct_size;
  tm_status (*unique_id)(tm_context*, uint8_t out[TM_UNIQUE_ID_BYTES]);
  tm_status (*init_rank)(tm_context*, const uint8_t id[TM_UNIQUE_ID_BYTES], int32_t rank, int32_t size, tm_comm** out);
  void (*free)(tm_comm*);
  /* Ends this rank's waits with TM_DEVICE_ERROR; callable from any thread. The core calls it on every rank. */
  void (*abort)(tm_comm*);
  tm_status (*all_reduce)(tm_comm*, tm_stream*, const tm_tensor* in, const tm_tensor* out, tm_reduce_op);
  tm_status (*all_gather)(tm_comm*, tm_stream*, const tm_tensor* in, const tm_tensor* out);
  tm_status (*reduce_scatter)(tm_comm*, tm_stream*, const tm_tensor* in, const tm_tensor* out, tm_reduce_op);
  tm_status (*broadcast)(tm_comm*, tm_stream*, const tm_tensor* data, int32_t root);
  tm_status (*all_to_all)(tm_comm*, tm_stream*, const tm_tensor* in, const tm_tensor* out);
} tm_comm_api;

#include "tm_backend_ops.h"

/* ------------------------------------------------------------------------------------------------ entry point */

typedef struct tm_backend_api {
  size_t struct_size;
  uint32_t abi_major;
  uint32_t abi_minor;
  const char* name;    /* "cpu", "null", ...: lower case, the name users select */
  const char* version; /* the plug-in's own version */
  /* Usable on this machine? On no: TM_UNSUPPORTED and the reason as text. Must not open a device. */
  tm_status (*probe)(char* reason, size_t reason_bytes);
  const char* (*last_error)(void); /* of the calling thread; never NULL */
  const tm_device_api* device;
  const tm_weight_api* weight;
  const tm_kv_api* kv;
  const tm_plan_api* plan;
  const tm_graph_api* graph; /* NULL: steps run eagerly */
  const tm_comm_api* comm;   /* NULL: no tensor parallelism */
  const tm_op_api* op;
} tm_backend_api;

/* Exported by the plug-in. TM_UNSUPPORTED if abi_major is not the plug-in's. The table lives as long as the process. */
typedef tm_status (*tm_backend_get_api_fn)(const tm_host_api* host, uint32_t abi_major, const tm_backend_api** out);
#define TM_BACKEND_ENTRY "tm_backend_get_api"

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* TM_BACKEND_H_ */
