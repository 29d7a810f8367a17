// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/waiting_queue.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace turbomind {
namespace {

constexpr size_t kMaxTenants = 4096;  // remembered while they wait for nothing

}  // namespace

void WaitingQueue::push(SequencePtr sequence) {
  if (tenants_.size() >= kMaxTenants) forget_absent();
  const double least = least_virtual_time();
  Tenant& tenant = tenant_of(*sequence);
  if (tenant.waiting.empty()) tenant.virtual_time = std::max(tenant.virtual_time, least);
  tenant.waiting.insert(std::move(sequence));
  ++size_;
}

SequencePtr WaitingQueue::front() const {
  SequencePtr best;
  for (const auto& [name, tenant] : tenants_) {
    if (tenant.waiting.empty()) continue;
    const SequencePtr& head = *tenant.waiting.begin();
    if (!best || goes_before(*head, *best)) best = head;
  }
  return best;
}

void WaitingQueue::erase(const SequencePtr& sequence) {
  Tenant& tenant = tenant_of(*sequence);
  const auto erased = static_cast<int64_t>(tenant.waiting.erase(sequence));
  size_ -= erased;
  if (erased > 0 && tenant.waiting.empty()) last_tenant_ = sequence->params().tenant;
}

void WaitingQueue::charge(const Sequence& sequence, int64_t num_tokens) {
  tenant_of(sequence).virtual_time += static_cast<double>(num_tokens) / sequence.params().tenant_weight;
}

bool WaitingQueue::goes_before(const Sequence& a, const Sequence& b) const {
  if (a.params().priority != b.params().priority || a.params().tenant == b.params().tenant) return precedes(a, b);
  const double time_a = virtual_time(a);
  const double time_b = virtual_time(b);
  return time_a != time_b ? time_a < time_b : precedes(a, b);
}

double WaitingQueue::virtual_time(const Sequence& sequence) const {
  const auto place = tenants_.find(sequence.params().tenant);
  return place == tenants_.end() ? 0.0 : place->second.virtual_time;
}

double WaitingQueue::least_virtual_time() const {
  double least = std::numeric_limits<double>::infinity();
  for (const auto& [name, tenant] : tenants_) {
    if (!tenant.waiting.empty()) least = std::min(least, tenant.virtual_time);
  }
  if (size_ > 0) return least;
  const auto last = tenants_.find(last_tenant_);
  return last == tenants_.end() ? 0.0 : last->second.virtual_time;
}

void WaitingQueue::forget_absent() {
  std::erase_if(tenants_,
                [this](const auto& entry) { return entry.second.waiting.empty() && entry.first != last_tenant_; });
}

}  // namespace turbomind
