/* SPDX-License-Identifier: Apache-2.0
 *
 * The contract as a C99 plug-in author meets it: the header alone, every warning an error. Compiled, never run. The
 * sizes below hold on every 64-bit target; one that moves breaks plug-ins that are built already. */
#include "turbomind/abi/tm_backend.h"

#define EXPECT_SIZE(type, bytes) typedef char size_of_##type[sizeof(type) == (bytes) ? 1 : -1]

EXPECT_SIZE(tm_status, 4);
EXPECT_SIZE(tm_dtype, 4);
EXPECT_SIZE(tm_weight_format, 4);
EXPECT_SIZE(tm_compute, 4);
EXPECT_SIZE(tm_activation_kind, 4);
EXPECT_SIZE(tm_rope_style, 4);
EXPECT_SIZE(tm_memory_kind, 4);
EXPECT_SIZE(tm_copy_kind, 4);
EXPECT_SIZE(tm_reduce_op, 4);
EXPECT_SIZE(tm_log_level, 4);
EXPECT_SIZE(tm_route_score, 4);
EXPECT_SIZE(tm_op_id, 4);
EXPECT_SIZE(tm_tensor, 80);
EXPECT_SIZE(tm_kv_spec, 52);
EXPECT_SIZE(tm_kv_pool, 104);

tm_status probe_table(const tm_backend_api* api, char* reason);

tm_status probe_table(const tm_backend_api* api, char* reason) {
  if (api->abi_major != TM_ABI_MAJOR || !api->op->linear) return TM_UNSUPPORTED;
  return api->probe(reason, 160);
}
