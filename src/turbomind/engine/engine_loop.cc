// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/engine_loop.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <new>
#include <optional>
#include <sstream>
#include <thread>
#include <utility>

#include "turbomind/core/log.h"
#include "turbomind/engine/devices.h"

namespace turbomind {
namespace {

// Between looks at encoders while there is nothing else to do.
constexpr std::chrono::microseconds kEncoderPause(200);
constexpr const char* kOutOfMemory = "engine: out of host memory";
constexpr const char* kNotReopened = "; the device could not be opened again: start the engine in a new process";

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Adds the time until its end to a counter.
class Stopwatch {
 public:
  explicit Stopwatch(double& seconds) : seconds_(seconds), begin_(seconds_now()) {}
  ~Stopwatch() { seconds_ += seconds_now() - begin_; }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& seconds_;
  double begin_;
};

// Between attempts to end requests while there is no host memory even for that.
constexpr std::chrono::milliseconds kMemoryPause(10);

// The exception being handled, as the engine's own type.
Error current_error() {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return {ErrorCode::kOutOfMemory, kOutOfMemory};
  } catch (const std::exception& error) {
    return {ErrorCode::kInternal, std::string("engine: ") + error.what()};
  }
}

// The token that the guide leaves, if there is but one.
std::optional<int32_t> only_token(TokenGuide& guide, int32_t vocab_size) {
  std::vector<uint32_t> mask((static_cast<size_t>(vocab_size) + 31) / 32);
  guide.fill_mask(mask);
  std::optional<int32_t> only;
  for (size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] == 0) continue;
    if (only || !std::has_single_bit(mask[i])) return std::nullopt;
    only = static_cast<int32_t>(i * 32) + std::countr_zero(mask[i]);
  }
  return only;
}

}  // namespace

EngineLoop::EngineLoop(RankGroup& ranks, SubmitQueue& inbox, OutputQueue& outputs, LoopConfig config)
    : ranks_(ranks),
      inbox_(inbox),
      outputs_(outputs),
      config_(std::move(config)),
      guide_workers_(config_.guide_threads),
      builder_(config_.vocab_size, config_.has_axes, config_.bidirectional_media),
      out_of_memory_(ErrorCode::kOutOfMemory, kOutOfMemory) {
  rebuild();
  publish();
}

void EngineLoop::run() {
  bool more = true;
  while (more) {
    try {
      more = turn();
    } catch (...) {
      survive();
    }
  }
  outputs_.close();
  await_encoders();
}

void EngineLoop::survive() {
  Error error = out_of_memory_;
  try {
    error = current_error();
  } catch (const std::bad_alloc&) {
    // Not even for the message: then that is the error.
  }
  while (true) {
    try {
      fail_everything(error);
      return publish();
    } catch (...) {
      std::this_thread::sleep_for(kMemoryPause);
    }
  }
}

bool EngineLoop::turn() {
  const bool idle = requests_.empty() && flights_.empty();
  // What a failure left unread comes first.
  if (num_received_ == mail_.requests.size()) {
    std::optional<std::chrono::microseconds> patience(0);
    if (has_nothing_but_encodes_) patience = kEncoderPause;
    if (idle && closing_ == SubmitQueue::Closing::kOpen) patience.reset();
    mail_ = inbox_.take(patience);
    num_received_ = 0;
  }
  receive();
  step();
  publish();
  return closing_ == SubmitQueue::Closing::kOpen || !requests_.empty() || !flights_.empty();
}

EngineStats EngineLoop::stats() const {
  const std::lock_guard lock(stats_mutex_);
  return stats_;
}

void EngineLoop::receive() {
  closing_ = mail_.closing;
  while (num_received_ < mail_.requests.size()) {
    const SequencePtr first = requests_.add(mail_.requests[num_received_]);
    ++num_received_;  // in the table, so from here on it gets its answer whatever happens
    scheduler_->add(first);
  }
  for (; !mail_.cancelled.empty(); mail_.cancelled.pop_back()) {
    for (const SequencePtr& sequence : requests_.unfinished(mail_.cancelled.back())) cancel(sequence);
  }
  if (closing_ != SubmitQueue::Closing::kCancel) return;
  for (const SequencePtr& sequence : requests_.unfinished()) loss_ ? fail(sequence, *loss_) : cancel(sequence);
}

void EngineLoop::cancel(const SequencePtr& sequence) {
  collector_.add_finish(*sequence, FinishReason::kCancelled, seconds_now());
  scheduler_->finish(sequence, true);
  settle(*sequence, &EngineStats::requests_cancelled);
}

void EngineLoop::expire_deadlines(double now) {
  while (const std::optional<uint64_t> id = requests_.expired(now)) {
    for (const SequencePtr& sequence : requests_.unfinished(*id)) {
      std::ostringstream text;
      text << "timeout: expected the request to end within " << sequence->params().timeout << " s, found it "
           << (sequence->admitted ? "unfinished after " : "still waiting with ") << sequence->num_generated()
           << " generated tokens";
      const Error error(ErrorCode::kDeadlineExceeded, text.str());
      collector_.add_error(*sequence, error, now);
      scheduler_->finish(sequence, true);
      settle(*sequence, &EngineStats::requests_failed);
    }
  }
}

void EngineLoop::step() {
  const double now = seconds_now();
  expire_deadlines(now);
  poll_encoders();
  StepPlan plan;
  {
    const Stopwatch watch(counters_.schedule_seconds);
    plan = scheduler_->schedule(now);
  }
  std::vector<EncodeJob> encodes;
  if (config_.encoder && config_.encoder->overlapped) encodes = std::exchange(plan.encodes, {});
  const bool planned = !plan.sequences.empty();
  has_nothing_but_encodes_ = !planned && flights_.empty() && is_encoding();
  if (!planned && flights_.empty() && !is_encoding()) return fail_unservable();
  // Outside of what ends the steps on their way: where there is no memory for it, this one is not among them.
  if (planned) flights_.emplace_back().plan = std::move(plan);
  try {
    if (planned) {
      issue(flights_.back());
    } else if (!issue_copies(plan.copies)) {
      return;
    }
    start_encodes(encodes);
    if (flights_.size() > config_.look_ahead || (!planned && !flights_.empty())) resolve();
  } catch (...) {
    fail_flights(current_error());
  }
}

void EngineLoop::issue(Flight& flight) {
  counters_.steps += 1;
  counters_.step_sizes.count(flight.plan.num_tokens);
  counters_.computed_tokens += flight.plan.num_tokens;

  const StepBatch* batch;
  {
    const Stopwatch watch(counters_.schedule_seconds);
    count_admissions(flight.plan);
    batch = &builder_.build(flight.plan);
  }
  flight.entries = batch->sampling.entries;
  for (const int32_t row : batch->sampling.masked) {
    const auto entry = static_cast<size_t>(flight.entries[static_cast<size_t>(row)]);
    Sequence& sequence = *flight.plan.sequences[entry].sequence;
    if (!sequence.params().guide) continue;
    if (!sequence.guide) sequence.guide = sequence.params().guide->clone();
    flight.guided.push_back(row);
  }
  flight.logprobs_begin = batch->sampling.logprobs_begin;
  flight.logprobs_end = batch->sampling.logprobs_end;
  for (const RowGroup& group : batch->row_groups) flight.groups.emplace_back(group.entry, group.generation);
  MaskFill masks = builder_.fill_masks(flight.plan, guide_workers_);
  // The masks depend on the tokens before. Where those are known, workers fill them in while this thread issues the
  // forward pass, which on a synchronous device is the time in which it runs.
  if (flights_.size() == 1) masks.start();
  issue_forward(*batch, flight);
  if (!batch->sampling.masked.empty()) guide_draws(flight, masks);
  const Stopwatch watch(counters_.execute_seconds);
  ranks_.run([&](Rank& rank, int32_t) { rank.runner->issue_sampling(batch->sampling); });
}

void EngineLoop::count_admissions(const StepPlan& plan) {
  int64_t places = 0;
  for (const ScheduledSequence& scheduled : plan.sequences) {
    Sequence& sequence = *scheduled.sequence;
    if (std::exchange(sequence.in_steps, true) || !requests_.mark_scheduled(sequence.facts.request_id)) continue;
    ++places;
    counters_.prompt_tokens += sequence.prompt_len();
    counters_.cached_tokens += sequence.cached_tokens;
  }
  inbox_.release_places(places);
}

bool EngineLoop::issue_copies(const std::vector<BlockCopy>& copies) {
  if (copies.empty()) return true;
  try {
    ranks_.run([&](Rank& rank, int32_t) { rank.runner->copy_blocks(copies); });
    return true;
  } catch (...) {
    fail_everything(current_error());
    return false;
  }
}

void EngineLoop::start_encodes(const std::vector<EncodeJob>& jobs) {
  if (jobs.empty()) return;
  try {
    const Stopwatch watch(counters_.execute_seconds);
    ranks_.run([&](Rank& rank, int32_t) { rank.encoder_runner->encode(jobs); });
  } catch (...) {
    fail_encodes(current_error());
  }
}

void EngineLoop::poll_encoders() {
  if (!is_encoding()) return;
  try {
    std::atomic<bool> done = true;
    ranks_.run([&](Rank& rank, int32_t) {
      if (!rank.encoder_runner->is_done()) done = false;
    });
    if (done) encoder_stage_->settle();
  } catch (...) {
    fail_encodes(current_error());
  }
}

void EngineLoop::issue_forward(const StepBatch& batch, Flight& flight) {
  const Stopwatch watch(counters_.execute_seconds);
  ranks_.run([&](Rank& rank, int32_t index) {
    std::vector<GroupRows> rows = rank.runner->issue_forward(batch);
    if (index == 0) flight.rows = std::move(rows);
  });
}

void EngineLoop::guide_draws(const Flight& flight, MaskFill& masks) {
  // Tokens that are not known yet are read while the device computes this step, and so are the masks filled in.
  while (flights_.size() > 1) resolve();
  const Stopwatch watch(counters_.guide_seconds);
  for (const auto& [row, error] : masks.finish()) {
    const auto entry = static_cast<size_t>(flight.entries[static_cast<size_t>(row)]);
    fail(flight.plan.sequences[entry].sequence, error);
  }
}

void EngineLoop::resolve() {
  SampledTokens sampled;
  {
    const Stopwatch watch(counters_.execute_seconds);
    const Stopwatch waiting(counters_.wait_seconds);
    sampled = ranks_.rank(0).runner->collect();
  }
  const Stopwatch watch(counters_.output_seconds);
  const double now = seconds_now();
  num_recoveries_ = 0;
  // It stays in line until it is done with, so that its sequences end if this fails.
  Flight& flight = flights_.front();
  std::vector<bool> ended;
  for (size_t i = 0; i < flight.groups.size(); ++i) {
    const auto entry = static_cast<size_t>(flight.groups[i].first);
    ended.push_back(is_void(flight, *flight.plan.sequences[entry].sequence));
  }
  const std::vector<bool> stopped = accept_tokens(flight, sampled, now);
  accept_rows(flight, ended, stopped);
  finish_computed_prompts(flight, now);
  flights_.pop_front();
}

bool EngineLoop::is_void(const Flight& flight, const Sequence& sequence) {
  return sequence.state == SequenceState::kFinished || flight.plan.id <= sequence.void_through;
}

const Sequence& EngineLoop::sequence_of(const Flight& flight, size_t row) {
  return *flight.plan.sequences[static_cast<size_t>(flight.entries[row])].sequence;
}

std::vector<bool> EngineLoop::accept_tokens(const Flight& flight, const SampledTokens& sampled, double now) {
  std::vector<bool> stopped(flight.plan.sequences.size(), false);
  const std::vector<Verdict> verdicts = ask_guides(flight, sampled.tokens);
  for (size_t row = 0; row < flight.entries.size(); ++row) {
    if (row + kPrefetchDistance < flight.entries.size()) prefetch(sequence_of(flight, row + kPrefetchDistance));
    if (row + kPrefetchDistance / 2 < flight.entries.size()) {
      prefetch_token(sequence_of(flight, row + kPrefetchDistance / 2));
    }
    const auto entry = static_cast<size_t>(flight.entries[row]);
    const SequencePtr& sequence = flight.plan.sequences[entry].sequence;
    if (is_void(flight, *sequence)) continue;
    const int32_t token = verdicts.empty() ? sampled.tokens[row] : verdicts[row].token;
    if (!verdicts.empty() && !verdicts[row].accepted) {
      refuse(sequence, verdicts[row]);
      stopped[entry] = true;
      continue;
    }
    --sequence->num_pending;
    sequence->tokens.push_back(token);
    if (sequence->facts.has_penalties) sequence->history.add(token, 1);
    ++counters_.generated_tokens;
    const FinishReason reason = finish_reason(*sequence, token);
    stopped[entry] = reason == FinishReason::kStop;
    const auto place = static_cast<int64_t>(row) - flight.logprobs_begin;
    if (place >= 0 && static_cast<int64_t>(row) < flight.logprobs_end && !stopped[entry]) {
      PositionLogprobs logprobs = sampled.logprobs[static_cast<size_t>(place)];
      logprobs.top.resize(std::min(logprobs.top.size(), static_cast<size_t>(sequence->facts.logprobs)));
      collector_.add_logprobs(*sequence, std::move(logprobs));
    }
    collector_.add_token(*sequence, token, reason, now);
    if (reason == FinishReason::kNone) continue;
    scheduler_->finish(sequence, true);
    settle(*sequence, &EngineStats::requests_finished);
  }
  return stopped;
}

std::vector<EngineLoop::Verdict> EngineLoop::ask_guides(const Flight& flight, const std::vector<int32_t>& tokens) {
  std::vector<size_t> rows;
  for (const int32_t guided : flight.guided) {
    const auto row = static_cast<size_t>(guided);
    const Sequence& sequence = sequence_of(flight, row);
    if (!is_void(flight, sequence) && !ends_sequence(sequence, tokens[row])) rows.push_back(row);
  }
  if (rows.empty()) return {};
  std::vector<Verdict> verdicts(flight.entries.size());
  for (size_t row = 0; row < verdicts.size(); ++row) verdicts[row].token = tokens[row];
  guide_workers_.for_each(rows.size(), [&](size_t i) {
    const size_t row = rows[i];
    verdicts[row] = ask_guide(sequence_of(flight, row), tokens[row]);
  });
  return verdicts;
}

EngineLoop::Verdict EngineLoop::ask_guide(const Sequence& sequence, int32_t token) const {
  TokenGuide& guide = *sequence.guide;
  const int64_t draws_left = sequence.facts.max_len - static_cast<int64_t>(sequence.tokens.size()) - 1;
  try {
    if (guide.accept(token, draws_left)) return {.token = token};
    // No step builds on the refused token, and its logprobs are not wanted: where only one other is left, that is what
    // drawing again would come to.
    if (flights_.size() > 1 || sequence.facts.logprobs >= 0) return {.accepted = false, .token = token};
    const std::optional<int32_t> only = only_token(guide, config_.vocab_size);
    if (!only) return {.accepted = false, .token = token};
    const bool accepted = ends_sequence(sequence, *only) || guide.accept(*only, draws_left);
    return {.accepted = accepted, .token = *only};
  } catch (const Error& error) {
    return {.accepted = false, .token = token, .error = error};
  }
}

void EngineLoop::refuse(const SequencePtr& sequence, const Verdict& verdict) {
  if (verdict.error) {
    fail(sequence, *verdict.error);
  } else {
    scheduler_->redraw(sequence);
  }
}

void EngineLoop::accept_rows(Flight& flight, const std::vector<bool>& ended, const std::vector<bool>& stopped) {
  for (size_t i = 0; i < flight.rows.size(); ++i) {
    const auto [entry, generation] = flight.groups[i];
    const auto index = static_cast<size_t>(entry);
    // The row of a token that is not returned is not returned either.
    if (ended[i] || (generation && stopped[index])) continue;
    collector_.add_rows(*flight.plan.sequences[index].sequence, std::move(flight.rows[i]));
  }
}

void EngineLoop::finish_computed_prompts(const Flight& flight, double now) {
  for (const ScheduledSequence& scheduled : flight.plan.sequences) {
    const SequencePtr& sequence = scheduled.sequence;
    if (sequence->facts.draws || sequence->state == SequenceState::kFinished) continue;
    if (scheduled.begin + scheduled.count < sequence->prompt_len()) continue;
    collector_.add_finish(*sequence, FinishReason::kLength, now);
    scheduler_->finish(sequence, true);
    settle(*sequence, &EngineStats::requests_finished);
  }
}

void EngineLoop::fail_flights(const Error& error) {
  log(LogLevel::kError, "a step failed, its requests end: ", error.what());
  ++counters_.failed_steps;
  const std::deque<Flight> flights = std::exchange(flights_, {});
  for (const Flight& flight : flights) {
    for (const ScheduledSequence& scheduled : flight.plan.sequences) fail(scheduled.sequence, error);
  }
  for (const Flight& flight : flights) kv_cache_->discard(flight.plan.id);
  if (encoder_stage_) encoder_stage_->discard();
  if (error.code() == ErrorCode::kDeviceLost) return fail_everything(error);
  // Those that wait for a picture may hold blocks that a failed step was to write or to copy.
  scheduler_->recompute_running();
  reset_runners();
}

void EngineLoop::fail_encodes(const Error& error) {
  log(LogLevel::kError, "pictures could not be encoded, their requests end: ", error.what());
  if (error.code() == ErrorCode::kDeviceLost) return fail_everything(error);
  const std::vector<std::string> lost = encoder_stage_->discard();
  const std::vector<SequencePtr> running = scheduler_->running();
  for (const SequencePtr& sequence : running) {
    const std::vector<MediaSpan>& spans = sequence->request->media.spans;
    const bool waits = std::any_of(spans.begin(), spans.end(), [&](const MediaSpan& span) {
      return span.end() > sequence->num_computed &&
             std::find(lost.begin(), lost.end(), span.item->digest) != lost.end();
    });
    if (waits) fail(sequence, error);
  }
  reset_ranks([](Rank& rank) { rank.encoder_runner->reset(); });
}

void EngineLoop::reset_runners() {
  builder_.reset();
  reset_ranks([](Rank& rank) {
    rank.runner->reset();
    if (rank.encoder_runner) rank.encoder_runner->reset();
  });
}

void EngineLoop::reset_ranks(const std::function<void(Rank&)>& reset) {
  try {
    ranks_.run([&](Rank& rank, int32_t) { reset(rank); });
  } catch (...) {
    const Error error = current_error();
    fail_everything({ErrorCode::kDeviceLost, std::string("after a failure: ") + error.what()});
  }
}

void EngineLoop::await_encoders() {
  if (!is_encoding()) return;
  try {
    ranks_.run([](Rank& rank, int32_t) { rank.encoder_runner->reset(); });
  } catch (...) {
    log(LogLevel::kWarning, "encoder: ", current_error().what());
  }
}

void EngineLoop::fail_everything(const Error& error) {
  log(LogLevel::kError, "all requests end: ", error.what());
  flights_.clear();
  for (const SequencePtr& sequence : requests_.unsettled()) {
    collector_.add_error(*sequence, error, seconds_now());
    sequence->state = SequenceState::kFinished;
    settle(*sequence, &EngineStats::requests_failed);
  }
  rebuild();
  if (!loss_) {
    if (error.code() != ErrorCode::kDeviceLost) return reset_runners();
    // Made first: once the device is gone for good, a want of memory must not hide it.
    const Error lost(ErrorCode::kDeviceLost, std::string(error.what()) + kNotReopened);
    if (recover_device()) return;
    loss_ = lost;
  }
  inbox_.close(SubmitQueue::Closing::kCancel, ErrorCode::kDeviceLost, loss_->what());
}

bool EngineLoop::recover_device() {
  if (!config_.reopen_devices) return false;
  publish();  // the wait for what ended is over, however long the model takes to load
  replays_before_ += counters_.graph_replays;
  counters_.graph_replays = 0;
  while (num_recoveries_ < kMaxDeviceRecoveries) {
    // A device that has just fallen over may need a moment; the first try needs none.
    if (num_recoveries_++ > 0) std::this_thread::sleep_for(kDeviceRecoveryPause);
    try {
      config_.reopen_devices();
      ++counters_.device_recoveries;
      log(LogLevel::kWarning, "the device was lost; it was opened again and holds the model");
      return true;
    } catch (...) {
      log(LogLevel::kError, "the lost device could not be opened again: ", current_error().what());
    }
  }
  return false;
}

void EngineLoop::fail(const SequencePtr& sequence, const Error& error) {
  if (sequence->state == SequenceState::kFinished) return;
  const std::vector<SequencePtr> siblings = sequence->siblings;
  // First what may fail for want of memory: a sequence that has ended is not asked again.
  collector_.add_error(*sequence, error, seconds_now());
  scheduler_->finish(sequence, false);
  settle(*sequence, &EngineStats::requests_failed);
  for (const SequencePtr& sibling : siblings) fail(sibling, error);
}

void EngineLoop::settle(Sequence& sequence, int64_t EngineStats::* counter) {
  sequence.siblings.clear();
  const RequestTable::Settled settled = requests_.settle(sequence);
  if (settled == RequestTable::Settled::kOthersLeft) return;
  if (settled == RequestTable::Settled::kLastUnscheduled) inbox_.release_places(1);
  ++(counters_.*counter);
}

void EngineLoop::fail_unservable() {
  const SequencePtr sequence = scheduler_->first_waiting();
  if (!sequence) return;
  // Submission admits only what the empty cache can hold, so this is a broken invariant; it must not hang the caller.
  fail(sequence, Error(ErrorCode::kOutOfMemory, "KV cache: the idle engine found no room for the request"));
}

void EngineLoop::rebuild() {
  if (scheduler_) preemptions_before_ += scheduler_->num_preemptions();
  scheduler_.reset();
  if (kv_cache_) ages_before_ += kv_cache_->prefix_cache().ages();
  kv_cache_ = std::make_unique<KvCache>(config_.num_blocks, config_.block_size, config_.enable_prefix_caching);
  if (encoder_stage_) encoded_before_ += encoder_stage_->num_encoded();
  encoder_stage_.reset();
  if (config_.encoder) encoder_stage_ = std::make_unique<EncoderStage>(*config_.encoder);
  scheduler_ = std::make_unique<Scheduler>(config_.limits, *kv_cache_, encoder_stage_.get());
  builder_.reset();
}

void EngineLoop::publish() {
  const BlockManager& blocks = kv_cache_->blocks();
  counters_.running = static_cast<int64_t>(scheduler_->running().size());
  counters_.waiting = scheduler_->num_waiting();
  counters_.kv_blocks_total = blocks.num_blocks();
  counters_.kv_blocks_cached = blocks.num_idle();
  counters_.kv_blocks_used = blocks.num_blocks() - blocks.num_free() - blocks.num_idle();
  if (encoder_stage_) {
    counters_.media_encoded = encoded_before_ + encoder_stage_->num_encoded();
    counters_.media_tokens_cached = encoder_stage_->num_cached_rows();
  }
  counters_.block_ages = ages_before_;
  counters_.block_ages += kv_cache_->prefix_cache().ages();
  counters_.preemptions = preemptions_before_ + scheduler_->num_preemptions();
  if (ranks_.is_open() && ranks_.rank(0).runner)
    counters_.graph_replays = replays_before_ + ranks_.rank(0).runner->num_replays();
  {
    const std::lock_guard lock(stats_mutex_);
    stats_ = counters_;
  }
  const Stopwatch watch(counters_.output_seconds);
  collector_.end_step();
  outputs_.push(collector_.outputs());
}

}  // namespace turbomind
