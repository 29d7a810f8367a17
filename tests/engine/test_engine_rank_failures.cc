// SPDX-License-Identifier: Apache-2.0
//
// On GPUs it needs one per rank.
#include "engine/engine_failures.h"

namespace turbomind::test {
namespace {

TEST(a_replay_that_fails_on_one_rank_ends_its_requests_and_no_others) { expect_recovery_from_a_failed_replay(2); }

}  // namespace
}  // namespace turbomind::test
