// SPDX-License-Identifier: Apache-2.0
#include "turbomind/guided/large_stack.h"

#include <pthread.h>

#include <cstddef>
#include <exception>

#include "turbomind/core/error.h"

namespace turbomind {
namespace {

constexpr size_t kStackBytes = size_t{256} << 20;

struct Job {
  const std::function<void()>& work;
  std::exception_ptr error;
};

void* run(void* argument) {
  auto* job = static_cast<Job*>(argument);
  try {
    job->work();
  } catch (...) {
    job->error = std::current_exception();
  }
  return nullptr;
}

}  // namespace

void run_on_large_stack(const std::function<void()>& work) {
  Job job{work, nullptr};
  pthread_attr_t attributes;
  check(pthread_attr_init(&attributes) == 0, ErrorCode::kOutOfMemory, "no memory for a thread");
  pthread_t thread;
  const bool started =
      pthread_attr_setstacksize(&attributes, kStackBytes) == 0 && pthread_create(&thread, &attributes, run, &job) == 0;
  pthread_attr_destroy(&attributes);
  check(started, ErrorCode::kOutOfMemory, "expected a thread with a stack of ", kStackBytes, " bytes, found none");
  pthread_join(thread, nullptr);
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace turbomind
