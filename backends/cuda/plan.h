// SPDX-License-Identifier: Apache-2.0
//
// The metadata of one step in device memory. The addresses stay the same for the plan's life, so a captured step finds
// the next step's values there. update() packs the host's arrays into pinned memory, from where one kernel spreads
// them.
#pragma once

#include <vector>

#include "attention_schedule.h"
#include "kernels/attention_items.h"
#include "kernels/spread.h"
#include "kernels/step_view.h"
#include "owned.h"
#include "stream.h"

namespace turbomind::cuda {

class Plan {
 public:
  Plan(Context& context, const tm_plan_limits& limits);

  // Throws abi::Error (TM_INVALID_ARGUMENT) if the metadata is inconsistent or beyond the limits.
  void update(Stream& stream, const tm_step_meta& meta);

  const tm_plan_limits& limits() const { return limits_; }
  const AttentionSchedule& schedule() const { return schedule_; }
  const StepView& view() const { return view_; }
  bool has_blocks() const { return has_blocks_; }
  bool has_spans() const { return view_.row_end != nullptr; }
  int64_t num_seqs() const { return num_seqs_; }
  int64_t num_tokens() const { return num_tokens_; }

  // The lists with capacities for this step, or, in a capture, for every step the capture may be replayed with.
  AttentionItems short_items(const Stream& stream) const;
  int max_short_rows(const Stream& stream) const;                   // of one item, at least 1
  AttentionItems tiles(const Stream& stream, int positions) const;  // one of kTilePositions
  MergeItems merges(const Stream& stream) const;

 private:
  struct Counts {
    int32_t num_tokens;
    int32_t short_items;
    int32_t tiles[kTilePositions.size()];
    int32_t merges;
  };
  // One of the buffers that updates in flight read.
  struct Staging {
    PinnedMemory data;
    EventHandle read;
  };
  class Packer;

  void allocate();
  void fill_rows(const tm_step_meta& meta, int32_t* row_seq, int32_t* row_slot) const;
  Staging& next_staging();

  tm_plan_limits limits_;
  AttentionSchedule schedule_;
  StepView view_{};
  Counts* counts_ = nullptr;  // device, as the next five
  AttentionItem* short_items_ = nullptr;
  AttentionItem* tiles_[kTilePositions.size()] = {};
  MergeItem* merges_ = nullptr;
  int32_t* row_ends_ = nullptr;
  DeviceMemory device_data_;
  std::vector<Staging> staging_;
  size_t staging_bytes_ = 0;
  size_t next_staging_ = 0;

  int64_t num_seqs_ = 0;
  int64_t num_tokens_ = 0;
  int64_t padded_tokens_ = 0;
  int64_t padded_seqs_ = 0;
  int64_t max_q_len_ = 0;
  bool has_blocks_ = false;
  bool knows_spans_ = false;  // from the first step that has some: its capture may be replayed without
};

}  // namespace turbomind::cuda
