// SPDX-License-Identifier: Apache-2.0
#include "engine/engine_failures.h"

namespace turbomind::test {
namespace {

TEST(a_failed_replay_ends_its_requests_and_no_others) { expect_recovery_from_a_failed_replay(1); }

}  // namespace
}  // namespace turbomind::test
