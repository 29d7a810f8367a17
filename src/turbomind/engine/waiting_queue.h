// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "turbomind/engine/sequence.h"

namespace turbomind {

// Sequences that hold no KV blocks, in the order they are to be served: by priority; among equals the tenant that has
// been served least for its weight comes first; within a tenant by arrival. With one tenant that is first come, first
// served. Not thread-safe.
//
// A tenant's virtual time is the tokens computed for it over its weight (virtual token counters: Sheng et al. 2024,
// "Fairness in Serving Large Language Models", arXiv:2401.00588). Tenants that always have something waiting thus get
// tokens in proportion to their weights. One that begins to wait is lifted to the least virtual time of those that
// wait, or of the last one that did: time in which it asked for less than its share gives no credit.
class WaitingQueue {
 public:
  void push(SequencePtr sequence);
  // The next to serve; null if there is none.
  SequencePtr front() const;
  void erase(const SequencePtr& sequence);
  // Counts tokens computed for the sequence's tenant.
  static void charge(const Sequence& sequence, int64_t num_tokens) {
    sequence.share->virtual_time += static_cast<double>(num_tokens) / sequence.facts.tenant_weight;
  }
  // True if a is to be served before b, whether they wait or run.
  static bool goes_before(const Sequence& a, const Sequence& b);
  int64_t size() const { return size_; }

 private:
  struct Order {
    bool operator()(const SequencePtr& a, const SequencePtr& b) const { return precedes(*a, *b); }
  };
  struct Tenant {
    std::set<SequencePtr, Order> waiting;
    std::shared_ptr<TenantShare> share = std::make_shared<TenantShare>();  // with its sequences
  };

  Tenant& tenant_of(const Sequence& sequence) { return tenants_[sequence.params().tenant]; }
  // The virtual time below which none may begin to wait.
  double least_virtual_time() const;
  void forget_absent();

  std::map<std::string, Tenant> tenants_;
  std::string last_tenant_;  // the last one to have nothing waiting any more
  int64_t size_ = 0;
};

}  // namespace turbomind
