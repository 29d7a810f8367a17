// SPDX-License-Identifier: Apache-2.0
#include <poll.h>

#include <thread>

#include "support/test.h"
#include "turbomind/engine/queues.h"

namespace turbomind::test {
namespace {

using std::chrono::milliseconds;

// A token each of several requests.
std::vector<StepOutput> make_step(const std::vector<uint64_t>& ids, int32_t token) {
  std::vector<StepOutput> step;
  for (const uint64_t id : ids) {
    auto request = std::make_shared<Request>();
    request->id = id;
    step.emplace_back(Sequence(std::move(request), 0));
    step.back().add_token(token, {});
  }
  return step;
}

bool readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return ::poll(&entry, 1, 0) == 1;
}

constexpr std::chrono::microseconds kNoPatience(0);

TEST(submit_queue_is_bounded) {
  SubmitQueue queue(2);
  queue.submit(std::make_shared<Request>());
  queue.submit(std::make_shared<Request>());
  EXPECT_ERROR(queue.submit(std::make_shared<Request>()), ErrorCode::kQueueFull, "max_queue_size = 2");
  EXPECT_EQ(queue.take(kNoPatience).requests.size(), 2U);
  // Taken is not scheduled yet.
  EXPECT_ERROR(queue.submit(std::make_shared<Request>()), ErrorCode::kQueueFull, "found 2");
  queue.release_places(1);
  queue.submit(std::make_shared<Request>());
}

TEST(closed_submit_queue_says_why) {
  SubmitQueue queue(2);
  queue.close(SubmitQueue::Closing::kDrain, ErrorCode::kCancelled, "stopped");
  queue.close(SubmitQueue::Closing::kCancel, ErrorCode::kDeviceLost, "lost");
  EXPECT_ERROR(queue.submit(std::make_shared<Request>()), ErrorCode::kCancelled, "stopped");
  EXPECT(queue.take(std::nullopt).closing == SubmitQueue::Closing::kCancel);
  // The demand stays.
  EXPECT(queue.take(kNoPatience).closing == SubmitQueue::Closing::kCancel);
}

TEST(submit_queue_wakes_the_engine) {
  SubmitQueue queue(2);
  std::thread caller([&] { queue.cancel(7); });
  const SubmitQueue::Mail mail = queue.take(std::nullopt);
  caller.join();
  EXPECT_EQ(mail.cancelled.size(), 1U);
}

TEST(output_queue_wakes_once_and_merges) {
  OutputQueue queue;
  EXPECT(!readable(queue.event_fd()));
  std::vector<StepOutput> step = make_step({1, 2}, 10);
  queue.push(step);
  EXPECT(step.empty());
  step = make_step({1}, 11);
  queue.push(step);
  EXPECT(readable(queue.event_fd()));
  const std::vector<Output> outputs = queue.poll(milliseconds(0));
  EXPECT_EQ(outputs.size(), 2U);
  EXPECT_EQ(outputs[0].token_ids.size(), 2U);
  EXPECT(!readable(queue.event_fd()));
  EXPECT(queue.poll(milliseconds(0)).empty());
}

TEST(output_queue_merges_steps_of_other_sequences) {
  OutputQueue queue;
  const std::vector<std::vector<uint64_t>> steps = {{1, 2, 3}, {2, 3, 4}, {4, 5}, {5, 1, 2}};
  for (size_t i = 0; i < steps.size(); ++i) {
    std::vector<StepOutput> step = make_step(steps[i], static_cast<int32_t>(i));
    queue.push(step);
  }
  const std::vector<Output> outputs = queue.poll(milliseconds(0));
  const std::vector<std::vector<int32_t>> expected = {{0, 3}, {0, 1, 3}, {0, 1}, {1, 2}, {2, 3}};
  EXPECT_EQ(outputs.size(), expected.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    EXPECT_EQ(outputs[i].request_id, i + 1);
    EXPECT(outputs[i].token_ids == expected[i]);
  }
}

TEST(closed_output_queue_does_not_wait) {
  OutputQueue queue;
  std::vector<StepOutput> step = make_step({1}, 10);
  queue.push(step);
  queue.close();
  EXPECT_EQ(queue.poll(milliseconds::max()).size(), 1U);
  EXPECT(queue.poll(milliseconds::max()).empty());
}

}  // namespace
}  // namespace turbomind::test
