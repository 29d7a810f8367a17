// SPDX-License-Identifier: Apache-2.0
//
// Ranks on the CPU, whose one device holds any number of them.
#include <future>
#include <thread>

#include "support/test.h"
#include "turbomind/engine/rank_group.h"
#include "turbomind/runtime/registry.h"

namespace turbomind::test {
namespace {

TEST(rank_that_fails_ends_the_others_and_all_connect_again) {
  const Plugin& plugin = PluginRegistry::instance().load(TM_PLUGIN_CPU);
  RankGroup ranks(plugin, {0, 0, 0}, Config({{"num_threads", "1"}}));
  const auto sum = [&](bool fails) {
    std::vector<float> values(3, 1.0F);
    ranks.run([&](Rank& rank, int32_t index) {
      check(!fails || index != 1, ErrorCode::kOutOfMemory, "rank 1 has failed");
      float& value = values[static_cast<size_t>(index)];
      const Tensor tensor = make_tensor(&value, TM_F32, {1});
      rank.comm->all_reduce(rank.stream, tensor, tensor);
      rank.stream.synchronize();
    });
    return values[0];
  };
  EXPECT_EQ(sum(false), 3.0F);
  for (int i = 0; i < 3; ++i) {
    EXPECT_ERROR(sum(true), ErrorCode::kOutOfMemory, "rank 1 has failed");
    EXPECT_EQ(sum(false), 3.0F);
  }
}

TEST(abort_ends_a_rank_that_waits_in_vain) {
  const Plugin& plugin = PluginRegistry::instance().load(TM_PLUGIN_CPU);
  RankGroup ranks(plugin, {0, 0}, Config({{"num_threads", "1"}}));
  ranks.abort();  // before there is anything to end
  std::promise<void> joined;
  std::promise<void> ended;
  std::thread other([&] {
    joined.get_future().wait();
    ranks.abort();
    ended.set_value();
  });
  const auto reduce_on_rank_0 = [&](Rank& rank, int32_t index) {
    if (index == 1) return ended.get_future().wait();  // reaches no collective
    float value = 1.0F;
    const Tensor tensor = make_tensor(&value, TM_F32, {1});
    joined.set_value();
    rank.comm->all_reduce(rank.stream, tensor, tensor);
    rank.stream.synchronize();
  };
  EXPECT_ERROR(ranks.run(reduce_on_rank_0), ErrorCode::kDevice, "");
  other.join();
}

}  // namespace
}  // namespace turbomind::test
