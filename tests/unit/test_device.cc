// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "support/null_backend.h"
#include "support/test.h"
#include "turbomind/runtime/arena.h"
#include "turbomind/runtime/device.h"

namespace turbomind {
namespace {

TEST(device_refuses_bad_index_and_settings) {
  const test::NullBackend null(TM_PLUGIN_NULL);
  EXPECT_ERROR(Device(null.plugin(), 8), ErrorCode::kInvalidArgument, "device index: expected 0 to 7");
  EXPECT_ERROR(Device(null.plugin(), 0, {{"colour", "red"}}), ErrorCode::kInvalidArgument, "'colour' is unknown");
  EXPECT_ERROR(Device(null.plugin(), 0, {{"memory_bytes", "x"}}), ErrorCode::kInvalidArgument, "expected a number");
}

TEST(buffers_count_against_device_memory) {
  const test::NullBackend null(TM_PLUGIN_NULL);
  const Device device(null.plugin(), 0, {{"memory_bytes", "4096"}});
  Buffer first(device, 4000);
  EXPECT_EQ(device.memory_info().free_bytes, 0u);
  EXPECT_ERROR(Buffer(device, 1), ErrorCode::kOutOfMemory, "null backend: alloc: cannot allocate 1 bytes");
  const Buffer pinned(device, 100000, TM_MEMORY_PINNED_HOST);
  const Buffer moved = std::move(first);
  EXPECT(first.data() == nullptr);
  EXPECT_EQ(moved.bytes(), 4000u);
}

TEST(handles_outlive_the_device_object) {
  const test::NullBackend null(TM_PLUGIN_NULL);
  Buffer buffer;
  {
    const Device device(null.plugin(), 0);
    buffer = Buffer(device, 64);
  }
  EXPECT(buffer.data() != nullptr);
}

TEST(asynchronous_copies_run_at_synchronise) {
  const test::NullBackend null(TM_PLUGIN_NULL);
  const Device device(null.plugin(), 0, {{"asynchronous", "1"}});
  Stream stream(device);
  Event event(device);
  int source = 7;
  int target = 0;
  stream.copy(&target, &source, sizeof source, TM_HOST_TO_DEVICE);
  event.record(stream);
  EXPECT_EQ(target, 0);
  EXPECT(!event.reached());
  EXPECT_EQ(target, 7);
  EXPECT(event.reached());
  source = 8;
  stream.copy(&target, &source, sizeof source, TM_HOST_TO_DEVICE);
  stream.synchronize();
  EXPECT_EQ(target, 8);
}

TEST(a_stream_waits_for_another_streams_event) {
  const test::NullBackend null(TM_PLUGIN_NULL);
  const Device device(null.plugin(), 0, {{"asynchronous", "1"}});
  Stream first(device);
  Stream second(device);
  Event event(device);
  int source = 1;
  int middle = 0;
  int target = 0;
  first.copy(&middle, &source, sizeof source, TM_HOST_TO_DEVICE);
  event.record(first);
  event.wait(second);
  second.copy(&target, &middle, sizeof source, TM_HOST_TO_DEVICE);
  second.synchronize();
  EXPECT_EQ(target, 1);
}

TEST(captured_copies_replay_with_current_data) {
  const test::NullBackend null(TM_PLUGIN_NULL);
  const Device device(null.plugin(), 0);
  Stream stream(device);
  int source = 1;
  int target = 0;
  stream.capture_begin();
  stream.copy(&target, &source, sizeof source, TM_HOST_TO_DEVICE);
  const Graph graph = stream.capture_end();
  EXPECT_EQ(target, 0);
  source = 5;
  graph.launch(stream, {});
  EXPECT_EQ(target, 5);
  const Device eager(null.plugin(), 0, {{"can_capture", "0"}});
  Stream eager_stream(eager);
  EXPECT(!eager.can_capture());
  EXPECT_ERROR(eager_stream.capture_begin(), ErrorCode::kUnsupported, "capture_begin");
}

TEST(injected_faults_become_errors_once) {
  const test::NullBackend null(TM_PLUGIN_NULL);
  const Device device(null.plugin(), 0);
  Stream stream(device);
  null.fail("stream_synchronize", 2, TM_DEVICE_LOST);
  stream.synchronize();
  EXPECT_ERROR(stream.synchronize(), ErrorCode::kDeviceLost, "injected fault in stream_synchronize");
  stream.synchronize();
  EXPECT_EQ(null.count("stream_synchronize"), 3);
}

TEST(arena_measures_then_serves) {
  const test::NullBackend null(TM_PLUGIN_NULL);
  const Device device(null.plugin(), 0);
  const auto step = [](Arena& arena) {
    arena.reset();
    arena.allocate("hidden", TM_F32, {4, 64});
    {
      const Arena::Scope scope(arena);
      arena.allocate("ffn", TM_F32, {4, 256});
    }
    return arena.allocate("logits", TM_F32, {1, 64});
  };
  Arena measuring;
  EXPECT(is_given(step(measuring)));
  EXPECT_EQ(measuring.peak(), 1024u + 4096u);
  EXPECT_EQ(measuring.peak_regions().size(), 2u);
  EXPECT_EQ(std::string(measuring.peak_regions().at(1).name), "ffn");
  Arena arena(device, measuring.peak());
  const Tensor logits = step(arena);
  static_cast<float*>(logits.data)[63] = 1;
  EXPECT_EQ(arena.used(), 1024u + 256u);
  EXPECT_ERROR(arena.allocate("more", TM_F32, {2048}), ErrorCode::kOutOfMemory, "arena: more");
}

TEST(workspace_grows_only_outside_capture) {
  const test::NullBackend null(TM_PLUGIN_NULL);
  const Device device(null.plugin(), 0);
  Stream stream(device);
  Workspace workspace(device, stream);
  EXPECT_EQ(workspace.require(100).bytes, 256u);
  void* before = workspace.require(200).data;
  stream.capture_begin();
  EXPECT_EQ(workspace.require(256).data, before);
  EXPECT_ERROR(workspace.require(257), ErrorCode::kInternal, "while capturing");
  const Graph graph = stream.capture_end();
  const uint64_t free_before = device.memory_info().free_bytes;
  workspace.require(1000);
  EXPECT_EQ(free_before - device.memory_info().free_bytes, 1024u);  // what the graph uses is kept
}

}  // namespace
}  // namespace turbomind
