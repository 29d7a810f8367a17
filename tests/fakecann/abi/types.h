/* SPDX-License-Identifier: Apache-2.0
 *
 * The types of the C interfaces that the emulator stands in for, declared anew: names, orders and values are facts of
 * the interface as its callers use it (torch-npu's and op-plugin's BSD-3 sources). Enumerations are plain ints.
 */
#ifndef FAKECANN_ABI_TYPES_H_
#define FAKECANN_ABI_TYPES_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAKECANN_EXPORT __attribute__((visibility("default")))

typedef int aclError;
typedef int aclnnStatus;
typedef int aclDataType;
typedef int aclFormat;

typedef void* aclrtStream;
typedef void* aclrtEvent;
typedef void* aclrtContext;
typedef void* aclmdlRI;
typedef void* aclrtTaskGrp;
typedef void* aclrtDrvMemHandle;

typedef struct aclTensor aclTensor;
typedef struct aclScalar aclScalar;
typedef struct aclIntArray aclIntArray;
typedef struct aclFloatArray aclFloatArray;
typedef struct aclBoolArray aclBoolArray;
typedef struct aclTensorList aclTensorList;
typedef struct aclScalarList aclScalarList;
typedef struct aclOpExecutor aclOpExecutor;

enum {
  ACL_FLOAT = 0,
  ACL_FLOAT16 = 1,
  ACL_INT8 = 2,
  ACL_INT32 = 3,
  ACL_UINT8 = 4,
  ACL_INT16 = 6,
  ACL_UINT16 = 7,
  ACL_UINT32 = 8,
  ACL_INT64 = 9,
  ACL_UINT64 = 10,
  ACL_DOUBLE = 11,
  ACL_BOOL = 12,
  ACL_BF16 = 27,
  ACL_INT4 = 29
};

enum { ACL_FORMAT_NCHW = 0, ACL_FORMAT_NHWC = 1, ACL_FORMAT_ND = 2, ACL_FORMAT_FRACTAL_NZ = 29, ACL_FORMAT_NCL = 47 };

enum {
  ACL_MEMCPY_HOST_TO_HOST = 0,
  ACL_MEMCPY_HOST_TO_DEVICE = 1,
  ACL_MEMCPY_DEVICE_TO_HOST = 2,
  ACL_MEMCPY_DEVICE_TO_DEVICE = 3,
  ACL_MEMCPY_DEFAULT = 4
};

enum {
  ACL_EVENT_SYNC = 0x1,
  ACL_EVENT_CAPTURE_STREAM_PROGRESS = 0x2,
  ACL_EVENT_TIME_LINE = 0x8,
  ACL_EVENT_EXTERNAL = 0x20
};

enum {
  ACL_MODEL_RI_CAPTURE_MODE_GLOBAL = 0,
  ACL_MODEL_RI_CAPTURE_MODE_THREAD_LOCAL = 1,
  ACL_MODEL_RI_CAPTURE_MODE_RELAXED = 2
};
enum {
  ACL_MODEL_RI_CAPTURE_STATUS_NONE = 0,
  ACL_MODEL_RI_CAPTURE_STATUS_ACTIVE = 1,
  ACL_MODEL_RI_CAPTURE_STATUS_INVALIDATED = 2
};

#endif /* FAKECANN_ABI_TYPES_H_ */
