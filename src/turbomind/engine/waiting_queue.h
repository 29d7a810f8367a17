// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "turbomind/engine/sequence.h"

namespace turbomind {

// Sequences that hold no KV blocks, in the order they are to be served: by priority; among equals the tenant
// (cache_salt) that has been served least comes first (virtual token counters, Sheng et al. 2024, arXiv:2401.00588);
// within a tenant by arrival. With one tenant that is first come, first served. Not thread-safe.
class WaitingQueue {
 public:
  void push(SequencePtr sequence);
  // The next to serve; null if there is none.
  SequencePtr front() const;
  void erase(const SequencePtr& sequence);
  // Counts tokens computed for a tenant.
  void charge(const std::string& tenant, int64_t num_tokens) { tenants_[tenant].served_tokens += num_tokens; }
  int64_t size() const { return size_; }

 private:
  struct Order {
    bool operator()(const SequencePtr& a, const SequencePtr& b) const { return precedes(*a, *b); }
  };
  struct Tenant {
    std::set<SequencePtr, Order> waiting;
    int64_t served_tokens = 0;
  };

  // A tenant that was away may not save up its turns.
  void catch_up(Tenant& tenant);
  void forget_absent();

  std::map<std::string, Tenant> tenants_;
  int64_t size_ = 0;
};

}  // namespace turbomind
