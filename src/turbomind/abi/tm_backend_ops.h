/* SPDX-License-Identifier: Apache-2.0
 *
 * The ops of the backend contract. Included by tm_backend.h only; its rules for ops hold for each of them.
 *
 * T = token rows of the call, H = hidden size, V = vocabulary. "float" tensors carry the context's activation dtype
 * (one of device_props.activation_dtypes, the same for all activations of a call unless a field says otherwise).
 * Reductions, softmax statistics, norms and rotations are computed in float32 and rounded once, at the store.
 */
#ifndef TM_BACKEND_OPS_H_
#define TM_BACKEND_OPS_H_

/* ---- embedding, norms, elementwise ---- */

/* out[t] = weight[ids[t]] * scale. */
typedef struct tm_embedding_args {
  size_t struct_size;
  tm_tensor ids; /* i32 [T]; an id outside [row_offset, row_offset + rows) gives a zero row (vocabulary shards) */
  const tm_weight* weight; /* packed with is_embedding = 1 */
  int64_t row_offset;      /* id of the weight's first row */
  float scale;
  tm_tensor out; /* float [T, H] */
} tm_embedding_args;

/* out = x / sqrt(mean(x^2) + eps) * weight. Zhang & Sennrich 2019, arXiv:1910.07467. */
typedef struct tm_rms_norm_args {
  size_t struct_size;
  tm_tensor x;      /* float [T, H] or [T, heads, dim]; normalised over the last axis; rows may be strided */
  tm_tensor weight; /* f32 [last axis] */
  float eps;
  tm_tensor out; /* same shape as x; may alias x */
} tm_rms_norm_args;

/* out = (x - mean) / sqrt(var + eps) * weight + bias. Ba et al. 2016, arXiv:1607.06450. */
typedef struct tm_layer_norm_args {
  size_t struct_size;
  tm_tensor x;      /* float [T, H] */
  tm_tensor weight; /* f32 [H] */
  tm_tensor bias;   /* f32 [H]; optional */
  float eps;
  tm_tensor out; /* float [T, H]; may alias x */
} tm_layer_norm_args;

/* out = activation(x). */
typedef struct tm_activation_args {
  size_t struct_size;
  tm_tensor x; /* float [T, H] */
  tm_activation_kind kind;
  tm_tensor out; /* float [T, H]; may alias x */
} tm_activation_args;

/* out = activation(gate) * up. */
typedef struct tm_gated_activation_args {
  size_t struct_size;
  tm_tensor gate; /* float [T, H]; may be a column slice */
  tm_tensor up;   /* float [T, H]; may be a column slice */
  tm_activation_kind kind;
  tm_tensor out; /* float [T, H]; may alias gate or up */
} tm_gated_activation_args;

/* out = a + b. */
typedef struct tm_add_args {
  size_t struct_size;
  tm_tensor a;   /* float [T, H] */
  tm_tensor b;   /* float [T, H] */
  tm_tensor out; /* float [T, H]; may alias a or b */
} tm_add_args;

/* out = convert(in), round to nearest even; float to integer saturates. */
typedef struct tm_cast_args {
  size_t struct_size;
  tm_tensor in;  /* [T, H] */
  tm_tensor out; /* [T, H] */
} tm_cast_args;

/* ---- linear ---- */

/* out[i] = activation(x * weight[i]^T + bias[i]) for each of num_weights: one activation, several weights (q/k/v or
 * gate/up whose formats differ). */
typedef struct tm_linear_args {
  size_t struct_size;
  tm_tensor x; /* float [T, K]; rows may be strided */
  int32_t num_weights;
  const tm_weight* weight[TM_MAX_FUSED_WEIGHTS]; /* [N_i, K] */
  tm_tensor bias[TM_MAX_FUSED_WEIGHTS];          /* f32 [N_i]; optional */
  tm_activation_kind activation;
  tm_tensor out[TM_MAX_FUSED_WEIGHTS]; /* float, or f32 whatever the activations are, [T, N_i]; rows may be strided */
} tm_linear_args;

/* Rows expert_offsets[e] .. expert_offsets[e+1] of x meet expert e of the weight. */
typedef struct tm_grouped_linear_args {
  size_t struct_size;
  tm_tensor x;              /* float [R, K], sorted by expert */
  const tm_weight* weight;  /* num_experts x [N, K] */
  tm_tensor expert_offsets; /* i32 [num_experts + 1] */
  tm_tensor out;            /* float [R, N] */
} tm_grouped_linear_args;

/* ---- attention ---- */

/* Rotates the first rotary_dim of each head by the row's position, in place. Su et al. 2021, arXiv:2104.09864.
 * NEOX pairs (i, i + rotary_dim/2), INTERLEAVED pairs (2i, 2i + 1). mrope: positions [3, T] and pair i takes its
 * position from axis mrope_axis(i); with mrope_interleaved axis = i % 3 while i < 3 * mrope_section[axis] (else 0),
 * otherwise the sections follow one another. */
typedef struct tm_rope_args {
  size_t struct_size;
  tm_tensor q;         /* float [T, q_heads, dim] */
  tm_tensor k;         /* float [T, kv_heads, dim]; optional */
  tm_tensor positions; /* i32 [T] or [3, T] */
  tm_tensor cos_sin;   /* f32 [max_position, rotary_dim]: rotary_dim/2 cosines, then as many sines */
  int32_t rotary_dim;
  tm_rope_style style;
  int32_t mrope_section[3]; /* pairs per axis (t, h, w); all 0: plain rope */
  int32_t mrope_interleaved;
  uint64_t reserved[4];
} tm_rope_args;

/* Stores k and v of the plan's tokens into their blocks, rounding (or quantising) to the pool's dtype. */
typedef struct tm_kv_write_args {
  size_t struct_size;
  tm_tensor k; /* float [T, kv_heads, head_dim_k] */
  tm_tensor v; /* float [T, kv_heads, head_dim_v] */
  tm_kv_pool kv;
  const tm_plan* plan;
} tm_kv_write_args;

/* Causal attention of the plan's rows over their paged contexts; prefill chunks and decode rows mixed. A row at
 * position p sees positions max(0, p - window + 1) .. p (window 0: all), those up to the end of the plan's span that
 * p lies in, and no others. softcap c > 0: score = c * tanh(score / c). sinks: one extra logit per head in the softmax
 * denominator. Query head h reads kv head h * kv_heads / q_heads. */
typedef struct tm_attention_args {
  size_t struct_size;
  tm_tensor q; /* float [T, q_heads, head_dim_k] */
  tm_kv_pool kv;
  const tm_plan* plan;
  float scale;
  int32_t window;
  float softcap;
  tm_tensor sinks; /* f32 [q_heads]; optional */
  tm_tensor out;   /* float [T, q_heads, head_dim_v] */
} tm_attention_args;

/* Full (non-causal) attention inside each of the plan's sequences, no KV cache: vision encoders. */
typedef struct tm_attention_dense_args {
  size_t struct_size;
  tm_tensor q;         /* float [T, heads, dim] */
  tm_tensor k;         /* float [T, kv_heads, dim] */
  tm_tensor v;         /* float [T, kv_heads, dim_v] */
  const tm_plan* plan; /* cu_seqlens_q only */
  float scale;
  tm_tensor out; /* float [T, heads, dim_v] */
  /* TM_BF16: q, k, v and the softmax's weights may be rounded to it before they are multiplied; TM_F32: not below the
   * activations' dtype (since 1.1) */
  tm_dtype product_dtype;
} tm_attention_dense_args;

/* Copies whole blocks inside one pool: block pairs[2i] -> pairs[2i + 1]. Outside captured steps. */
typedef struct tm_kv_copy_blocks_args {
  size_t struct_size;
  tm_kv_pool kv;
  const int32_t* pairs; /* host [num_pairs, 2], copied before return */
  int64_t num_pairs;
} tm_kv_copy_blocks_args;

/* ---- rows ---- */

/* out[i] = in[index[i]]; a negative index leaves row i as it is. Any dtype. */
typedef struct tm_gather_rows_args {
  size_t struct_size;
  tm_tensor in;    /* [R, H] */
  tm_tensor index; /* i32 [N] */
  tm_tensor out;   /* [N, H] */
} tm_gather_rows_args;

/* out[index[i]] = in[i]; a negative index skips row i; indices are distinct. Any dtype. */
typedef struct tm_scatter_rows_args {
  size_t struct_size;
  tm_tensor in;    /* [N, H] */
  tm_tensor index; /* i32 [N] */
  tm_tensor out;   /* [R, H] */
} tm_scatter_rows_args;

/* ---- mixture of experts ---- */

/* Scores = softmax or sigmoid of logits in float32; the top_k of (scores + bias) are chosen (ties: lower expert);
 * weights are the unbiased scores, renormalised to sum 1 if asked, times scaling. expert_ids are distinct and in [0, E)
 * even for NaN logits. */
typedef struct tm_moe_route_args {
  size_t struct_size;
  tm_tensor logits; /* f32 [T, E] */
  tm_tensor bias;   /* f32 [E]; optional */
  int32_t top_k;
  tm_route_score score;
  int32_t renormalize;
  float scaling;
  tm_tensor expert_ids; /* i32 [T, top_k], out */
  tm_tensor weights;    /* f32 [T, top_k], out */
} tm_moe_route_args;

/* Stable sort of the (token, choice) pairs by expert. */
typedef struct tm_moe_permute_args {
  size_t struct_size;
  tm_tensor x;          /* float [T, H] */
  tm_tensor expert_ids; /* i32 [T, top_k] */
  int32_t num_experts;
  tm_tensor out;            /* float [T * top_k, H] */
  tm_tensor expert_offsets; /* i32 [num_experts + 1], out */
  tm_tensor position;       /* i32 [T, top_k], out: row of out that holds this pair */
} tm_moe_permute_args;

/* out[t] = sum over j of weights[t, j] * x[position[t, j]], summed in order of j in float32. */
typedef struct tm_moe_combine_args {
  size_t struct_size;
  tm_tensor x;        /* float [T * top_k, H] */
  tm_tensor position; /* i32 [T, top_k] */
  tm_tensor weights;  /* f32 [T, top_k] */
  tm_tensor out;      /* float [T, H] */
} tm_moe_combine_args;

/* ---- from logits to tokens ---- */

/* Per row, in this order: repetition penalty (logit > 0 ? logit / r : logit * r) on every listed or pending token;
 * minus presence (once) and frequency (times count) for tokens generated so far; plus bias; then -inf where the bitmask
 * has a 0. A row's history is a CSR list of distinct tokens; pending holds tokens still on the device, each counting as
 * one more generated occurrence (-1: none). */
typedef struct tm_logits_process_args {
  size_t struct_size;
  tm_tensor logits;             /* f32 [T, V]; changed in place */
  tm_tensor repetition_penalty; /* f32 [T]; optional, as are the next two; 1 = none */
  tm_tensor presence_penalty;   /* f32 [T]; 0 = none */
  tm_tensor frequency_penalty;  /* f32 [T]; 0 = none */
  tm_tensor history_offsets;    /* i32 [T + 1]; optional */
  tm_tensor history_ids;        /* i32 [history_offsets[T]] */
  tm_tensor history_counts;     /* i32, as long: generated occurrences; 0 = in the prompt only */
  tm_tensor pending;            /* i32 [T, P]; optional */
  tm_tensor bias_offsets;       /* i32 [T + 1]; optional */
  tm_tensor bias_ids;           /* i32 [bias_offsets[T]]; a token may be listed again, then all its values are added */
  tm_tensor bias_values;        /* f32, as long; -inf forbids a token */
  tm_tensor bitmask;            /* u32 [T, ceil(V / 32)], bit v % 32 of word v / 32; optional */
} tm_logits_process_args;

/* One token per row. temperature 0: the largest logit, ties to the lower id. Otherwise p = softmax(logits /
 * temperature); candidates sorted by (p descending, id ascending); keep the first top_k (0 = all), then the shortest
 * prefix whose mass reaches top_p of the mass left (1 = all), then those with p >= min_p * p[0]; draw by inverse CDF
 * over the kept set in ascending id order: the first id at which the running sum of p exceeds u times the kept total
 * (so no sort of the vocabulary is needed), with u = uniform(seed, position) in [0, 1). uniform is the first word of
 * Philox4x32-10 (Salmon et al., SC 2011) with key = (low, high) of seed and counter = (low, high of position, 0, 0),
 * divided by 2^32. At least one candidate always stays. A row of nothing but -inf gives token 0 at any temperature: the
 * core refuses requests that would cause one, and what is drawn must lie in the vocabulary, for the next step embeds it
 * before the host sees it. */
typedef struct tm_sample_args {
  size_t struct_size;
  tm_tensor logits;      /* f32 [T, V] */
  tm_tensor temperature; /* f32 [T] */
  tm_tensor top_k;       /* i32 [T] */
  tm_tensor top_p;       /* f32 [T] */
  tm_tensor min_p;       /* f32 [T] */
  tm_tensor seed;        /* u64 [T] */
  tm_tensor position;    /* i64 [T]; of the token being drawn */
  tm_tensor out;         /* i32 [T] */
} tm_sample_args;

/* log softmax(logits) in float32. rank = number of tokens with a larger logit (0 = the likeliest). */
typedef struct tm_logprobs_args {
  size_t struct_size;
  tm_tensor logits;       /* f32 [T, V] */
  tm_tensor ids;          /* i32 [T]: the tokens to report */
  tm_tensor logprobs;     /* f32 [T], out */
  tm_tensor ranks;        /* i32 [T], out; optional */
  tm_tensor top_ids;      /* i32 [T, n], out, by (logprob descending, id ascending); optional */
  tm_tensor top_logprobs; /* f32 [T, n], out; with top_ids */
} tm_logprobs_args;

/* ---- optional fusions: the core composes them from the ops above when the slot is NULL ---- */

/* sum = x + residual; out = rms_norm(sum). */
typedef struct tm_add_rms_norm_args {
  size_t struct_size;
  tm_tensor x;        /* float [T, H] */
  tm_tensor residual; /* float [T, H]; receives sum */
  tm_tensor weight;   /* f32 [H] */
  float eps;
  tm_tensor out; /* float [T, H]; may alias x */
} tm_add_rms_norm_args;

/* rms_norm of each q and k head (when given a weight), rope, then kv_write; q is left rotated in place. */
typedef struct tm_qk_norm_rope_kv_write_args {
  size_t struct_size;
  tm_rope_args rope;       /* q, k, positions, tables */
  tm_tensor q_norm_weight; /* f32 [dim]; optional */
  tm_tensor k_norm_weight; /* f32 [dim]; optional */
  float norm_eps;
  tm_kv_write_args kv_write; /* its k is rope.k */
} tm_qk_norm_rope_kv_write_args;

/* out = activation(x * gate^T + gate_bias) * (x * up^T + up_bias). */
typedef struct tm_linear_gated_activation_args {
  size_t struct_size;
  tm_tensor x;           /* float [T, K] */
  const tm_weight* gate; /* [N, K] */
  const tm_weight* up;   /* [N, K] */
  tm_tensor gate_bias;   /* f32 [N]; optional */
  tm_tensor up_bias;     /* f32 [N]; optional */
  tm_activation_kind kind;
  tm_tensor out; /* float [T, N] */
} tm_linear_gated_activation_args;

/* residual += all_reduce(x); out = rms_norm(residual). */
typedef struct tm_all_reduce_add_rms_norm_args {
  size_t struct_size;
  tm_comm* comm;
  tm_add_rms_norm_args norm;
} tm_all_reduce_add_rms_norm_args;

/* ---- model-gated: only some models need them; one on a backend whose slot is NULL is refused, naming the op ---- */

/* out = cap * tanh(x / cap): Gemma 2 bounds its logits so (Gemma Team 2024, arXiv:2408.00118). */
typedef struct tm_softcap_args {
  size_t struct_size;
  tm_tensor x;   /* f32 [T, V], whatever the activations are */
  float cap;     /* > 0 */
  tm_tensor out; /* f32 [T, V]; may alias x */
} tm_softcap_args;

/* X(name): every op; the args type is tm_<name>_args. The order is the ABI: a later minor version appends lists of its
 * own after these, optional for every plug-in. More ops that only some models need (mla_attention, causal_conv1d,
 * gated_delta_net) will come that way. */
/* clang-format off */
#define TM_REQUIRED_OPS_1_0(X)                                                                           \
  X(embedding) X(rms_norm) X(layer_norm) X(activation) X(gated_activation) X(add) X(cast) X(linear)      \
  X(grouped_linear) X(rope) X(kv_write) X(attention) X(attention_dense) X(kv_copy_blocks) X(gather_rows) \
  X(scatter_rows) X(moe_route) X(moe_permute) X(moe_combine) X(logits_process) X(sample) X(logprobs)
#define TM_OPTIONAL_OPS_1_0(X) \
  X(add_rms_norm) X(qk_norm_rope_kv_write) X(linear_gated_activation) X(all_reduce_add_rms_norm)
#define TM_MODEL_OPS_1_0(X) X(softcap)
#define TM_REQUIRED_OPS(X) TM_REQUIRED_OPS_1_0(X)
#define TM_OPTIONAL_OPS(X) TM_OPTIONAL_OPS_1_0(X)
#define TM_MODEL_OPS(X) TM_MODEL_OPS_1_0(X)
#define TM_ALL_OPS(X) TM_REQUIRED_OPS_1_0(X) TM_OPTIONAL_OPS_1_0(X) TM_MODEL_OPS_1_0(X)
/* clang-format on */

typedef enum tm_op_id {
#define TM_OP_ENUM(name) TM_OP_##name,
  TM_ALL_OPS(TM_OP_ENUM)
#undef TM_OP_ENUM
      TM_NUM_OPS,
  TM_OP_ID_MAX_ENUM = TM_MAX_ENUM
} tm_op_id;

typedef struct tm_op_api {
  size_t struct_size;
  /* Scratch bytes for the op with these args; data pointers in args may be NULL, shapes count. Monotone in T. A plan
   * must be given where the op has one; the answer covers every metadata within the plan's limits. */
  tm_status (*workspace_size)(tm_context*, tm_op_id, const void* args, size_t* out);
#define TM_OP_SLOT(name) tm_status (*name)(tm_stream*, const tm_##name##_args*, const tm_workspace*);
  TM_ALL_OPS(TM_OP_SLOT)
#undef TM_OP_SLOT
} tm_op_api;

#endif /* TM_BACKEND_OPS_H_ */
