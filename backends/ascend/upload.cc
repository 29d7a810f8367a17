// SPDX-License-Identifier: Apache-2.0
#include "upload.h"

#include <algorithm>

#include "memory.h"

namespace turbomind::ascend {
namespace {

constexpr int64_t kBufferBytes = int64_t{16} << 20;  // unless one piece is larger

struct Buffer {
  Memory data;
  EventHandle read;
  bool used = false;
};

}  // namespace

void upload(Stream& stream, void* dst, int64_t count, int64_t piece_bytes,
            const std::function<void(int64_t first, int64_t some, std::byte* to)>& fill) {
  if (count <= 0 || piece_bytes <= 0) return;
  const int64_t at_once = std::clamp<int64_t>(kBufferBytes / piece_bytes, 1, count);
  Buffer buffers[2];
  for (Buffer& buffer : buffers)
    buffer.data = Memory(TM_MEMORY_PINNED_HOST, static_cast<size_t>(at_once * piece_bytes));
  auto* to = static_cast<std::byte*>(dst);
  size_t turn = 0;
  for (int64_t first = 0; first < count; first += at_once, turn = 1 - turn) {
    const int64_t some = std::min(at_once, count - first);
    Buffer& buffer = buffers[turn];
    if (buffer.used) buffer.read.synchronize();
    fill(first, some, static_cast<std::byte*>(buffer.data.data()));
    const auto bytes = static_cast<size_t>(some * piece_bytes);
    stream.copy_async(to, buffer.data.data(), bytes, TM_HOST_TO_DEVICE);
    buffer.read.record(stream.handle());
    buffer.used = true;
    to += bytes;
  }
  try {
    stream.synchronize();
  } catch (...) {
    stream.drain();  // the buffers go, whatever came of it
    throw;
  }
}

}  // namespace turbomind::ascend
