/* SPDX-License-Identifier: Apache-2.0
 *
 * Functions of libacl_rt.so (libascendcl.so): device, memory, streams, events, graphs.
 */
#ifndef FAKECANN_ABI_RUNTIME_H_
#define FAKECANN_ABI_RUNTIME_H_

#include "abi/types.h"

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

aclError aclInit(const char* config_path);
aclError aclFinalize(void);
const char* aclGetRecentErrMsg(void);
const char* aclrtGetSocName(void);
aclError aclrtGetVersion(int32_t* major, int32_t* minor, int32_t* patch);
aclError aclsysGetVersionStr(char* package, char* version);
aclError aclsysGetVersionNum(char* package, int32_t* version);
aclError aclrtGetLastError(int level);
aclError aclrtPeekAtLastError(int level);

aclError aclrtGetDeviceCount(uint32_t* count);
aclError aclrtSetDevice(int32_t device);
aclError aclrtResetDevice(int32_t device);
aclError aclrtGetDevice(int32_t* device);
aclError aclrtGetDeviceInfo(uint32_t device, int attribute, int64_t* value);
aclError aclGetDeviceCapability(uint32_t device, int attribute, int64_t* value);
aclError aclrtCreateContext(aclrtContext* context, int32_t device);
aclError aclrtDestroyContext(aclrtContext context);
aclError aclrtSetCurrentContext(aclrtContext context);
aclError aclrtGetCurrentContext(aclrtContext* context);
aclError aclrtDeviceCanAccessPeer(int32_t* can_access, int32_t device, int32_t peer);
aclError aclrtDeviceEnablePeerAccess(int32_t peer, uint32_t flags);
aclError aclrtSynchronizeDevice(void);
aclError aclrtSynchronizeDeviceWithTimeout(int32_t timeout_ms);
aclError aclrtSetOpWaitTimeout(uint32_t seconds);
aclError aclrtSetOpExecuteTimeOut(uint32_t seconds);

aclError aclrtSetSysParamOpt(int option, int64_t value);
aclError aclrtGetSysParamOpt(int option, int64_t* value);
aclError aclrtCtxSetSysParamOpt(int option, int64_t value);
aclError aclrtSetDeviceSatMode(int mode);
aclError aclrtGetDeviceSatMode(int* mode);
aclError aclrtGetPrimaryCtxState(int32_t device, uint32_t* flags, int32_t* is_active);

aclError aclrtMalloc(void** pointer, size_t size, int policy);
aclError aclrtMallocAlign32(void** pointer, size_t size, int policy);
aclError aclrtFree(void* pointer);
aclError aclrtMallocHost(void** pointer, size_t size);
aclError aclrtFreeHost(void* pointer);
aclError aclrtGetMemInfo(int attribute, size_t* free, size_t* total);
aclError aclrtMemcpy(void* to, size_t to_size, const void* from, size_t count, int kind);
aclError aclrtMemcpyAsync(void* to, size_t to_size, const void* from, size_t count, int kind, aclrtStream stream);
aclError aclrtMemset(void* pointer, size_t size, int32_t value, size_t count);
aclError aclrtMemsetAsync(void* pointer, size_t size, int32_t value, size_t count, aclrtStream stream);

aclError aclrtCreateStream(aclrtStream* stream);
aclError aclrtCreateStreamWithConfig(aclrtStream* stream, uint32_t priority, uint32_t flags);
aclError aclrtDestroyStream(aclrtStream stream);
aclError aclrtDestroyStreamForce(aclrtStream stream);
aclError aclrtStreamAbort(aclrtStream stream);
aclError aclrtSynchronizeStream(aclrtStream stream);
aclError aclrtSynchronizeStreamWithTimeout(aclrtStream stream, int32_t timeout_ms);
aclError aclrtStreamQuery(aclrtStream stream, int* status);
aclError aclrtStreamGetId(aclrtStream stream, int32_t* id);
aclError aclrtGetStreamAvailableNum(uint32_t* count);
aclError aclrtSetStreamFailureMode(aclrtStream stream, uint64_t mode);
aclError aclrtSetStreamOverflowSwitch(aclrtStream stream, uint32_t flag);
aclError aclrtLaunchHostFunc(aclrtStream stream, void (*function)(void*), void* argument);

aclError aclrtCreateEvent(aclrtEvent* event);
aclError aclrtCreateEventWithFlag(aclrtEvent* event, uint32_t flags);
aclError aclrtCreateEventExWithFlag(aclrtEvent* event, uint32_t flags);
aclError aclrtDestroyEvent(aclrtEvent event);
aclError aclrtRecordEvent(aclrtEvent event, aclrtStream stream);
aclError aclrtResetEvent(aclrtEvent event, aclrtStream stream);
aclError aclrtStreamWaitEvent(aclrtStream stream, aclrtEvent event);
aclError aclrtSynchronizeEvent(aclrtEvent event);
aclError aclrtSynchronizeEventWithTimeout(aclrtEvent event, int32_t timeout_ms);
aclError aclrtQueryEventStatus(aclrtEvent event, int* status);
aclError aclrtQueryEventWaitStatus(aclrtEvent event, int* status);
aclError aclrtEventElapsedTime(float* milliseconds, aclrtEvent start, aclrtEvent end);

aclError aclmdlRICaptureBegin(aclrtStream stream, int mode);
aclError aclmdlRICaptureGetInfo(aclrtStream stream, int* status, aclmdlRI* graph);
aclError aclmdlRICaptureEnd(aclrtStream stream, aclmdlRI* graph);
aclError aclmdlRICaptureThreadExchangeMode(int* mode);
aclError aclmdlRICaptureTaskGrpBegin(aclrtStream stream);
aclError aclmdlRICaptureTaskGrpEnd(aclrtStream stream, aclrtTaskGrp* group);
aclError aclmdlRICaptureTaskUpdateBegin(aclrtStream stream, aclrtTaskGrp group);
aclError aclmdlRICaptureTaskUpdateEnd(aclrtStream stream);
aclError aclmdlRIExecuteAsync(aclmdlRI graph, aclrtStream stream);
aclError aclmdlRIExecute(aclmdlRI graph, int32_t timeout_ms);
aclError aclmdlRIDestroy(aclmdlRI graph);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif /* FAKECANN_ABI_RUNTIME_H_ */
