// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/sequence.h"

#include <utility>

namespace turbomind {
namespace {

std::vector<int32_t> stop_tokens_of(const SamplingParams& params) {
  std::vector<int32_t> tokens = params.stop_token_ids;
  if (!params.ignore_eos) tokens.insert(tokens.end(), params.eos_token_ids.begin(), params.eos_token_ids.end());
  return tokens;
}

bool can_stop(const SamplingParams& params) {
  return !params.stop_token_ids.empty() || (!params.ignore_eos && !params.eos_token_ids.empty());
}

bool penalises(const SamplingParams& params) {
  return params.repetition_penalty != 1.0F || params.presence_penalty != 0.0F || params.frequency_penalty != 0.0F;
}

}  // namespace

StepFacts::StepFacts(const Request& request, int32_t index)
    : request_id(request.id),
      prompt_len(static_cast<int64_t>(request.prompt.size())),
      max_len(request.max_len),
      min_new_tokens(can_stop(request.params) ? request.params.min_new_tokens : 0),
      seed(request.params.seed.value_or(0) + static_cast<uint64_t>(index)),
      tenant_weight(request.params.tenant_weight),
      temperature(request.params.temperature),
      top_k(request.params.top_k),
      top_p(request.params.top_p),
      min_p(request.params.min_p),
      logprobs(request.params.logprobs),
      processes_logits(penalises(request.params) || !request.params.logit_bias.empty() ||
                       !request.params.bad_token_ids.empty() || !request.params.allowed_token_ids.empty() ||
                       request.params.guide || !request.params.bad_token_sequences.empty()),
      has_penalties(penalises(request.params)),
      returns_rows(request.params.output_logits != OutputRows::kNone ||
                   request.params.output_last_hidden_state != OutputRows::kNone || request.params.prompt_logprobs >= 0),
      draws(request.params.max_new_tokens > 0) {}

Sequence::Sequence(std::shared_ptr<const Request> of, int32_t which)
    : tokens(of->prompt),
      index(which),
      facts(*of, which),
      stop_tokens(stop_tokens_of(of->params)),
      request(std::move(of)) {
  times.arrival = request->arrival;
  if (!facts.has_penalties) return;
  for (const int32_t token : request->prompt) history.add(token, 0);
}

}  // namespace turbomind
