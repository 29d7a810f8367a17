// SPDX-License-Identifier: Apache-2.0
#include "comm.h"

#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "dtype.h"

namespace turbomind::cpu {

// What the ranks of one id share. Every collective is: publish a pointer, meet, read the others', meet again.
class CommGroup {
 public:
  explicit CommGroup(int32_t size) : published_(static_cast<size_t>(size)), joined_(static_cast<size_t>(size)) {}

  int32_t size() const { return static_cast<int32_t>(published_.size()); }

  void join(int32_t rank, int32_t size) {
    const std::lock_guard lock(mutex_);
    if (size != this->size() || rank < 0 || rank >= size || joined_[rank]) {
      throw abi::Error(TM_INVALID_ARGUMENT, "rank: expected one of " + std::to_string(this->size()) +
                                                " that has not joined yet, found " + std::to_string(rank));
    }
    joined_[rank] = true;
  }

  void abort() {
    const std::lock_guard lock(mutex_);
    aborted_ = true;
    changed_.notify_all();
  }

  // Waits until every rank has called it as often as this one.
  void meet() {
    std::unique_lock lock(mutex_);
    const uint64_t round = round_;
    if (++arrived_ == size()) {
      arrived_ = 0;
      ++round_;
      changed_.notify_all();
    } else {
      changed_.wait(lock, [&] { return aborted_ || round_ != round; });
    }
    if (aborted_) throw abi::Error(TM_DEVICE_ERROR, "the communicator was aborted");
  }

  void publish(int32_t rank, const void* data) {
    published_[rank] = data;
    meet();
  }

  template <class T>
  const T* of(int32_t rank) const {
    return static_cast<const T*>(published_[rank]);
  }

 private:
  std::mutex mutex_;  // guards all below but published_, which meet() orders
  std::condition_variable changed_;
  std::vector<const void*> published_;
  std::vector<bool> joined_;
  int32_t arrived_ = 0;
  uint64_t round_ = 0;
  bool aborted_ = false;
};

namespace {

// Groups by id until their last rank has joined.
class Rendezvous {
 public:
  static Rendezvous& instance() {
    static Rendezvous rendezvous;
    return rendezvous;
  }

  uint64_t next_id() {
    const std::lock_guard lock(mutex_);
    return ++last_id_;
  }

  std::shared_ptr<CommGroup> group(uint64_t id, int32_t size) {
    const std::lock_guard lock(mutex_);
    if (id == 0 || id > last_id_) throw abi::Error(TM_INVALID_ARGUMENT, "id: expected one made by unique_id()");
    std::shared_ptr<CommGroup> group = groups_[id].lock();
    if (!group) groups_[id] = group = std::make_shared<CommGroup>(size);
    return group;
  }

 private:
  std::mutex mutex_;  // guards all
  uint64_t last_id_ = 0;
  std::map<uint64_t, std::weak_ptr<CommGroup>> groups_;
};

int64_t num_elements(const tm_tensor& tensor) {
  int64_t count = 1;
  for (int32_t i = 0; i < tensor.ndim; ++i) count *= tensor.shape[i];
  return count;
}

int64_t num_bytes(const tm_tensor& tensor) {
  return num_elements(tensor) * static_cast<int64_t>(dtype_bytes(tensor.dtype));
}

void require_contiguous(const tm_tensor& tensor, const char* argument) {
  int64_t expected = 1;
  for (int32_t i = tensor.ndim - 1; i >= 0; --i) {
    if (tensor.shape[i] > 1 && tensor.stride[i] != expected) {
      throw abi::Error(TM_INVALID_ARGUMENT, std::string(argument) + ": expected a contiguous tensor");
    }
    expected *= tensor.shape[i];
  }
}

template <class T>
float widen(T value) {
  return to_float(value);
}
float widen(float value) { return value; }
void narrow(float value, float& out) { out = value; }
void narrow(float value, F16& out) { out = to_f16(value); }
void narrow(float value, Bf16& out) { out = to_bf16(value); }

// out[i] = the ranks' data[first + i] reduced in rank order, rounded once.
template <class T>
void reduce(const CommGroup& group, int64_t first, int64_t count, tm_reduce_op op, T* out) {
  for (int64_t i = 0; i < count; ++i) {
    float value = widen(group.of<T>(0)[first + i]);
    for (int32_t rank = 1; rank < group.size(); ++rank) {
      const float other = widen(group.of<T>(rank)[first + i]);
      value = op == TM_REDUCE_MAX ? std::max(value, other) : value + other;
    }
    narrow(value, out[i]);
  }
}

void reduce(const CommGroup& group, const tm_tensor& out, int64_t first, tm_reduce_op op, void* to) {
  const int64_t count = num_elements(out);
  switch (out.dtype) {
    case TM_F32:
      return reduce(group, first, count, op, static_cast<float*>(to));
    case TM_F16:
      return reduce(group, first, count, op, static_cast<F16*>(to));
    case TM_BF16:
      return reduce(group, first, count, op, static_cast<Bf16*>(to));
    default:
      throw abi::Error(TM_UNSUPPORTED, "in: cannot reduce dtype " + std::to_string(out.dtype));
  }
}

}  // namespace

void Comm::unique_id(Context&, uint8_t* out) {
  std::memset(out, 0, TM_UNIQUE_ID_BYTES);
  const uint64_t id = Rendezvous::instance().next_id();
  std::memcpy(out, &id, sizeof id);
}

Comm::Comm(Context&, const uint8_t* id, int32_t rank, int32_t size) : rank_(rank) {
  if (size <= 0) throw abi::Error(TM_INVALID_ARGUMENT, "size: expected at least 1, found " + std::to_string(size));
  uint64_t number = 0;
  std::memcpy(&number, id, sizeof number);
  group_ = Rendezvous::instance().group(number, size);
  group_->join(rank, size);
  group_->meet();
}

Comm::~Comm() = default;

void Comm::abort() { group_->abort(); }

void Comm::all_reduce(Stream&, const tm_tensor& in, const tm_tensor& out, tm_reduce_op op) {
  require_contiguous(in, "in");
  require_contiguous(out, "out");
  std::vector<uint8_t> result(static_cast<size_t>(num_bytes(out)));  // in may be out, which the others still read
  group_->publish(rank_, in.data);
  reduce(*group_, out, 0, op, result.data());
  group_->meet();
  std::memcpy(out.data, result.data(), result.size());
}

void Comm::all_gather(Stream&, const tm_tensor& in, const tm_tensor& out) {
  require_contiguous(in, "in");
  require_contiguous(out, "out");
  const int64_t bytes = num_bytes(in);
  group_->publish(rank_, in.data);
  for (int32_t rank = 0; rank < group_->size(); ++rank) {
    std::memmove(static_cast<uint8_t*>(out.data) + rank * bytes, group_->of<uint8_t>(rank), static_cast<size_t>(bytes));
  }
  group_->meet();
}

void Comm::reduce_scatter(Stream&, const tm_tensor& in, const tm_tensor& out, tm_reduce_op op) {
  require_contiguous(in, "in");
  require_contiguous(out, "out");
  std::vector<uint8_t> result(static_cast<size_t>(num_bytes(out)));
  group_->publish(rank_, in.data);
  reduce(*group_, out, rank_ * num_elements(out), op, result.data());
  group_->meet();
  std::memcpy(out.data, result.data(), result.size());
}

void Comm::broadcast(Stream&, const tm_tensor& data, int32_t root) {
  require_contiguous(data, "data");
  if (root < 0 || root >= group_->size()) {
    throw abi::Error(TM_INVALID_ARGUMENT, "root: expected a rank, found " + std::to_string(root));
  }
  group_->publish(rank_, data.data);
  if (rank_ != root) std::memcpy(data.data, group_->of<uint8_t>(root), static_cast<size_t>(num_bytes(data)));
  group_->meet();
}

void Comm::all_to_all(Stream&, const tm_tensor& in, const tm_tensor& out) {
  require_contiguous(in, "in");
  require_contiguous(out, "out");
  const int64_t bytes = num_bytes(in) / group_->size();
  group_->publish(rank_, in.data);
  for (int32_t rank = 0; rank < group_->size(); ++rank) {
    std::memcpy(static_cast<uint8_t*>(out.data) + rank * bytes, group_->of<uint8_t>(rank) + rank_ * bytes,
                static_cast<size_t>(bytes));
  }
  group_->meet();
}

}  // namespace turbomind::cpu
