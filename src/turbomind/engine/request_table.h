// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "turbomind/engine/sequence.h"

namespace turbomind {

// The requests that have not ended, with their sequences and deadlines. Not thread-safe.
class RequestTable {
 public:
  // Makes the request's sequences; returns the first, which carries the others as siblings. What throws changes
  // nothing.
  SequencePtr add(const std::shared_ptr<const Request>& request);
  // True the first time a request takes part in a step.
  bool mark_scheduled(uint64_t request_id);

  enum class Settled { kOthersLeft, kLastUnscheduled, kLast };
  // A sequence has ended; with its last one the request leaves the table. kLastUnscheduled: it never took part in a
  // step.
  Settled settle(const Sequence& sequence);

  // Sequences of a request that have not ended; none for an unknown id.
  std::vector<SequencePtr> unfinished(uint64_t request_id) const;
  std::vector<SequencePtr> unfinished() const;
  // Sequences that settle() was not called for, whatever their state: an exception may have come between the two.
  std::vector<SequencePtr> unsettled() const;
  // A request whose deadline has passed. now: seconds.
  std::optional<uint64_t> expired(double now) const;
  bool empty() const { return entries_.empty(); }

 private:
  struct Entry {
    std::vector<SequencePtr> sequences;  // null: settled
    int32_t num_unsettled = 0;
    bool scheduled = false;
    double deadline = 0.0;  // seconds; 0 = none
  };

  std::map<uint64_t, Entry> entries_;
  std::set<std::pair<double, uint64_t>> deadlines_;
};

}  // namespace turbomind
