// SPDX-License-Identifier: Apache-2.0
//
// Tensor parallelism of the engine against the reference. On GPUs it needs one per rank.
#include "engine/engine_numbers.h"

namespace turbomind::test {
namespace {

TEST(tensor_parallel_ranks_answer_as_the_reference) {
  for (const TinyModel& model : {tiny_llama(), tiny_gemma3()}) {
    EngineOptions options = exact_options();
    options.tp = 2;
    Fixture fixture(model, options);
    const std::vector<int32_t> prompt = random_tokens(model.config, 90, 5);
    SamplingParams params = greedy(20);
    params.logprobs = 0;
    params.presence_penalty = 0.3F;
    params.output_logits = OutputRows::kGeneration;
    const Output output = fixture.generate(prompt, params);
    EXPECT_EQ(output.logits.rows(), 20);
    const Rows logits = reference_logits(model, joined(prompt, output.token_ids));
    for (size_t i = 0; i < output.token_ids.size(); ++i) {
      const std::vector<int32_t> generated(output.token_ids.begin(),
                                           output.token_ids.begin() + static_cast<std::ptrdiff_t>(i));
      expect_largest(processed(logits[prompt.size() - 1 + i], params, prompt, generated), output.token_ids[i]);
    }
  }
}

// A rank that reports nothing must not overtake what it has yet to send to its device: seen on asynchronous ones only.
TEST(prompt_logits_of_ranks_match_the_reference) {
  const TinyModel model = tiny_llama();
  EngineOptions options = exact_options();
  options.tp = 2;
  options.max_num_seqs = 8;  // rows of one slice of logits, too
  Fixture fixture(model, options);
  const std::vector<int32_t> prompt = random_tokens(model.config, 60, 6);
  SamplingParams params = greedy(1);
  params.output_logits = OutputRows::kAll;
  const Output output = fixture.generate(prompt, params);
  const Rows logits = reference_logits(model, prompt);
  EXPECT_EQ(output.logits.rows(), 60);
  if (output.logits.rows() != 60) return;
  for (size_t row = 0; row < logits.size(); ++row) {
    const float* found = output.logits.values.data() + row * logits[row].size();
    for (size_t i = 0; i < logits[row].size(); ++i) EXPECT_NEAR(found[i], logits[row][i], 2e-3);
  }
}

}  // namespace
}  // namespace turbomind::test
