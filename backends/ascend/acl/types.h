// SPDX-License-Identifier: Apache-2.0
//
// The types and constants of CANN's C interfaces (ACL runtime, aclnn, HCCL) that this plug-in uses, declared by us from
// their public documentation: names, order and values are interface facts. No header of CANN is included or copied
// anywhere. Enumerations are passed as int, which is how the C ABI passes them.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {
struct aclTensor;
struct aclScalar;
struct aclIntArray;
struct aclTensorList;
struct aclOpExecutor;
}

using aclrtStream = void*;
using aclrtEvent = void*;
using aclmdlRI = void*;
using aclrtTaskGrp = void*;
using HcclComm = void*;

// What ranks exchange before they form a group.
struct HcclRootInfo {
  char internal[4108];
};

namespace turbomind::ascend {

// aclDataType
enum AclType : int {
  kAclFloat = 0,
  kAclFloat16 = 1,
  kAclInt8 = 2,
  kAclInt32 = 3,
  kAclUint8 = 4,
  kAclInt16 = 6,
  kAclUint16 = 7,
  kAclUint32 = 8,
  kAclInt64 = 9,
  kAclUint64 = 10,
  kAclBool = 12,
  kAclBf16 = 27,
  kAclInt4 = 29,
};

// aclFormat
enum AclFormat : int { kAclFormatNd = 2, kAclFormatNz = 29 };

// aclrtMemMallocPolicy, aclrtMemcpyKind, aclrtMemAttr
inline constexpr int kAclMallocHugeFirst = 0;
inline constexpr int kAclHostToDevice = 1;
inline constexpr int kAclDeviceToHost = 2;
inline constexpr int kAclDeviceToDevice = 3;
inline constexpr int kAclHbmMemory = 1;

// Flags of aclrtCreateEventExWithFlag; result of aclrtQueryEventStatus.
inline constexpr uint32_t kAclEventSync = 0x1;
inline constexpr uint32_t kAclEventExternal = 0x20;
inline constexpr int kAclEventComplete = 1;

// aclmdlRICaptureMode
inline constexpr int kAclCaptureThreadLocal = 1;

// aclrtDevAttr
inline constexpr int kAclAttributeCubeCores = 102;

// cubeMathType of the matrix products: keep the operands' dtype.
inline constexpr int8_t kCubeKeepDtype = 0;

// HcclDataType, HcclReduceOp
enum HcclType : int {
  kHcclInt8 = 0,
  kHcclInt32 = 2,
  kHcclFp16 = 3,
  kHcclFp32 = 4,
  kHcclInt64 = 5,
  kHcclUint8 = 7,
  kHcclBfp16 = 11
};
inline constexpr int kHcclSum = 0;
inline constexpr int kHcclMax = 2;

// Results this plug-in tells apart; 0 is success everywhere.
inline constexpr int kAclErrorStorageOverLimit = 200001;  // host memory
inline constexpr int kAclErrorMemoryAllocation = 207001;  // device memory
inline constexpr int kAclErrorResourceShort = 207005;
inline constexpr int kAclErrorNoEventResource = 207007;
inline constexpr int kAclErrorNoStreamResource = 207008;
inline constexpr int kAclErrorStreamWaitTimeout = 507046;
inline constexpr int kAclErrorEventWaitTimeout = 507047;
inline constexpr int kAclErrorCollectiveTimeout = 507048;
inline constexpr int kAclErrorDeviceLost = 507899;
inline constexpr int kAclnnErrorTiling = 561002;
inline constexpr int kAclnnErrorBinaryMissing = 561003;
inline constexpr int kAclnnErrorNoOppPath = 561107;
inline constexpr int kAclnnErrorPackageMissing = 561112;
inline constexpr int kHcclErrorTimeout = 9;

}  // namespace turbomind::ascend
