// SPDX-License-Identifier: Apache-2.0
//
// Every rank is a thread with a context and a stream of its own, as in the engine.
#include <algorithm>
#include <chrono>
#include <functional>
#include <future>
#include <mutex>
#include <numeric>
#include <thread>

#include "reference/ops.h"
#include "suite.h"
#include "turbomind/runtime/comm.h"

namespace turbomind::conformance {
namespace {

struct Rank {
  const Device& device;
  Stream& stream;
  Comm& comm;
};

// Runs body on `size` ranks; the first thing that went wrong on any of them. Throws NotOffered if the backend cannot
// join so many ranks on this machine.
std::string on_ranks(const Session& session, int size, const std::function<std::string(Rank&)>& body) {
  const Plugin& plugin = session.device.plugin();
  if (!plugin.comm()) throw NotOffered{"the collectives table is NULL"};
  const CommId id = Comm::unique_id(session.device);
  const int32_t device_count = plugin.device_count();
  std::mutex mutex;  // guards wrong and refused
  std::string wrong;
  std::string refused;
  const auto run_rank = [&](int rank) {
    std::string result;
    try {
      const Device device(plugin, rank % device_count, session.config);
      device.set_thread();
      Stream stream(device);
      Comm comm(device, id, rank, size);
      Rank context{device, stream, comm};
      result = body(context);
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kUnsupported) {
        const std::lock_guard lock(mutex);
        refused = error.what();
        return;
      }
      result = error.what();
    } catch (const std::exception& error) {
      result = error.what();
    }
    const std::lock_guard lock(mutex);
    if (wrong.empty() && !result.empty()) wrong = "rank " + std::to_string(rank) + ": " + result;
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) threads.emplace_back(run_rank, rank);
  for (std::thread& thread : threads) thread.join();
  if (wrong.empty() && !refused.empty()) throw NotOffered{refused};
  return wrong;
}

struct Finally {
  explicit Finally(std::function<void()> fn) : fn_(std::move(fn)) {}
  ~Finally() { fn_(); }
  std::function<void()> fn_;
};

// Element i of rank r's input; small integers, exact in every dtype and sum.
double input_value(int rank, int64_t i) { return static_cast<double>((i * 7 + rank * 3) % 11 - 5); }

enum class Collective {
  kAllReduceSum,
  kAllReduceMax,
  kAllReduceInPlace,
  kAllGather,
  kReduceScatter,
  kBroadcast,
  kAllToAll
};

// What rank expects at element i of its output; count: elements of one rank's share.
double expected_value(Collective what, int rank, int size, int64_t count, int64_t i) {
  double sum = 0;
  double largest = input_value(0, i);
  const int64_t share = what == Collective::kReduceScatter ? rank * count + i : i;
  for (int r = 0; r < size; ++r) {
    sum += input_value(r, share);
    largest = std::max(largest, input_value(r, i));
  }
  switch (what) {
    case Collective::kAllReduceMax:
      return largest;
    case Collective::kAllGather:
      return input_value(static_cast<int>(i / count), i % count);
    case Collective::kBroadcast:
      return input_value(size - 1, i);
    case Collective::kAllToAll:
      return input_value(static_cast<int>(i / count), rank * count + i % count);
    default:
      return sum;
  }
}

std::string run_collective(Rank& rank, Collective what, DType dtype, int64_t count) {
  const int size = rank.comm.size();
  const bool spread = what == Collective::kReduceScatter || what == Collective::kAllToAll;
  const bool gathered = what == Collective::kAllGather || what == Collective::kAllToAll;
  const bool in_place = what == Collective::kAllReduceInPlace || what == Collective::kBroadcast;
  TestTensor in(rank.device, "in", in_place ? Role::kInOut : Role::kInput, dtype,
                spread ? std::vector<int64_t>{size, count} : std::vector<int64_t>{count});
  TestTensor out(rank.device, "out", Role::kOutput, dtype,
                 gathered ? std::vector<int64_t>{size, count} : std::vector<int64_t>{count});
  for (int64_t i = 0; i < in.size(); ++i) in.set(i, input_value(rank.comm.rank(), i));
  in.upload(rank.stream);
  out.upload(rank.stream);
  switch (what) {
    case Collective::kAllReduceSum:
      rank.comm.all_reduce(rank.stream, in.view(), out.view());
      break;
    case Collective::kAllReduceMax:
      rank.comm.all_reduce(rank.stream, in.view(), out.view(), TM_REDUCE_MAX);
      break;
    case Collective::kAllReduceInPlace:
      rank.comm.all_reduce(rank.stream, in.view(), in.view());
      break;
    case Collective::kAllGather:
      rank.comm.all_gather(rank.stream, in.view(), out.view());
      break;
    case Collective::kReduceScatter:
      rank.comm.reduce_scatter(rank.stream, in.view(), out.view());
      break;
    case Collective::kBroadcast:
      rank.comm.broadcast(rank.stream, in.view(), size - 1);
      break;
    case Collective::kAllToAll:
      rank.comm.all_to_all(rank.stream, in.view(), out.view());
      break;
  }
  in.download(rank.stream);
  out.download(rank.stream);
  rank.stream.synchronize();
  const TestTensor& result = in_place ? in : out;
  for (int64_t i = 0; i < result.size(); ++i) {
    const double expected = expected_value(what, rank.comm.rank(), size, count, i);
    if (result.result(i) == expected) continue;
    return "element " + std::to_string(i) + ": expected " + std::to_string(expected) + ", found " +
           std::to_string(result.result(i));
  }
  const std::string changed = in.changed_bytes();
  return changed.empty() ? out.changed_bytes() : changed;
}

struct NamedCollective {
  const char* name;
  Collective what;
};

constexpr NamedCollective kCollectives[] = {{"all_reduce_sum", Collective::kAllReduceSum},
                                            {"all_reduce_max", Collective::kAllReduceMax},
                                            {"all_reduce_in_place", Collective::kAllReduceInPlace},
                                            {"all_gather", Collective::kAllGather},
                                            {"reduce_scatter", Collective::kReduceScatter},
                                            {"broadcast", Collective::kBroadcast},
                                            {"all_to_all", Collective::kAllToAll}};

// Sizes around chunk borders, each dtype, many in a row without a synchronise of the ranks in between.
std::string check_collective(const Session& session, int size, Collective what) {
  return on_ranks(session, size, [&](Rank& rank) {
    for (const DType dtype : {TM_F32, TM_BF16, TM_F16}) {
      if (!dtype_in(dtype, rank.device.props().activation_dtypes)) continue;
      for (const int64_t count : {1, 5, 64, 1000, 40001}) {
        const std::string wrong = run_collective(rank, what, dtype, count);
        if (!wrong.empty()) return std::string(dtype_name(dtype)) + " x " + std::to_string(count) + ": " + wrong;
      }
    }
    return std::string();
  });
}

// Sums of numbers that do not add exactly: every rank must hold the same bits.
std::string check_same_bits(const Session& session, int size) {
  std::mutex mutex;  // guards first
  std::vector<uint8_t> first;
  return on_ranks(session, size, [&](Rank& rank) -> std::string {
    TestTensor data(rank.device, "data", Role::kInOut, TM_F32, {4099});
    Random random(static_cast<uint64_t>(rank.comm.rank()) + 1);
    data.fill_normal(random);
    data.upload(rank.stream);
    rank.comm.all_reduce(rank.stream, data.view(), data.view());
    data.download(rank.stream);
    rank.stream.synchronize();
    const std::lock_guard lock(mutex);
    if (first.empty()) first = data.result_image();
    return first == data.result_image() ? "" : "the ranks hold different bits";
  });
}

// Rank 0 never joins in; another thread aborts rank 1, already waiting for its stream or for an event on it, which must
// come back with an error.
std::string check_abort(const Session& session, bool by_event) {
  std::promise<Comm*> waiting;
  std::promise<void> done;
  return on_ranks(session, 2, [&](Rank& rank) -> std::string {
    TestTensor data(rank.device, "data", Role::kInOut, TM_F32, {64});
    data.upload(rank.stream);
    rank.stream.synchronize();
    if (rank.comm.rank() == 0) {
      Comm* other = waiting.get_future().get();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      other->abort();
      rank.comm.abort();
      done.get_future().wait();
      return {};
    }
    const Finally finally([&] { done.set_value(); });
    waiting.set_value(&rank.comm);
    try {
      rank.comm.all_reduce(rank.stream, data.view(), data.view());
      Event event(rank.device);
      event.record(rank.stream);
      if (by_event) {
        event.synchronize();
      } else {
        rank.stream.synchronize();
      }
    } catch (const Error& error) {
      return error.code() == ErrorCode::kDevice ? "" : std::string("expected a device error, found ") + error.what();
    }
    return "all_reduce returned although the other rank had given up";
  });
}

// The fused sum and norm, against the reference on the sum of all ranks' inputs.
std::string check_all_reduce_norm(const Session& session, int size, DType dtype) {
  if (!session.device.plugin().op().all_reduce_add_rms_norm) {
    throw NotOffered{"the all_reduce_add_rms_norm slot is NULL"};
  }
  return on_ranks(session, size, [&](Rank& rank) -> std::string {
    constexpr int64_t kRows = 5;
    constexpr int64_t kWidth = 100;
    Case c(rank.device, rank.stream, static_cast<uint64_t>(rank.comm.rank()) + 1);
    TestTensor& x = c.in_out("x", dtype, {kRows, kWidth});
    TestTensor& residual = c.in_out("residual", dtype, {kRows, kWidth});
    TestTensor& weight = c.input("weight", TM_F32, {kWidth});
    TestTensor& out = c.output("out", dtype, {kRows, kWidth});
    Random shared(77);  // the residual and the weight are the same on every rank
    residual.fill_normal(shared);
    weight.fill_uniform(shared, 0.5, 1.5);
    for (int64_t i = 0; i < x.size(); ++i) {
      double sum = residual.get(i);
      for (int r = 0; r < size; ++r) sum += input_value(r, i);
      residual.expected.push_back(sum);
      x.set(i, input_value(rank.comm.rank(), i));
    }
    out.expected = reference::rms_norm(residual.expected, weight.values(), 1e-5);
    for (TestTensor& tensor : c.tensors()) tensor.upload(rank.stream);
    const tm_add_rms_norm_args norm{.struct_size = sizeof(tm_add_rms_norm_args),
                                    .x = x.view(),
                                    .residual = residual.view(),
                                    .weight = weight.view(),
                                    .eps = 1e-5f,
                                    .out = out.view()};
    c.call(TM_OP_all_reduce_add_rms_norm, c.op().all_reduce_add_rms_norm,
           tm_all_reduce_add_rms_norm_args{.comm = rank.comm.handle(), .norm = norm});
    for (TestTensor& tensor : c.tensors()) tensor.download(rank.stream);
    rank.stream.synchronize();
    const Tolerance bound = tolerance(dtype == TM_F32 ? Arithmetic::kFloat32 : Arithmetic::kHalf, dtype);
    for (const TestTensor* tensor : {&residual, &out}) {
      const std::string wrong = compare(tensor->results(), tensor->expected, bound);
      if (!wrong.empty()) return tensor->name() + ": " + wrong;
    }
    return c.changed_guards();
  });
}

}  // namespace

void add_collective_checks(Suite& suite, const Session& session) {
  constexpr int kSharedDevice = 3;  // larger groups only where every rank has a device of its own
  for (const int size : {1, 2, 3, 4, 8}) {
    if (size > kSharedDevice && session.device.plugin().device_count() < size) continue;
    const std::string tail = "_ranks" + std::to_string(size);
    for (const NamedCollective& collective : kCollectives) {
      suite.add_check("collectives", collective.name + tail,
                      [=](const Session& session) { return check_collective(session, size, collective.what); });
    }
    suite.add_check("collectives", "same_bits" + tail,
                    [=](const Session& session) { return check_same_bits(session, size); });
  }
  suite.add_check("collectives", "abort_ends_waits", [](const Session& s) { return check_abort(s, false); });
  suite.add_check("collectives", "abort_ends_waits_for_events", [](const Session& s) { return check_abort(s, true); });
  for (const DType dtype : session.activation_dtypes()) {
    for (const int size : {1, 2, 3}) {
      suite.add_check("all_reduce_add_rms_norm", dtype_name(dtype), "ranks" + std::to_string(size),
                      [=](const Session& s) { return check_all_reduce_norm(s, size, dtype); });
    }
  }
}

}  // namespace turbomind::conformance
