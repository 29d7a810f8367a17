// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/rank_group.h"

#include <utility>

namespace turbomind {

RankGroup::RankGroup(const Plugin& plugin, std::vector<int32_t> device_indices, Config config)
    : plugin_(plugin), device_indices_(std::move(device_indices)), config_(std::move(config)) {
  open();
  for (int32_t index = 1; index < size(); ++index) threads_.emplace_back([this, index] { work(index); });
}

RankGroup::~RankGroup() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  started_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void RankGroup::open() {
  std::vector<std::unique_ptr<Rank>> ranks;
  for (const int32_t index : device_indices_) ranks.push_back(std::make_unique<Rank>(plugin_, index, config_));
  const std::lock_guard lock(mutex_);
  ranks_ = std::move(ranks);
  connected_ = size() == 1;
}

void RankGroup::reopen() {
  std::vector<std::unique_ptr<Rank>> dead;
  {
    const std::lock_guard lock(mutex_);
    abort_locked();  // streams do not end before what they wait for
    dead = std::exchange(ranks_, {});
  }
  // First the dead, as they may stand in the way of the living.
  dead.clear();
  open();
}

void RankGroup::run(const std::function<void(Rank&, int32_t)>& fn) {
  if (!connected_) connect();
  try {
    run_all(fn);
  } catch (...) {
    connected_ = size() == 1;
    throw;
  }
}

void RankGroup::run_all(const std::function<void(Rank&, int32_t)>& fn) {
  {
    const std::lock_guard lock(mutex_);
    task_ = &fn;
    failure_ = nullptr;
    num_busy_ = size() - 1;
    ++round_;
  }
  started_.notify_all();
  run_rank(0);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [&] { return num_busy_ == 0; });
  task_ = nullptr;
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void RankGroup::work(int32_t index) {
  uint64_t seen = 0;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      started_.wait(lock, [&] { return stopping_ || round_ != seen; });
      if (stopping_) return;
      seen = round_;
    }
    run_rank(index);
    {
      const std::lock_guard lock(mutex_);
      --num_busy_;
    }
    done_.notify_one();
  }
}

void RankGroup::run_rank(int32_t index) {
  try {
    rank(index).device.set_thread();
    (*task_)(rank(index), index);
  } catch (...) {
    record_failure();
  }
}

void RankGroup::record_failure() {
  const std::lock_guard lock(mutex_);
  if (failure_) return;
  failure_ = std::current_exception();
  abort_locked();
}

void RankGroup::abort() {
  const std::lock_guard lock(mutex_);
  abort_locked();
}

void RankGroup::abort_locked() {
  for (const auto& rank : ranks_) {
    if (rank->comm) rank->comm->abort();
  }
}

void RankGroup::connect() {
  // Before a communicator goes, what holds it must be gone.
  run_all([](Rank& rank, int32_t) {
    if (rank.runner) rank.runner->drop_recordings();
  });
  const CommId id = Comm::unique_id(rank(0).device);
  std::vector<std::unique_ptr<Comm>> comms(ranks_.size());
  run_all([&](Rank& rank, int32_t index) {
    comms[static_cast<size_t>(index)] = std::make_unique<Comm>(rank.device, id, index, size());
  });
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < ranks_.size(); ++i) {
    // In place where there was one: the layers know it by its address.
    if (ranks_[i]->comm) {
      *ranks_[i]->comm = std::move(*comms[i]);
    } else {
      ranks_[i]->comm = std::move(comms[i]);
    }
  }
  connected_ = true;
}

}  // namespace turbomind
