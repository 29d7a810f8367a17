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
  double& virtual_time = tenant.share->virtual_time;
  if (tenant.waiting.empty()) virtual_time = std::max(virtual_time, least);
  sequence->share = tenant.share;
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

bool WaitingQueue::goes_before(const Sequence& a, const Sequence& b) {
  if (a.params().priority != b.params().priority || a.params().tenant == b.params().tenant) return precedes(a, b);
  const double time_a = a.share->virtual_time;
  const double time_b = b.share->virtual_time;
  return time_a != time_b ? time_a < time_b : precedes(a, b);
}

double WaitingQueue::least_virtual_time() const {
  double least = std::numeric_limits<double>::infinity();
  for (const auto& [name, tenant] : tenants_) {
    if (!tenant.waiting.empty()) least = std::min(least, tenant.share->virtual_time);
  }
  if (size_ > 0) return least;
  const auto last = tenants_.find(last_tenant_);
  return last == tenants_.end() ? 0.0 : last->second.share->virtual_time;
}

void WaitingQueue::forget_absent() {
  std::erase_if(tenants_, [this](const auto& entry) {
    // One whose sequences run is charged for them.
    const bool present = !entry.second.waiting.empty() || entry.second.share.use_count() > 1;
    return !present && entry.first != last_tenant_;
  });
}

}  // namespace turbomind
