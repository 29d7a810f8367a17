// SPDX-License-Identifier: Apache-2.0
//
// The functions of HCCL: ASCEND_SYMBOL(need, result, name, (parameters)). Included several times; no include guard.
// clang-format off
ASCEND_SYMBOL(REQUIRED, int, HcclGetRootInfo, (HcclRootInfo* root))
ASCEND_SYMBOL(REQUIRED, int, HcclCommInitRootInfo, (uint32_t size, const HcclRootInfo* root, uint32_t rank, HcclComm* comm))
ASCEND_SYMBOL(REQUIRED, int, HcclCommDestroy, (HcclComm comm))
ASCEND_SYMBOL(REQUIRED, int, HcclAllReduce, (void* send, void* receive, uint64_t count, int type, int op, HcclComm comm, aclrtStream stream))
ASCEND_SYMBOL(REQUIRED, int, HcclAllGather, (void* send, void* receive, uint64_t send_count, int type, HcclComm comm, aclrtStream stream))
ASCEND_SYMBOL(REQUIRED, int, HcclReduceScatter, (void* send, void* receive, uint64_t receive_count, int type, int op, HcclComm comm, aclrtStream stream))
ASCEND_SYMBOL(REQUIRED, int, HcclBroadcast, (void* data, uint64_t count, int type, uint32_t root, HcclComm comm, aclrtStream stream))
ASCEND_SYMBOL(REQUIRED, int, HcclAlltoAll, (const void* send, uint64_t send_count, int send_type, const void* receive, uint64_t receive_count, int receive_type, HcclComm comm, aclrtStream stream))
