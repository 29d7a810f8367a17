// SPDX-License-Identifier: Apache-2.0
//
// Streams, events, captured graphs and the order in which their tasks run.
//
// Nothing runs on a thread of its own: tasks run inside the calls of the interface, as late or as early as the schedule
// says, in an order that streams and events allow. Immediate: at once where nothing stands before. Lazy: each at the
// last moment, when a synchronisation asks for it. Random: at any legal moment, drawn from a seed.
#ifndef FAKECANN_RUNTIME_STREAM_H_
#define FAKECANN_RUNTIME_STREAM_H_

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "abi/types.h"
#include "runtime/core.h"

#pragma GCC visibility push(default)

namespace fakecann {

struct Stream;
struct Graph;

struct Context {
  int device;
  Stream* default_stream = nullptr;
};

// One piece of work of a stream.
struct Task {
  std::string name;
  std::function<void(Stream&)> run;
  std::function<bool()> is_ready;    // none: always
  std::function<Stream*()> blocker;  // the stream whose progress makes it ready, when one is known
};
// Makes the task anew for each replay: collectives take a new number each time.
using TaskMaker = std::function<Task()>;

struct EventState {
  uint32_t flags = 0;
  bool is_ex = false;
  uint64_t recorded = 0;  // records enqueued
  uint64_t done = 0;      // the latest of them that has run
  uint64_t waits_pending = 0;
  Stream* recorder = nullptr;
  double time_ms = 0;
  bool is_set = false;  // external events are flags: record sets, reset clears
  // Inside a capture: the graph and the nodes that the last record stands for.
  std::weak_ptr<Graph> graph;
  std::set<int> nodes;
};
struct Event {
  std::shared_ptr<EventState> state = std::make_shared<EventState>();
};

struct Node {
  std::string name;
  TaskMaker make;
  std::set<int> after;
};

struct TaskGroup {
  std::weak_ptr<Graph> graph;
  std::vector<int> nodes;
};

struct Graph {
  std::vector<Node> nodes;
  Stream* origin = nullptr;
  std::thread::id thread;
  int mode = 0;
  std::set<Stream*> streams;  // every stream that took part
  size_t stream_cost = 0;
  int running = 0;
  bool is_active = false;
  bool is_invalid = false;
  std::vector<std::unique_ptr<TaskGroup>> groups;
};

struct Stream {
  int id = 0;
  Context* context = nullptr;
  bool is_default = false;
  bool stops_on_failure = false;
  bool is_running = false;
  std::deque<Task> tasks;
  int error = 0;
  std::string error_text;
  // Capture.
  std::shared_ptr<Graph> graph;
  std::set<int> tail;  // the nodes that the next one comes after
  TaskGroup* group = nullptr;
  // Task update.
  TaskGroup* update = nullptr;
  std::vector<std::pair<std::string, TaskMaker>> updates;
};

struct Streams {
  std::set<Stream*> live;
  std::set<Event*> events;
  std::map<Graph*, std::shared_ptr<Graph>> graphs;
  std::set<Context*> contexts;
  std::map<int, Context*> primary;
  int next_id = 0;

  static Streams& instance();
};

// The calling thread's context; refuses a thread that has none.
Context& current_context();
// The stream behind a handle (null: the context's default stream). Refuses another context's and a dead one.
Stream& find_stream(aclrtStream handle);

// Enqueues or captures one task. `is_updatable`: whether a task group's update may replace it.
void enqueue(Stream& stream, const std::string& name, TaskMaker make);
void enqueue(Stream& stream, const std::string& name, std::function<void(Stream&)> run);
// Runs what `stream` needs until it is empty or, with `done`, until that says so; reports the stream's error.
void synchronize(Stream& stream, int timeout_ms, int timeout_code, const std::function<bool()>& done = nullptr);
void raise_error(Stream& stream);
// Runs one task that is needed for `stream` to go on; false when none can run.
bool advance(Stream& stream);
// What the schedule runs of its own accord after a call.
void after_call();
size_t pending_tasks();

// graph.cc: the rules of a capture.
enum class Forbidden { kSync, kPageable };
void refuse_while_capturing(Stream* stream, Forbidden what);
void capture(Stream& stream, const std::string& name, TaskMaker make);
void join_capture(Stream& stream, const EventState& event);
size_t captured_stream_cost();

}  // namespace fakecann

#pragma GCC visibility pop

#endif  // FAKECANN_RUNTIME_STREAM_H_
