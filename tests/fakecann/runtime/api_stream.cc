// SPDX-License-Identifier: Apache-2.0
//
// Exported functions: streams and events.
#include <chrono>

#include "abi/control.h"
#include "abi/runtime.h"
#include "runtime/memory.h"
#include "runtime/stream.h"

namespace fakecann {

bool take_fault_unit(const char* name, int64_t units);

namespace {

double now_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::shared_ptr<EventState> find_event(aclrtEvent handle) {
  auto* event = static_cast<Event*>(handle);
  if (Streams::instance().events.count(event) == 0) fail(kInvalidHandle, "not a live event");
  return event->state;
}

bool is_external(const EventState& event) { return (event.flags & ACL_EVENT_EXTERNAL) != 0; }

aclError create_stream(const char* function, aclrtStream* stream) {
  return guarded(function, [&] {
    Context& context = current_context();
    Streams& streams = Streams::instance();
    uint32_t available = 0;
    for (const Stream* live : streams.live) available += live->is_default ? 0 : 1;
    const int64_t limit = fault_value("streams", config().profile.streams);
    if (static_cast<int64_t>(available + captured_stream_cost()) >= limit)
      fail(kNoStreams, "the device has no more streams");
    auto* made = new Stream{.id = streams.next_id++, .context = &context};
    streams.live.insert(made);
    *stream = made;
  });
}

aclError create_event(const char* function, aclrtEvent* event, uint32_t flags, bool is_ex) {
  return guarded(function, [&] {
    current_context();
    Streams& streams = Streams::instance();
    const int64_t limit = fault_value("events", config().profile.events);
    if (static_cast<int64_t>(streams.events.size()) >= limit) fail(kNoEvents, "the device has no more events");
    auto* made = new Event;
    made->state->flags = flags;
    made->state->is_ex = is_ex;
    streams.events.insert(made);
    *event = made;
  });
}

aclError destroy_stream(const char* function, aclrtStream handle, bool is_forced) {
  return guarded(function, [&] {
    if (handle == nullptr) fail(kInvalidParameter, "the default stream cannot be destroyed");
    Stream& stream = find_stream(handle);
    if (stream.graph != nullptr) fail(kStreamCaptured, "the stream is being captured");
    if (is_forced) stream.tasks.clear();
    while (!stream.tasks.empty() && advance(stream)) {
    }
    Streams::instance().live.erase(&stream);
  });
}

void record(Stream& stream, const std::shared_ptr<EventState>& event) {
  if (stream.graph != nullptr && !is_external(*event)) {
    event->graph = stream.graph;
    event->nodes = stream.tail;
    return;
  }
  event->graph.reset();
  event->recorder = &stream;
  enqueue(stream, "record", TaskMaker([event] {
            const uint64_t version = ++event->recorded;
            const auto run = [event, version](Stream&) {
              event->done = std::max(event->done, version);
              event->is_set = true;
              event->time_ms = now_ms();
            };
            return Task{"record", run, nullptr, nullptr};
          }));
}

Stream* recorder_of(const EventState& event) {
  return Streams::instance().live.count(event.recorder) != 0 ? event.recorder : nullptr;
}

void wait(Stream& stream, const std::shared_ptr<EventState>& event) {
  if (is_external(*event)) {
    enqueue(stream, "wait", TaskMaker([event] {
              return Task{"wait", [](Stream&) {}, [event] { return event->is_set; },
                          [event] { return recorder_of(*event); }};
            }));
    return;
  }
  if (stream.graph != nullptr || event->graph.lock() != nullptr) {
    join_capture(stream, *event);
    return;
  }
  const uint64_t version = event->recorded;
  if (version == 0) return;
  ++event->waits_pending;
  stream.tasks.push_back({"wait", [event](Stream&) { --event->waits_pending; },
                          [event, version] { return event->done >= version; },
                          [event] { return recorder_of(*event); }});
}

aclError synchronize_event(const char* function, aclrtEvent handle, int timeout_ms) {
  return guarded(function, [&] {
    current_context();
    const auto event = find_event(handle);
    refuse_while_capturing(nullptr, Forbidden::kSync);
    if (event->graph.lock() != nullptr) fail(kCaptureUnsupported, "the event was recorded by a capture");
    Stream* recorder = recorder_of(*event);
    const uint64_t version = event->recorded;
    if (recorder == nullptr || version == 0) return;
    synchronize(*recorder, timeout_ms, kEventSyncTimeout, [&] { return event->done >= version; });
  });
}

}  // namespace
}  // namespace fakecann

using namespace fakecann;  // NOLINT: the exported names are global

aclError aclrtCreateStream(aclrtStream* stream) { return create_stream(__func__, stream); }

aclError aclrtCreateStreamWithConfig(aclrtStream* stream, uint32_t, uint32_t) {
  return create_stream(__func__, stream);
}

aclError aclrtDestroyStream(aclrtStream stream) { return destroy_stream(__func__, stream, false); }

aclError aclrtDestroyStreamForce(aclrtStream stream) { return destroy_stream(__func__, stream, true); }

aclError aclrtSynchronizeStream(aclrtStream stream) {
  return guarded(__func__, [&] {
    Stream& found = find_stream(stream);
    refuse_while_capturing(&found, Forbidden::kSync);
    synchronize(found, 0, kStreamSyncTimeout);
  });
}

aclError aclrtSynchronizeStreamWithTimeout(aclrtStream stream, int32_t timeout_ms) {
  return guarded(__func__, [&] {
    Stream& found = find_stream(stream);
    refuse_while_capturing(&found, Forbidden::kSync);
    synchronize(found, timeout_ms, kStreamSyncTimeout);
  });
}

aclError aclrtSynchronizeDeviceWithTimeout(int32_t timeout_ms) {
  return guarded(__func__, [&] {
    const Context& context = current_context();
    refuse_while_capturing(nullptr, Forbidden::kSync);
    const std::set<Stream*> live = Streams::instance().live;
    for (Stream* stream : live) {
      if (stream->context->device == context.device) synchronize(*stream, timeout_ms, kStreamSyncTimeout);
    }
  });
}

aclError aclrtSynchronizeDevice() { return aclrtSynchronizeDeviceWithTimeout(0); }

// Drops what has not run yet; a synchronisation that waits for it ends with 107023.
aclError aclrtStreamAbort(aclrtStream handle) {
  return guarded(__func__, [&] {
    Stream& stream = find_stream(handle);
    refuse_while_capturing(&stream, Forbidden::kSync);
    if (!stream.tasks.empty() || stream.is_running) {
      stream.error = kStreamAbort;
      stream.error_text = "the stream was aborted";
    }
    stream.tasks.clear();
    tell_news();
  });
}

// A lazy device answers "not ready" and takes one step, so that a caller who polls comes to an end.
aclError aclrtStreamQuery(aclrtStream handle, int* status) {
  return guarded(__func__, [&] {
    Stream& stream = find_stream(handle);
    refuse_while_capturing(&stream, Forbidden::kSync);
    *status = stream.tasks.empty() ? 0 : 1;
    if (*status == 0) {
      raise_error(stream);
    } else {
      advance(stream);
    }
  });
}

aclError aclrtStreamGetId(aclrtStream stream, int32_t* id) {
  return guarded(__func__, [&] { *id = find_stream(stream).id; });
}

aclError aclrtGetStreamAvailableNum(uint32_t* count) {
  return guarded(__func__, [&] {
    size_t used = captured_stream_cost();
    for (const Stream* live : Streams::instance().live) used += live->is_default ? 0 : 1;
    *count = static_cast<uint32_t>(fault_value("streams", config().profile.streams) - static_cast<int64_t>(used));
  });
}

aclError aclrtSetStreamFailureMode(aclrtStream stream, uint64_t mode) {
  return guarded(__func__, [&] {
    if (mode > 1) fail(kInvalidParameter, "no such failure mode");
    find_stream(stream).stops_on_failure = mode == 1;
  });
}

aclError aclrtLaunchHostFunc(aclrtStream handle, void (*function)(void*), void* argument) {
  return guarded(__func__, [&] {
    if (function == nullptr) fail(kInvalidParameter, "null function");
    enqueue(find_stream(handle), "host function", [=](Stream&) { unlocked(function, argument); });
    after_call();
  });
}

aclError aclrtSetOpWaitTimeout(uint32_t seconds) {
  return guarded(__func__, [&] { config().wait_ms = static_cast<int>(seconds == 0 ? 3600 : seconds) * 1000; });
}

aclError aclrtSetOpExecuteTimeOut(uint32_t) { return kOk; }

aclError aclrtCreateEvent(aclrtEvent* event) { return create_event(__func__, event, 0, false); }

aclError aclrtCreateEventWithFlag(aclrtEvent* event, uint32_t flags) {
  return create_event(__func__, event, flags, false);
}

aclError aclrtCreateEventExWithFlag(aclrtEvent* event, uint32_t flags) {
  return create_event(__func__, event, flags, true);
}

aclError aclrtDestroyEvent(aclrtEvent handle) {
  return guarded(__func__, [&] {
    find_event(handle);
    Streams::instance().events.erase(static_cast<Event*>(handle));
    delete static_cast<Event*>(handle);
  });
}

aclError aclrtRecordEvent(aclrtEvent event, aclrtStream stream) {
  return guarded(__func__, [&] {
    record(find_stream(stream), find_event(event));
    after_call();
  });
}

aclError aclrtResetEvent(aclrtEvent handle, aclrtStream stream) {
  return guarded(__func__, [&] {
    const auto event = find_event(handle);
    if (!is_external(*event)) fail(kNotSupported, "only an external event can be reset");
    enqueue(find_stream(stream), "reset", [event](Stream&) { event->is_set = false; });
    after_call();
  });
}

aclError aclrtStreamWaitEvent(aclrtStream stream, aclrtEvent handle) {
  return guarded(__func__, [&] {
    Stream& waiting = find_stream(stream);
    const auto event = find_event(handle);
    if (event->is_ex && (event->flags & (ACL_EVENT_SYNC | ACL_EVENT_EXTERNAL)) == 0) {
      fail(kInvalidParameter, "an event that streams wait for is made with ACL_EVENT_SYNC");
    }
    wait(waiting, event);
    after_call();
  });
}

aclError aclrtSynchronizeEvent(aclrtEvent event) { return synchronize_event(__func__, event, 0); }

aclError aclrtSynchronizeEventWithTimeout(aclrtEvent event, int32_t timeout_ms) {
  return synchronize_event(__func__, event, timeout_ms);
}

aclError aclrtQueryEventStatus(aclrtEvent handle, int* status) {
  return guarded(__func__, [&] {
    current_context();
    const auto event = find_event(handle);
    refuse_while_capturing(nullptr, Forbidden::kSync);
    *status = event->done >= event->recorded ? 1 : 0;
    Stream* recorder = recorder_of(*event);
    if (*status == 0 && recorder != nullptr) advance(*recorder);
  });
}

aclError aclrtQueryEventWaitStatus(aclrtEvent handle, int* status) {
  return guarded(__func__, [&] {
    const auto event = find_event(handle);
    if (event->is_ex) fail(kNotSupported, "an Ex event has no wait status");
    *status = event->waits_pending == 0 ? 0 : 1;
  });
}

aclError aclrtEventElapsedTime(float* milliseconds, aclrtEvent start, aclrtEvent end) {
  return guarded(__func__, [&] {
    const auto from = find_event(start), to = find_event(end);
    for (const auto& event : {from, to}) {
      if (event->is_ex && (event->flags & ACL_EVENT_TIME_LINE) == 0) fail(kInvalidParameter, "the event keeps no time");
      if (event->done == 0) fail(kInvalidParameter, "the event has not happened");
    }
    *milliseconds = static_cast<float>(to->time_ms - from->time_ms);
  });
}

aclError fakecannLiveObjects(const char* kind, uint64_t* count) {
  return guarded(__func__, [&] {
    const std::string name = kind;
    const Streams& streams = Streams::instance();
    if (name == "memory") {
      *count = Memory::instance().live();
    } else if (name == "streams") {
      *count = streams.live.size();
    } else if (name == "events") {
      *count = streams.events.size();
    } else if (name == "graphs") {
      *count = streams.graphs.size();
    } else {
      fail(kInvalidParameter, "no such kind: " + name);
    }
  });
}
