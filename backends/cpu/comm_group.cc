// SPDX-License-Identifier: Apache-2.0
#include "comm_group.h"

#include <chrono>
#include <map>
#include <string>

#include "turbomind/abi/tm_backend.hpp"

namespace turbomind::cpu {
namespace {

constexpr std::chrono::minutes kJoinTimeout{2};
constexpr std::chrono::microseconds kSpin{50};  // ranks arrive close together; a sleep costs about as much

// Groups by id. The ranks of a group share no object but the id, so this is where they find each other.
struct Rendezvous {
  std::mutex mutex;  // guards all
  uint64_t last_id = 0;
  std::map<uint64_t, std::weak_ptr<CommGroup>> groups;

  static Rendezvous& instance() {
    static Rendezvous rendezvous;
    return rendezvous;
  }
};

}  // namespace

CommGroup::CommGroup(int32_t size) : calls_(static_cast<size_t>(size)), joined_(static_cast<size_t>(size)) {}

uint64_t CommGroup::make_id() {
  Rendezvous& rendezvous = Rendezvous::instance();
  const std::lock_guard lock(rendezvous.mutex);
  return ++rendezvous.last_id;
}

std::shared_ptr<CommGroup> CommGroup::find(uint64_t id, int32_t size) {
  Rendezvous& rendezvous = Rendezvous::instance();
  const std::lock_guard lock(rendezvous.mutex);
  if (id == 0 || id > rendezvous.last_id) {
    throw abi::Error(TM_INVALID_ARGUMENT, "id: expected one that unique_id() of this process has made");
  }
  std::erase_if(rendezvous.groups, [](const auto& entry) { return entry.second.expired(); });
  std::shared_ptr<CommGroup> group = rendezvous.groups[id].lock();
  if (!group) rendezvous.groups[id] = group = std::make_shared<CommGroup>(size);
  return group;
}

void CommGroup::join(int32_t rank, int32_t size) {
  std::unique_lock lock(mutex_);
  if (size != this->size()) {
    throw abi::Error(TM_INVALID_ARGUMENT, "size: expected " + std::to_string(this->size()) +
                                              " as the other ranks, found " + std::to_string(size));
  }
  if (rank < 0 || rank >= size || joined_[rank]) {
    throw abi::Error(TM_INVALID_ARGUMENT, "rank: expected one of " + std::to_string(size) +
                                              " that has not joined yet, found " + std::to_string(rank));
  }
  joined_[rank] = true;
  ++num_joined_;
  changed_.notify_all();
  if (!changed_.wait_for(lock, kJoinTimeout, [&] { return num_joined_ == this->size() || aborted_; })) {
    aborted_ = true;
    changed_.notify_all();
  }
  if (aborted_) throw abi::Error(TM_DEVICE_ERROR, "not all ranks joined the communicator");
}

void CommGroup::abort() {
  const std::lock_guard lock(mutex_);
  aborted_ = true;
  changed_.notify_all();
}

void CommGroup::enter(int32_t rank, const CommCall& call) {
  calls_[rank] = call;
  if (!meet(true)) throw abi::Error(TM_DEVICE_ERROR, "the communicator was aborted");
}

void CommGroup::leave() {
  const bool agree = calls_agree();
  meet(false);
  if (!agree) throw abi::Error(TM_INVALID_ARGUMENT, "the ranks issued different collectives or sizes");
}

bool CommGroup::calls_agree() const {
  for (const CommCall& call : calls_) {
    const CommCall& first = calls_[0];
    if (call.name != first.name || call.bytes != first.bytes || call.dtype != first.dtype ||
        call.detail != first.detail) {
      return false;
    }
  }
  return true;
}

// False if an abort came before the last rank. The last one to arrive decides that for all, under the lock.
bool CommGroup::meet(bool abortable) {
  std::unique_lock lock(mutex_);
  if (abortable && aborted_) return false;
  const uint64_t round = round_;
  if (++arrived_ == size()) {
    arrived_ = 0;
    round_ = round + 1;
    changed_.notify_all();
    return true;
  }
  lock.unlock();
  return wait_for_round(round, abortable);
}

bool CommGroup::wait_for_round(uint64_t round, bool abortable) {
  const auto start = std::chrono::steady_clock::now();
  while (round_ == round && std::chrono::steady_clock::now() - start < kSpin) {
    if (abortable && aborted_) break;
  }
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return round_ != round || (abortable && aborted_); });
  return round_ != round;
}

}  // namespace turbomind::cpu
