// SPDX-License-Identifier: Apache-2.0
//
// Exported functions: life of the process, devices, contexts, and what a test asks of the emulator.
#include <cstdio>
#include <cstring>

#include "abi/control.h"
#include "abi/runtime.h"
#include "runtime/memory.h"
#include "runtime/stream.h"

namespace fakecann {

void configure(Config& config, const std::string& name, const std::string& value);

namespace {

bool is_initialized = false;
thread_local Context* thread_context = nullptr;

Context* primary_context(int device) {
  Streams& streams = Streams::instance();
  Context*& context = streams.primary[device];
  if (context == nullptr) {
    context = new Context{device};
    streams.contexts.insert(context);
  }
  return context;
}

void require_device(int64_t device) {
  if (device < 0 || device >= config().devices) fail(kInvalidDevice, "no device " + std::to_string(device));
}

void drop_streams(Context* context, bool with_default) {
  Streams& streams = Streams::instance();
  for (auto it = streams.live.begin(); it != streams.live.end();) {
    Stream* stream = *it;
    if (stream->context == context && (with_default || !stream->is_default)) {
      stream->tasks.clear();
      it = streams.live.erase(it);
    } else {
      ++it;
    }
  }
  context->default_stream = nullptr;
}

void copy_version(const std::string& version, char* out) { std::memcpy(out, version.c_str(), version.size() + 1); }

}  // namespace

Context& current_context() {
  if (!is_initialized) fail(kUninitialized, "aclInit has not been called");
  if (thread_context == nullptr || Streams::instance().contexts.count(thread_context) == 0) {
    fail(kNoContext, "this thread has no context: call aclrtSetDevice or aclrtSetCurrentContext");
  }
  return *thread_context;
}

Stream& find_stream(aclrtStream handle) {
  Context& context = current_context();
  Streams& streams = Streams::instance();
  if (handle == nullptr) {
    if (context.default_stream == nullptr) {
      context.default_stream = new Stream{.id = streams.next_id++, .context = &context, .is_default = true};
      streams.live.insert(context.default_stream);
    }
    return *context.default_stream;
  }
  auto* stream = static_cast<Stream*>(handle);
  if (streams.live.count(stream) == 0) fail(kInvalidHandle, "not a live stream");
  if (stream->context != &context) fail(kStreamContext, "the stream belongs to another context");
  return *stream;
}

}  // namespace fakecann

using namespace fakecann;  // NOLINT: the exported names are global

aclError aclInit(const char*) {
  return guarded(__func__, [] {
    if (is_initialized) fail(kRepeatInitialize, "aclInit was called before");
    is_initialized = true;
  });
}

aclError aclFinalize() {
  return guarded(__func__, [] {
    if (!is_initialized) fail(kUninitialized, "aclInit has not been called");
    is_initialized = false;
    if (Memory::instance().live() > 0) {
      log_line("aclFinalize: " + std::to_string(Memory::instance().live()) + " allocations were never freed");
    }
  });
}

const char* aclGetRecentErrMsg() { return recent_error(); }

const char* aclrtGetSocName() { return config().profile.soc; }

aclError aclrtGetVersion(int32_t* major, int32_t* minor, int32_t* patch) {
  return guarded(__func__, [&] {
    *major = 1;
    *minor = 17;
    *patch = 0;
  });
}

aclError aclsysGetVersionStr(char* package, char* version) {
  return guarded(__func__, [&] {
    if (package == nullptr || version == nullptr) fail(kInvalidParameter, "null argument");
    copy_version(config().profile.cann_version, version);
  });
}

// Two decimal digits for each part and four for what follows: 8.5.0 is 80500000.
aclError aclsysGetVersionNum(char* package, int32_t* version) {
  return guarded(__func__, [&] {
    int parts[3] = {};
    if (package == nullptr || version == nullptr) fail(kInvalidParameter, "null argument");
    std::sscanf(config().profile.cann_version, "%d.%d.%d", &parts[0], &parts[1], &parts[2]);
    *version = (parts[0] * 10000 + parts[1] * 100 + parts[2]) * 1000;
  });
}

aclError aclrtGetDeviceCount(uint32_t* count) {
  return guarded(__func__, [&] { *count = static_cast<uint32_t>(config().devices); });
}

aclError aclrtSetDevice(int32_t device) {
  return guarded(__func__, [&] {
    if (!is_initialized) fail(kUninitialized, "aclInit has not been called");
    require_device(device);
    thread_context = primary_context(device);
  });
}

aclError aclrtResetDevice(int32_t device) {
  return guarded(__func__, [&] {
    require_device(device);
    forget_device_loss();
    Context* context = primary_context(device);
    auto& graphs = Streams::instance().graphs;
    std::erase_if(graphs, [&](const auto& each) { return each.second->origin->context == context; });
    drop_streams(context, true);
    Memory::instance().release_device(device);
    if (thread_context == context) thread_context = nullptr;
  });
}

aclError aclrtGetDevice(int32_t* device) {
  return guarded(__func__, [&] { *device = current_context().device; });
}

aclError aclrtGetDeviceInfo(uint32_t device, int attribute, int64_t* value) {
  return guarded(__func__, [&] {
    require_device(device);
    constexpr int kCubeCores = 1, kVectorCores = 2;
    const bool is_310p = config().profile.bit == k310P;
    if (attribute == kVectorCores) {
      *value = is_310p ? 8 : 40;
    } else {
      *value = is_310p ? 8 : attribute == kCubeCores ? 20 : 24;
    }
  });
}

aclError aclGetDeviceCapability(uint32_t device, int, int64_t* value) {
  return guarded(__func__, [&] {
    require_device(device);
    *value = config().profile.bit == k310P ? 8 : 20;
  });
}

aclError aclrtCreateContext(aclrtContext* context, int32_t device) {
  return guarded(__func__, [&] {
    require_device(device);
    auto* made = new Context{device};
    Streams::instance().contexts.insert(made);
    thread_context = made;
    *context = made;
  });
}

aclError aclrtDestroyContext(aclrtContext handle) {
  return guarded(__func__, [&] {
    auto* context = static_cast<Context*>(handle);
    if (Streams::instance().contexts.erase(context) == 0) fail(kNoContext, "not a live context");
    drop_streams(context, true);
    if (thread_context == context) thread_context = nullptr;
  });
}

aclError aclrtSetCurrentContext(aclrtContext handle) {
  return guarded(__func__, [&] {
    auto* context = static_cast<Context*>(handle);
    if (Streams::instance().contexts.count(context) == 0) fail(kNoContext, "not a live context");
    thread_context = context;
  });
}

aclError aclrtGetCurrentContext(aclrtContext* context) {
  return guarded(__func__, [&] { *context = &current_context(); });
}

aclError aclrtDeviceCanAccessPeer(int32_t* can_access, int32_t device, int32_t peer) {
  return guarded(__func__, [&] {
    require_device(device);
    require_device(peer);
    *can_access = device != peer;
  });
}

aclError aclrtDeviceEnablePeerAccess(int32_t peer, uint32_t flags) {
  return guarded(__func__, [&] {
    require_device(peer);
    if (flags != 0) fail(kInvalidParameter, "flags must be 0");
  });
}

aclError aclrtGetLastError(int) { return kOk; }

aclError aclrtPeekAtLastError(int) { return kOk; }

aclError fakecannConfigure(const char* name, const char* value) {
  return guarded(__func__, [&] { configure(config(), name, value); });
}

aclError fakecannFaultLeft(const char* name, int64_t* left) {
  return guarded(__func__, [&] { *left = fault_value(name, -1); });
}

aclError fakecannPendingTasks(uint64_t* count) {
  return guarded(__func__, [&] { *count = pending_tasks(); });
}
