/* SPDX-License-Identifier: Apache-2.0
 *
 * What a test tells the emulator; real CANN has none of it. Exported by libacl_rt.so.
 *
 * The same settings come from the environment when the emulator is first used:
 *   FAKECANN_PROFILE      a2 (default, with CANN 9's operators), a2-8.5, a3, 310p, 950
 *   FAKECANN_SCHEDULE     immediate (default), lazy, random or random:SEED
 *   FAKECANN_DEVICES      devices there are (8)
 *   FAKECANN_MEMORY_MB    memory of each (2048)
 *   FAKECANN_WAIT_MS      when a wait that nothing can end becomes a timeout (20000)
 *   FAKECANN_WORKSPACE    exact: operators ask for the least they need, which may be nothing
 *   FAKECANN_LOG          1: calls and refusals on stderr
 *   FAKECANN_FAULTS       name=value;...:
 *     call=FUNCTION:N:CODE  the N-th call from now of the function answers CODE
 *     task=N:CODE           the N-th task from now fails so, reported by the next synchronisation
 *     lost=N                after N more tasks the device is gone: every call answers 507899 until aclrtResetDevice
 *     memory=BYTES          only so many more bytes can be allocated
 *     streams=N, events=N   only so many more exist
 *     stall=N               the N-th collective from now never ends
 *     unjoined=N            the N-th capture from now ends as one with a stream that was not joined
 */
#ifndef FAKECANN_ABI_CONTROL_H_
#define FAKECANN_ABI_CONTROL_H_

#include "abi/types.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* Sets what the environment variable FAKECANN_<name> would, e.g. ("SCHEDULE", "lazy"). 0, or 107000 for what it does
 * not know. */
aclError fakecannConfigure(const char* name, const char* value);
/* What is left of a fault that counts down, e.g. "stall": 0 once it has struck, -1 where it was not set. */
aclError fakecannFaultLeft(const char* name, int64_t* left);
/* Tasks enqueued and not yet run, over all streams. */
aclError fakecannPendingTasks(uint64_t* count);
/* Live objects: "memory" (allocations), "streams", "events", "graphs", "tensors", "executors", ... */
aclError fakecannLiveObjects(const char* kind, uint64_t* count);
/* The contract rules of the profile in use, one a line: "op rule-number rule"; and which have refused a call so far. */
const char* fakecannRules(void);
const char* fakecannRulesThatRefused(void);
/* The operators that phase 1 was asked for so far, one a line. */
const char* fakecannOperatorsUsed(void);
/* How often phase 1 was asked for, of any operator, in this process. */
uint64_t fakecannPreparations(void);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* FAKECANN_ABI_CONTROL_H_ */
