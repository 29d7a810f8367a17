// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

namespace turbomind {

// Runs the work on a thread of its own whose stack is 256 MiB, of which only what is touched takes memory, and waits.
// Throws what the work throws, kOutOfMemory if there is no such thread to be had.
void run_on_large_stack(const std::function<void()>& work);

}  // namespace turbomind
