// SPDX-License-Identifier: Apache-2.0
#include <poll.h>

#include <thread>

#include "support/test.h"
#include "turbomind/engine/queues.h"

namespace turbomind::test {
namespace {

using std::chrono::milliseconds;

Output make_output(uint64_t id, std::vector<int32_t> tokens) {
  Output output;
  output.request_id = id;
  output.token_ids = std::move(tokens);
  return output;
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
  std::vector<Output> step = {make_output(1, {10}), make_output(2, {20})};
  queue.push(step);
  EXPECT(step.empty());
  step = {make_output(1, {11})};
  queue.push(step);
  EXPECT(readable(queue.event_fd()));
  const std::vector<Output> outputs = queue.poll(milliseconds(0));
  EXPECT_EQ(outputs.size(), 2U);
  EXPECT_EQ(outputs[0].token_ids.size(), 2U);
  EXPECT(!readable(queue.event_fd()));
  EXPECT(queue.poll(milliseconds(0)).empty());
}

TEST(closed_output_queue_does_not_wait) {
  OutputQueue queue;
  std::vector<Output> step = {make_output(1, {10})};
  queue.push(step);
  queue.close();
  EXPECT_EQ(queue.poll(milliseconds::max()).size(), 1U);
  EXPECT(queue.poll(milliseconds::max()).empty());
}

}  // namespace
}  // namespace turbomind::test
