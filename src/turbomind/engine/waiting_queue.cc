// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/waiting_queue.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace turbomind {
namespace {

constexpr size_t kMaxTenants = 4096;  // remembered while they wait for nothing

}  // namespace

void WaitingQueue::push(SequencePtr sequence) {
  if (tenants_.size() >= kMaxTenants) forget_absent();
  Tenant& tenant = tenants_[sequence->params().cache_salt];
  if (tenant.waiting.empty()) catch_up(tenant);
  tenant.waiting.insert(std::move(sequence));
  ++size_;
}

SequencePtr WaitingQueue::front() const {
  const Tenant* best = nullptr;
  const auto key = [](const Tenant& tenant) {
    const Sequence& head = **tenant.waiting.begin();
    return std::make_tuple(-int64_t{head.params().priority}, tenant.served_tokens, head.request->id);
  };
  for (const auto& [salt, tenant] : tenants_) {
    if (!tenant.waiting.empty() && (!best || key(tenant) < key(*best))) best = &tenant;
  }
  return best ? *best->waiting.begin() : nullptr;
}

void WaitingQueue::erase(const SequencePtr& sequence) {
  size_ -= static_cast<int64_t>(tenants_[sequence->params().cache_salt].waiting.erase(sequence));
}

void WaitingQueue::catch_up(Tenant& tenant) {
  const Tenant* least = nullptr;
  for (const auto& [salt, other] : tenants_) {
    if (!other.waiting.empty() && (!least || other.served_tokens < least->served_tokens)) least = &other;
  }
  if (least) tenant.served_tokens = std::max(tenant.served_tokens, least->served_tokens);
}

void WaitingQueue::forget_absent() {
  std::erase_if(tenants_, [](const auto& entry) { return entry.second.waiting.empty(); });
}

}  // namespace turbomind
