// SPDX-License-Identifier: Apache-2.0
#include "hccl/group.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

#include "hccl/codes.h"
#include "runtime/core.h"

namespace fakecann {
namespace {

constexpr size_t kHeaderBytes = size_t{1} << 16;
static_assert(sizeof(GroupState) <= kHeaderBytes);

size_t bytes_of(uint32_t ranks) { return kHeaderBytes + ranks * kSlots * kSlotBytes; }

}  // namespace

std::string Group::create() {
  const std::string pattern = (std::filesystem::temp_directory_path() / "fakecann-XXXXXX").string();
  std::vector<char> path(pattern.begin(), pattern.end());
  path.push_back('\0');
  const int file = mkstemp(path.data());
  if (file < 0 || ftruncate(file, kHeaderBytes) != 0) fail(kHcclSystemCall, "no file for a communicator can be made");
  close(file);
  return path.data();
}

Group::Group(const std::string& path, uint32_t ranks) : path_(path), ranks_(ranks), bytes_(bytes_of(ranks)) {
  const int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (file < 0) fail(kHcclParameter, "the root info is not one of this machine");
  void* mapped = MAP_FAILED;
  if (ftruncate(file, static_cast<off_t>(bytes_)) == 0) {
    mapped = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
  }
  close(file);
  if (mapped == MAP_FAILED) fail(kHcclSystemCall, "the communicator's file cannot be mapped");
  state_ = static_cast<GroupState*>(mapped);
}

Group::~Group() {
  munmap(state_, bytes_);
  unlink(path_.c_str());
}

char* Group::slot(uint32_t rank, uint64_t number) const {
  return reinterpret_cast<char*>(state_) + kHeaderBytes + (rank * kSlots + number % kSlots) * kSlotBytes;
}

bool Group::everyone_posted(uint64_t number) const {
  for (uint32_t r = 0; r < ranks_; ++r) {
    if (rank(r).posted.load(std::memory_order_acquire) < number) return false;
  }
  return true;
}

bool Group::everyone_finished(uint64_t number) const {
  for (uint32_t r = 0; r < ranks_; ++r) {
    if (rank(r).finished.load(std::memory_order_acquire) < number) return false;
  }
  return true;
}

}  // namespace fakecann
