// SPDX-License-Identifier: Apache-2.0
#ifndef FAKECANN_HCCL_CODES_H_
#define FAKECANN_HCCL_CODES_H_

namespace fakecann {

// Results of HCCL's functions.
enum HcclCode : int {
  kHcclParameter = 1,
  kHcclNullPointer = 2,
  kHcclNotSupported = 5,
  kHcclSystemCall = 8,
  kHcclTimeout = 9,
  kHcclRemote = 21,
};

}  // namespace fakecann

#endif  // FAKECANN_HCCL_CODES_H_
