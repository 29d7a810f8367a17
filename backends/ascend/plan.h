// SPDX-License-Identifier: Apache-2.0
//
// The metadata of one step: in device memory at addresses that stay the same for the plan's life, and on the host for
// the operators that read lengths there.
#pragma once

#include <vector>

#include "memory.h"
#include "stream.h"
#include "view.h"

namespace turbomind::ascend {

class Plan {
 public:
  Plan(Context& context, const tm_plan_limits& limits);
  ~Plan();
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  // Throws abi::Error (TM_INVALID_ARGUMENT) if the metadata is inconsistent or beyond the limits.
  void update(Stream& stream, const tm_step_meta& meta);

  const tm_plan_limits& limits() const { return limits_; }
  bool has_blocks() const { return has_blocks_; }
  int64_t num_seqs() const { return num_seqs_; }
  int64_t num_tokens() const { return num_tokens_; }
  int64_t max_context() const { return limits_.max_blocks_per_seq * limits_.block_size; }  // the bound
  // What a capture of this step must hold for later ones too.
  int64_t padded_seqs() const { return padded_seqs_; }
  int64_t max_q_len() const { return max_q_len_; }

  // Host values of the step.
  const std::vector<int64_t>& q_ends() const { return q_ends_; }      // cumulative rows, one per sequence
  const std::vector<int64_t>& contexts() const { return contexts_; }  // lengths
  int64_t longest_context() const;
  // One row of every sequence meets a context longer than the window.
  bool exceeds(int64_t window) const { return window > 0 && longest_context() > window; }
  bool has_single_rows() const;
  bool has_spans() const { return has_spans_; }  // positions that see each other

  // Device views, of the whole capacity.
  View slots() const { return slots_; }             // i32 [max_tokens]: place in a pool, spare ones for padding rows
  View positions() const { return positions_; }     // i32 [max_tokens]; -1: padding
  View row_ends() const { return row_ends_; }       // i32 [max_tokens]: first position that a row does not see
  View sequences() const { return sequences_; }     // i32 [max_tokens]; 0 for padding
  View padding() const { return padding_; }         // bool [max_tokens]: 1 for padding rows
  View first_positions() const { return firsts_; }  // i32 [max_seqs + 1]: of each sequence's first row; -1: padding
  View last_positions() const { return lasts_; }    // of its last
  View block_table() const { return table_; }       // i32 [max_seqs + 1, max_blocks_per_seq]; unused entries are 0

 private:
  struct Staging {
    Memory data;
    EventHandle read;
    bool used = false;
    int64_t aborts = 0;  // of the stream when `read` was recorded
  };

  void keep_host_values(const tm_step_meta& meta);
  void fill_rows(std::byte* image, const tm_step_meta& meta) const;
  void fill_sequences(std::byte* image, const tm_step_meta& meta) const;
  // Where a device array stands in a staging buffer.
  template <class T>
  T* staged(std::byte* image, const View& view) const {
    return reinterpret_cast<T*>(image +
                                (static_cast<std::byte*>(view.data) - static_cast<std::byte*>(device_data_.data())));
  }
  void fill_table(int32_t* table, const tm_step_meta& meta) const;
  Staging& next_staging(const Stream& stream);

  Context& context_;
  tm_plan_limits limits_;
  Memory device_data_;
  size_t row_bytes_ = 0;  // of everything before the block table
  View slots_;
  View positions_;
  View row_ends_;
  View sequences_;
  View firsts_;
  View lasts_;
  View padding_;
  View table_;
  std::vector<Staging> staging_;
  size_t next_staging_ = 0;

  std::vector<int64_t> q_ends_;
  std::vector<int64_t> contexts_;
  int64_t num_seqs_ = 0;
  int64_t num_tokens_ = 0;
  int64_t padded_tokens_ = 0;
  int64_t padded_seqs_ = 0;
  int64_t max_q_len_ = 0;
  bool has_blocks_ = false;
  bool has_spans_ = false;
};

}  // namespace turbomind::ascend
