// SPDX-License-Identifier: Apache-2.0
//
// What the ranks of a communicator share: a file that each maps, whether it is a thread or a process of its own.
#ifndef FAKECANN_HCCL_GROUP_H_
#define FAKECANN_HCCL_GROUP_H_

#include <atomic>
#include <cstdint>
#include <string>

namespace fakecann {

inline constexpr uint32_t kMaxRanks = 16;
inline constexpr size_t kSlotBytes = size_t{256} << 20;  // sparse: costs what is written
inline constexpr uint64_t kSlots = 2;                    // a rank may be one collective ahead

// One collective as a rank sees it; all ranks must see the same.
struct Collective {
  int32_t kind;
  int32_t dtype;
  int32_t op;
  uint32_t root;
  uint64_t count;
  uint64_t capture;  // which captured call it replays, 0 for none

  bool operator==(const Collective&) const = default;
};

struct RankState {
  std::atomic<uint32_t> has_joined;
  std::atomic<int32_t> process;
  std::atomic<int32_t> device;
  std::atomic<uint64_t> posted;    // collectives whose data lie in the slots
  std::atomic<uint64_t> finished;  // collectives whose result this rank has taken
  std::atomic<uint64_t> wanted;    // the collective that this rank waits for
  Collective collectives[kSlots];
};

struct GroupState {
  std::atomic<uint32_t> ranks;
  RankState rank[kMaxRanks];
};

// One rank's mapping.
class Group {
 public:
  Group(const std::string& path, uint32_t ranks);
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  // A new file for a group to come; its path.
  static std::string create();

  uint32_t ranks() const { return ranks_; }
  RankState& rank(uint32_t rank) const { return state_->rank[rank]; }
  GroupState& state() const { return *state_; }
  char* slot(uint32_t rank, uint64_t number) const;
  bool everyone_posted(uint64_t number) const;
  bool everyone_finished(uint64_t number) const;

 private:
  std::string path_;
  uint32_t ranks_;
  size_t bytes_;
  GroupState* state_;
};

}  // namespace fakecann

#endif  // FAKECANN_HCCL_GROUP_H_
