// SPDX-License-Identifier: Apache-2.0
#include "runtime/stream.h"

#include <algorithm>
#include <chrono>

namespace fakecann {
namespace {

// Collectives time out after as long as a wait does; their own code comes first.
constexpr int kGraceMs = 1000;

bool has_ready_head(const Stream& stream) {
  if (stream.is_running || stream.tasks.empty()) return false;
  if (stream.error != 0 && stream.stops_on_failure) return false;
  const Task& head = stream.tasks.front();
  return !head.is_ready || head.is_ready();
}

void run_head(Stream& stream) {
  const Task task = std::move(stream.tasks.front());
  stream.tasks.pop_front();
  stream.is_running = true;
  try {
    count_task(task.name);
    task.run(stream);
  } catch (const Failure& failure) {
    if (stream.error == 0) {
      stream.error = failure.code();
      stream.error_text = "task " + task.name + ": " + failure.what();
    }
    if (config().log) log_line("FAILED " + stream.error_text);
  }
  stream.is_running = false;
  if (stream.error != 0 && stream.stops_on_failure) stream.tasks.clear();
  tell_news();
}

bool run_any(bool is_random) {
  std::vector<Stream*> ready;
  for (Stream* stream : Streams::instance().live) {
    if (has_ready_head(*stream)) ready.push_back(stream);
  }
  if (ready.empty()) return false;
  // By age, not by address: the same seed must give the same order.
  std::sort(ready.begin(), ready.end(), [](const Stream* a, const Stream* b) { return a->id < b->id; });
  run_head(*ready[is_random ? draw(ready.size()) : 0]);
  return true;
}

}  // namespace

Streams& Streams::instance() {
  static auto* streams = new Streams;
  return *streams;
}

void enqueue(Stream& stream, const std::string& name, TaskMaker make) {
  if (stream.update != nullptr) {
    stream.updates.emplace_back(name, std::move(make));
  } else if (stream.graph != nullptr) {
    capture(stream, name, std::move(make));
  } else {
    stream.tasks.push_back(make());
  }
}

void enqueue(Stream& stream, const std::string& name, std::function<void(Stream&)> run) {
  enqueue(stream, name, TaskMaker([name, run] { return Task{name, run, nullptr, nullptr}; }));
}

// Follows what the head waits for, so that only needed tasks run.
bool advance(Stream& stream) {
  std::set<Stream*> seen;
  for (Stream* at = &stream; at != nullptr && seen.insert(at).second;) {
    if (has_ready_head(*at)) {
      run_head(*at);
      return true;
    }
    if (at->tasks.empty() || !at->tasks.front().blocker) break;
    at = at->tasks.front().blocker();
  }
  return run_any(false);
}

void raise_error(Stream& stream) {
  if (stream.error == 0) return;
  const int code = stream.error;
  const std::string text = stream.error_text;
  if (!stream.stops_on_failure) stream.error = 0;
  fail(code, text);
}

void synchronize(Stream& stream, int timeout_ms, int timeout_code, const std::function<bool()>& done) {
  using Clock = std::chrono::steady_clock;
  const auto limit = std::chrono::milliseconds(timeout_ms > 0 ? timeout_ms : config().wait_ms);
  const bool is_random = config().schedule == Schedule::kRandom;
  const bool may_end_early = timeout_ms > 0 && config().schedule != Schedule::kImmediate;
  const auto is_over = [&] { return done ? done() : stream.tasks.empty() && !stream.is_running; };
  auto stuck_since = Clock::now();
  while (!is_over()) {
    if (is_random && draw(2) == 0 ? run_any(true) : advance(stream)) {
      stuck_since = Clock::now();
      // How long a task takes nobody knows: a bounded wait may be over after any.
      if (may_end_early && !is_over() && (!is_random || draw(2) == 0)) fail(timeout_code, "the time is up");
      continue;
    }
    if (stream.error != 0 && stream.stops_on_failure) break;
    if (Clock::now() - stuck_since > limit + std::chrono::milliseconds(timeout_ms > 0 ? 0 : kGraceMs))
      fail(timeout_code, "nothing can end this wait");
    wait_for_news(1);
  }
  raise_error(stream);
}

void after_call() {
  if (config().schedule == Schedule::kImmediate) {
    while (run_any(false)) {
    }
  } else if (config().schedule == Schedule::kRandom) {
    for (uint64_t some = draw(4); some > 0 && run_any(true); --some) {
    }
  }
}

size_t pending_tasks() {
  size_t count = 0;
  for (const Stream* stream : Streams::instance().live) count += stream->tasks.size();
  return count;
}

}  // namespace fakecann
