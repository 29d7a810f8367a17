// SPDX-License-Identifier: Apache-2.0
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "turbomind/guided/grammar_guide.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace turbomind::bindings {
namespace {

std::shared_ptr<GuideVocabulary> make_vocabulary(const std::string& library, const std::vector<py::bytes>& tokens,
                                                 std::vector<int32_t> eos_token_ids) {
  std::vector<std::string> texts;
  texts.reserve(tokens.size());
  for (const py::bytes& token : tokens) texts.emplace_back(token);
  const py::gil_scoped_release release;
  return std::make_shared<GuideVocabulary>(LlguidanceApi::load(library), std::move(texts), std::move(eos_token_ids));
}

std::shared_ptr<GrammarGuide> make_guide(const std::shared_ptr<GuideVocabulary>& vocabulary, const std::string& kind,
                                         const std::string& grammar, const std::vector<std::string>& hints,
                                         const std::vector<std::string>& exits, bool free_strings) {
  return std::make_shared<GrammarGuide>(vocabulary, kind, grammar, hints, exits, free_strings);
}

// Token ids of the mask's set bits.
std::vector<int32_t> allowed_tokens(TokenGuide& guide, int32_t vocab_size) {
  std::vector<uint32_t> mask((static_cast<size_t>(vocab_size) + 31) / 32);
  guide.fill_mask(mask);
  std::vector<int32_t> tokens;
  for (int32_t token = 0; token < vocab_size; ++token) {
    if (mask[static_cast<size_t>(token) / 32] >> token % 32 & 1) tokens.push_back(token);
  }
  return tokens;
}

}  // namespace

void bind_guide(py::module_& module) {
  using ReleaseGil = py::call_guard<py::gil_scoped_release>;
  py::class_<GuideVocabulary, std::shared_ptr<GuideVocabulary>>(module, "GuideVocabulary")
      .def(py::init(&make_vocabulary), "library"_a, "tokens"_a, "eos_token_ids"_a);
  py::class_<TokenGuide, std::shared_ptr<TokenGuide>>(module, "TokenGuide")
      .def_property_readonly("draws_to_end", &TokenGuide::draws_to_end)
      .def(
          "clone", [](const TokenGuide& self) { return std::shared_ptr<TokenGuide>(self.clone()); }, ReleaseGil())
      .def("allowed_tokens", &allowed_tokens, "vocab_size"_a, ReleaseGil())
      .def("accept", &TokenGuide::accept, "token"_a, "draws_left"_a, ReleaseGil());
  py::class_<GrammarGuide, TokenGuide, std::shared_ptr<GrammarGuide>>(module, "GrammarGuide")
      .def(py::init(&make_guide), "vocabulary"_a, "kind"_a, "grammar"_a, "hints"_a, "exits"_a, "free_strings"_a,
           ReleaseGil());
}

}  // namespace turbomind::bindings
