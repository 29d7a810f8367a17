// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "turbomind/engine/model_runner.h"
#include "turbomind/models/decoder.h"
#include "turbomind/runtime/comm.h"
#include "turbomind/runtime/device.h"

namespace turbomind {

// What one tensor-parallel rank owns, in order of construction.
struct Rank {
  Rank(const Plugin& plugin, int32_t device_index, const Config& config)
      : device(plugin, device_index, config), stream(device) {}

  Device device;
  Stream stream;
  std::unique_ptr<Comm> comm;  // null for one rank
  std::unique_ptr<Decoder> decoder;
  // What works beside the decoder where the device allows; null for a model that takes no pictures, as the next two.
  std::unique_ptr<Stream> encoder_stream;
  std::unique_ptr<Encoder> encoder;
  std::unique_ptr<EncoderRunner> encoder_runner;  // from prepare on, as the next
  std::unique_ptr<ModelRunner> runner;
};

// The ranks and a thread for each but the first, whose work the calling thread does. All ranks do the same things in
// the same order, so their collectives meet. run() is called by one thread at a time.
class RankGroup {
 public:
  RankGroup(const Plugin& plugin, std::vector<int32_t> device_indices, Config config);
  ~RankGroup();
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;

  int32_t size() const { return static_cast<int32_t>(device_indices_.size()); }
  // False after a reopen() that failed: there is no rank then.
  bool is_open() const { return !ranks_.empty(); }
  Rank& rank(int32_t index) { return *ranks_[static_cast<size_t>(index)]; }
  // Destroys every rank with all it holds and opens the devices anew, e.g. after a loss.
  void reopen();
  // fn(rank, index) for every rank at once; returns when all are done. If one fails, the others' collectives are ended,
  // and the error that came first is thrown; the next run() connects the ranks anew.
  void run(const std::function<void(Rank&, int32_t)>& fn);
  // Ends the collectives that ranks wait for: a run() at work throws kDevice. Callable from any thread.
  void abort();

 private:
  // Creates the communicators, or replaces those that an error has ended.
  void connect();
  void run_all(const std::function<void(Rank&, int32_t)>& fn);
  void work(int32_t index);
  void run_rank(int32_t index);
  void record_failure();
  void abort_locked();

  void open();

  const Plugin& plugin_;
  const std::vector<int32_t> device_indices_;  // by rank
  const Config config_;
  std::vector<std::unique_ptr<Rank>> ranks_;  // changed by the thread that calls run(), under the mutex
  std::vector<std::thread> threads_;          // of ranks 1..
  bool connected_;

  std::mutex mutex_;  // guards all below, and ranks and communicators against abort()
  std::condition_variable started_;
  std::condition_variable done_;
  const std::function<void(Rank&, int32_t)>* task_ = nullptr;
  uint64_t round_ = 0;
  int32_t num_busy_ = 0;
  bool stopping_ = false;
  std::exception_ptr failure_;
};

}  // namespace turbomind
