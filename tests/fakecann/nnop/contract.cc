// SPDX-License-Identifier: Apache-2.0
#include "nnop/contract.h"

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "nnop/call.h"

namespace fakecann {

// contracts.cc: the text of every file of contracts/.
const char* contract_text();

namespace {

using Words = std::vector<std::string>;

struct Rule {
  std::string text;  // as written, without the profiles
  unsigned profiles = kEveryProfile;
  std::string when_name, when_value;
  std::string kind;
  Words names;   // before the colon
  Words values;  // after it
};

struct Contract {
  std::string document;
  unsigned profiles = 0;
  std::vector<Rule> rules;
};

unsigned profile_bit(const std::string& name) {
  const std::map<std::string, unsigned> bits = {
      {"a2", kA2 | kA2Cann85}, {"a2-8.5", kA2Cann85}, {"a2-9", kA2}, {"a3", kA3}, {"310p", k310P}, {"950", k950}};
  const auto found = bits.find(name);
  if (found == bits.end()) fail(kRuntimeError, "a contract names the unknown product " + name);
  return found->second;
}

Words words_of(const std::string& text) {
  std::istringstream stream(text);
  Words words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

Rule parse_rule(std::string line) {
  Rule rule;
  if (line[0] == '[') {
    const size_t end = line.find(']');
    rule.profiles = 0;
    for (const std::string& name : words_of(line.substr(1, end - 1))) rule.profiles |= profile_bit(name);
    line = line.substr(line.find_first_not_of(' ', end + 1));
  }
  rule.text = line;
  Words words = words_of(line);
  if (words[0] == "when") {
    const size_t equals = words[1].find('=');
    rule.when_name = words[1].substr(0, equals);
    rule.when_value = words[1].substr(equals + 1);
    words.erase(words.begin(), words.begin() + 2);
  }
  rule.kind = words[0];
  bool is_after_colon = false;
  for (size_t i = 1; i < words.size(); ++i) {
    std::string word = words[i];
    if (word.back() == ':') {
      word.pop_back();
      rule.names.push_back(word);
      is_after_colon = true;
    } else {
      (is_after_colon ? rule.values : rule.names).push_back(word);
    }
  }
  return rule;
}

std::map<std::string, Contract> parse(const std::string& text) {
  std::map<std::string, Contract> contracts;
  std::istringstream stream(text);
  Words ops;
  for (std::string line; std::getline(stream, line);) {
    line.erase(0, std::min(line.find_first_not_of(' '), line.size()));
    if (line.empty() || line[0] == '#') continue;
    const Words words = words_of(line);
    if (words[0] == "op") {
      ops.assign(words.begin() + 1, words.end());
      continue;
    }
    for (const std::string& op : ops) {
      Contract& contract = contracts[op];
      if (words[0] == "doc") {
        contract.document = line.substr(4);
      } else if (words[0] == "products") {
        for (size_t i = 1; i < words.size(); ++i) contract.profiles |= profile_bit(words[i]);
      } else {
        contract.rules.push_back(parse_rule(line));
      }
    }
  }
  return contracts;
}

const std::map<std::string, Contract>& contracts() {
  static const auto* parsed = new std::map<std::string, Contract>(parse(contract_text()));
  return *parsed;
}

using Lines = std::set<std::string>;

// Both of each profile.
Lines& rules_met() {
  static auto* met = new std::map<std::string, Lines>;
  return (*met)[config().profile.name];
}

Lines& refusals() {
  static auto* seen = new std::map<std::string, Lines>;
  return (*seen)[config().profile.name];
}

bool holds_when(const Rule& rule, const Call& call) {
  if (rule.when_name.empty()) return true;
  const auto number = call.attributes().find(rule.when_name);
  if (number != call.attributes().end()) return std::to_string(number->second) == rule.when_value;
  const auto text = call.texts().find(rule.when_name);
  if (text != call.texts().end()) return text->second == rule.when_value;
  for (const Argument& argument : call.arguments()) {
    if (argument.name == rule.when_name) return name_of(argument.view.dtype) == rule.when_value;
  }
  return false;
}

bool contains(const Words& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

int64_t number(const std::string& text) { return std::stoll(text); }

std::vector<const View*> views_named(const Call& call, const std::string& name) {
  std::vector<const View*> views;
  for (const Argument& argument : call.arguments()) {
    if (argument.name == name) views.push_back(&argument.view);
  }
  return views;
}

// The first tensor of that name, as far as a rule on several arguments needs one.
const View* view_named(const Call& call, const std::string& name) {
  const auto views = views_named(call, name);
  return views.empty() ? nullptr : views[0];
}

bool holds_for_view(const Rule& rule, const View& view) {
  if (rule.kind == "dtype") return contains(rule.values, name_of(view.dtype));
  if (rule.kind == "rank") return view.rank() >= number(rule.values[0]) && view.rank() <= number(rule.values[1]);
  if (rule.kind == "format") return contains(rule.values, view.format == ACL_FORMAT_FRACTAL_NZ ? "NZ" : "ND");
  return view.is_contiguous();
}

bool holds_for_dim(const Rule& rule, const Call& call) {
  const View* view = view_named(call, rule.names[0]);
  const int64_t axis = number(rule.names[1]);
  if (view == nullptr || axis >= view->rank() || -axis > view->rank()) return true;
  const int64_t dim = view->dim(static_cast<int>(axis));
  if (rule.kind == "dimin") return contains(rule.values, std::to_string(dim));
  if (rule.kind == "dimmul") return dim % number(rule.values[0]) == 0;
  return dim >= number(rule.values[0]) && dim <= number(rule.values[1]);
}

// Whether a null argument is one of the combination's cases; elsewhere it goes with every one.
bool distinguishes_null(const Rule& rule, const std::string& name) {
  const auto position = static_cast<size_t>(std::find(rule.names.begin(), rule.names.end(), name) - rule.names.begin());
  for (size_t at = position; at < rule.values.size(); at += rule.names.size() + 1) {
    if (rule.values[at] == "none") return true;
  }
  return false;
}

bool holds_combo(const Rule& rule, const Call& call) {
  size_t at = 0;
  while (at < rule.values.size()) {
    bool matches = true;
    for (const std::string& name : rule.names) {
      const View* view = view_named(call, name);
      const std::string& value = rule.values[at++];
      matches = matches && (view == nullptr || (value != "none" && value == name_of(view->dtype)));
      matches = matches && (view != nullptr || value == "none" || !distinguishes_null(rule, name));
    }
    if (matches) return true;
    ++at;  // the bar
  }
  return false;
}

template <typename Equal>
bool all_equal(const Rule& rule, const Call& call, Equal&& equal) {
  const View* first = nullptr;
  for (const std::string& name : rule.names) {
    const View* view = view_named(call, name);
    if (view == nullptr) continue;
    if (first != nullptr && !equal(*first, *view)) return false;
    first = view;
  }
  return true;
}

bool holds_for_attribute(const Rule& rule, const Call& call) {
  const std::string& name = rule.names[0];
  if (rule.kind == "text") {
    const auto found = call.texts().find(name);
    return found == call.texts().end() || contains(rule.values, found->second);
  }
  const auto found = call.attributes().find(name);
  if (found == call.attributes().end()) return true;
  if (rule.kind == "attrin") return contains(rule.values, std::to_string(found->second));
  return found->second >= number(rule.values[0]) && found->second <= number(rule.values[1]);
}

bool holds(const Rule& rule, const Call& call) {
  if (rule.kind == "optional") return true;
  if (rule.kind == "given" || rule.kind == "absent") {
    return std::all_of(rule.names.begin(), rule.names.end(),
                       [&](const std::string& name) { return call.is_given(name) == (rule.kind == "given"); });
  }
  if (rule.kind == "dim" || rule.kind == "dimin" || rule.kind == "dimmul") return holds_for_dim(rule, call);
  if (rule.kind == "combo") return holds_combo(rule, call);
  if (rule.kind == "same") return all_equal(rule, call, [](const View& a, const View& b) { return a.dims == b.dims; });
  if (rule.kind == "samedtype") {
    return all_equal(rule, call, [](const View& a, const View& b) { return a.dtype == b.dtype; });
  }
  if (rule.kind == "attr" || rule.kind == "attrin" || rule.kind == "text") return holds_for_attribute(rule, call);
  if (rule.kind != "dtype" && rule.kind != "rank" && rule.kind != "format" && rule.kind != "contiguous") {
    fail(kRuntimeError, "a contract has a rule of the unknown kind " + rule.kind);
  }
  for (const std::string& name : rule.names) {
    for (const View* view : views_named(call, name)) {
      if (!holds_for_view(rule, *view)) return false;
    }
  }
  return true;
}

std::string describe(const Call& call) {
  std::string text;
  for (const Argument& argument : call.arguments()) text += " " + argument.name + "=" + argument.view.text();
  for (const auto& [name, value] : call.attributes()) text += " " + name + "=" + std::to_string(value);
  for (const auto& [name, value] : call.texts()) text += " " + name + "=" + value;
  return text;
}

bool describes_dtype(const Rule& rule, const std::string& name) {
  return (rule.kind == "dtype" || rule.kind == "combo" || rule.kind == "samedtype") && contains(rule.names, name);
}

bool may_be_null(const Contract& contract, const std::string& name) {
  return std::any_of(contract.rules.begin(), contract.rules.end(), [&](const Rule& rule) {
    return (rule.kind == "optional" || rule.kind == "absent") && contains(rule.names, name);
  });
}

}  // namespace

void note_rule(const std::string& op, const std::string& rule) { rules_met().insert(op + ": " + rule); }

void note_refusal(const std::string& op, const std::string& rule) { refusals().insert(op + ": " + rule); }

void refuse(const Call& call, const std::string& rule, int code) {
  note_refusal(call.op(), rule);
  const auto found = contracts().find(call.op());
  const std::string document = found == contracts().end() ? "" : " (" + found->second.document + ")";
  fail(code, "aclnn" + call.op() + " on " + config().profile.name + " asks for \"" + rule + "\"" + document +
                 "; found" + describe(call));
}

void check_contract(const Call& call) {
  const auto found = contracts().find(call.op());
  if (found == contracts().end()) fail(kRuntimeError, "aclnn" + call.op() + " has no contract");
  const Contract& contract = found->second;
  const unsigned profile = config().profile.bit;
  if ((contract.profiles & profile) == 0) refuse(call, "products", kRuntimeError);
  std::set<std::string> described;
  for (const Rule& rule : contract.rules) {
    if ((rule.profiles & profile) == 0) continue;
    for (const Argument& argument : call.arguments()) {
      if (describes_dtype(rule, argument.name)) described.insert(argument.name);
    }
    if (holds_when(rule, call) && !holds(rule, call)) {
      refuse(call, rule.text, rule.kind == "given" ? kNullParameter : kBadParameter);
    }
  }
  for (const std::string& name : call.nulls()) {
    if (!may_be_null(contract, name)) refuse(call, "given " + name, kNullParameter);
  }
  for (const Argument& argument : call.arguments()) {
    if (described.count(argument.name) == 0) refuse(call, "undocumented " + argument.name, kBadParameter);
  }
}

std::string list_rules() {
  std::string text;
  for (const auto& [op, contract] : contracts()) {
    if ((contract.profiles & config().profile.bit) == 0) {
      text += op + ": products\n";
      continue;
    }
    for (const Rule& rule : contract.rules) {
      if ((rule.profiles & config().profile.bit) != 0 && rule.kind != "optional") text += op + ": " + rule.text + "\n";
    }
  }
  for (const std::string& rule : rules_met()) text += rule + "\n";
  return text;
}

std::string list_refusals() {
  std::string text;
  for (const std::string& refusal : refusals()) text += refusal + "\n";
  return text;
}

}  // namespace fakecann
