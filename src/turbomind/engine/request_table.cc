// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/request_table.h"

namespace turbomind {

SequencePtr RequestTable::add(const std::shared_ptr<const Request>& request) {
  Entry entry;
  for (int32_t i = 0; i < request->params.n; ++i) entry.sequences.push_back(std::make_shared<Sequence>(request, i));
  SequencePtr first = entry.sequences.front();
  first->siblings.assign(entry.sequences.begin() + 1, entry.sequences.end());
  entry.num_unsettled = request->params.n;
  const bool has_deadline = request->params.timeout > 0.0;
  if (has_deadline) entry.deadline = request->arrival + request->params.timeout;
  const auto place = entries_.emplace(request->id, std::move(entry)).first;
  try {
    if (has_deadline) deadlines_.insert({place->second.deadline, request->id});
  } catch (...) {
    entries_.erase(place);
    throw;
  }
  return first;
}

bool RequestTable::mark_scheduled(uint64_t request_id) {
  return !std::exchange(entries_.at(request_id).scheduled, true);
}

RequestTable::Settled RequestTable::settle(const Sequence& sequence) {
  const auto found = entries_.find(sequence.request->id);
  Entry& entry = found->second;
  entry.sequences[static_cast<size_t>(sequence.index)].reset();
  if (--entry.num_unsettled > 0) return Settled::kOthersLeft;
  const bool scheduled = entry.scheduled;
  deadlines_.erase({entry.deadline, found->first});
  entries_.erase(found);
  return scheduled ? Settled::kLast : Settled::kLastUnscheduled;
}

std::vector<SequencePtr> RequestTable::unfinished(uint64_t request_id) const {
  std::vector<SequencePtr> result;
  const auto found = entries_.find(request_id);
  if (found == entries_.end()) return result;
  for (const SequencePtr& sequence : found->second.sequences) {
    if (sequence && sequence->state != SequenceState::kFinished) result.push_back(sequence);
  }
  return result;
}

std::vector<SequencePtr> RequestTable::unsettled() const {
  std::vector<SequencePtr> result;
  for (const auto& [id, entry] : entries_) {
    for (const SequencePtr& sequence : entry.sequences) {
      if (sequence) result.push_back(sequence);
    }
  }
  return result;
}

std::vector<SequencePtr> RequestTable::unfinished() const {
  std::vector<SequencePtr> result;
  for (const auto& [id, entry] : entries_) {
    for (const SequencePtr& sequence : unfinished(id)) result.push_back(sequence);
  }
  return result;
}

std::optional<uint64_t> RequestTable::expired(double now) const {
  if (deadlines_.empty() || deadlines_.begin()->first > now) return std::nullopt;
  return deadlines_.begin()->second;
}

}  // namespace turbomind
