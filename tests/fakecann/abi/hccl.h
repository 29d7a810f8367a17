/* SPDX-License-Identifier: Apache-2.0
 *
 * Functions of libhccl.so.
 */
#ifndef FAKECANN_ABI_HCCL_H_
#define FAKECANN_ABI_HCCL_H_

#include "abi/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef int HcclResult;
typedef int HcclDataType;
typedef int HcclReduceOp;
typedef void* HcclComm;

struct HcclRootInfo; /* 4108 bytes, defined where it is used */

enum {
  HCCL_DATA_TYPE_INT8 = 0,
  HCCL_DATA_TYPE_INT16 = 1,
  HCCL_DATA_TYPE_INT32 = 2,
  HCCL_DATA_TYPE_FP16 = 3,
  HCCL_DATA_TYPE_FP32 = 4,
  HCCL_DATA_TYPE_INT64 = 5,
  HCCL_DATA_TYPE_UINT64 = 6,
  HCCL_DATA_TYPE_UINT8 = 7,
  HCCL_DATA_TYPE_UINT16 = 8,
  HCCL_DATA_TYPE_UINT32 = 9,
  HCCL_DATA_TYPE_FP64 = 10,
  HCCL_DATA_TYPE_BFP16 = 11
};
enum { HCCL_REDUCE_SUM = 0, HCCL_REDUCE_PROD = 1, HCCL_REDUCE_MAX = 2, HCCL_REDUCE_MIN = 3 };

#pragma GCC visibility push(default)

const char* HcclGetErrorString(HcclResult code);
HcclResult HcclGetRootInfo(struct HcclRootInfo* root);
HcclResult HcclCommInitRootInfo(uint32_t ranks, const struct HcclRootInfo* root, uint32_t rank, HcclComm* comm);
HcclResult HcclGetRankSize(HcclComm comm, uint32_t* ranks);
HcclResult HcclGetRankId(HcclComm comm, uint32_t* rank);
HcclResult HcclAllReduce(void* send, void* receive, uint64_t count, HcclDataType dtype, HcclReduceOp op, HcclComm comm,
                         aclrtStream stream);
HcclResult HcclBroadcast(void* buffer, uint64_t count, HcclDataType dtype, uint32_t root, HcclComm comm,
                         aclrtStream stream);
HcclResult HcclAllGather(void* send, void* receive, uint64_t send_count, HcclDataType dtype, HcclComm comm,
                         aclrtStream stream);
HcclResult HcclReduceScatter(void* send, void* receive, uint64_t receive_count, HcclDataType dtype, HcclReduceOp op,
                             HcclComm comm, aclrtStream stream);
HcclResult HcclAlltoAll(const void* send, uint64_t send_count, HcclDataType send_type, const void* receive,
                        uint64_t receive_count, HcclDataType receive_type, HcclComm comm, aclrtStream stream);
HcclResult HcclBarrier(HcclComm comm, aclrtStream stream);
HcclResult HcclGetCommAsyncError(HcclComm comm, HcclResult* error);
HcclResult HcclCommDestroy(HcclComm comm);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* FAKECANN_ABI_HCCL_H_ */
