// SPDX-License-Identifier: Apache-2.0
#include "support.h"

#include <fstream>
#include <functional>
#include <iterator>
#include <sstream>

namespace turbomind::conformance {
namespace {

// One cell: what happened to the entries that match.
std::string cell(const std::vector<EntryResult>& results, const std::function<bool(const Entry&)>& matches) {
  int passed = 0;
  int failed = 0;
  for (const EntryResult& each : results) {
    if (!matches(*each.entry)) continue;
    passed += each.result.outcome == Outcome::kPassed;
    failed += each.result.outcome == Outcome::kFailed;
  }
  if (failed) return passed ? "partly" : "no";
  return passed ? "yes" : "-";
}

bool is_composable(int op) {
  switch (op) {
#define TM_COMPOSABLE(name) case TM_OP_##name:
    TM_OPTIONAL_OPS(TM_COMPOSABLE)
#undef TM_COMPOSABLE
    return true;
    default:
      return false;
  }
}

bool is_variant_of(const Entry& entry, const std::string& dtype) {
  return entry.variant == dtype || entry.variant.starts_with(dtype + "_");
}

void op_rows(std::ostringstream& text, const Session& session, const std::vector<EntryResult>& results) {
  const std::vector<DType> dtypes = session.activation_dtypes();
  text << "| Op |";
  for (const DType dtype : dtypes) text << ' ' << dtype_name(dtype) << " |";
  text << "\n| --- |";
  for (size_t i = 0; i < dtypes.size(); ++i) text << " --- |";
  text << '\n';
  for (int op = 0; op < TM_NUM_OPS; ++op) {
    const std::string name = op_name(static_cast<tm_op_id>(op));
    text << "| " << name << " |";
    for (const DType dtype : dtypes) {
      const auto matches = [&](const Entry& e) { return e.op == name && is_variant_of(e, dtype_name(dtype)); };
      const std::string found = cell(results, matches);
      const bool composed =
          found == "-" &&
          (op == TM_OP_all_reduce_add_rms_norm ? session.device.plugin().comm() != nullptr : is_composable(op));
      text << ' ' << (composed ? "composed" : found) << " |";
    }
    text << '\n';
  }
}

void format_rows(std::ostringstream& text, const std::vector<EntryResult>& results) {
  text
      << "| Weight format | linear | linear, float32 | grouped_linear | embedding |\n| --- | --- | --- | --- | --- |\n";
  for (int i = 0; i <= TM_WEIGHT_MXFP4; ++i) {
    std::string format;
    try {
      format = weight_format_name(static_cast<WeightFormat>(i));
    } catch (const Error&) {
      continue;  // the enumeration has gaps
    }
    const auto of = [&](const std::string& op, const std::string& part, bool wanted) {
      return cell(results, [&](const Entry& e) {
        const bool has_part = e.name.find(part) != std::string::npos;
        return e.op == op && e.variant.ends_with("_x_" + format) && has_part == wanted;
      });
    };
    text << "| " << format << " | " << of("linear", "/float32", false) << " | " << of("linear", "/float32", true)
         << " | " << of("grouped_linear", "/float32", false) << " | " << of("embedding", "/float32", false) << " |\n";
  }
}

}  // namespace

std::string support_table(const Session& session, const std::vector<EntryResult>& results) {
  std::ostringstream text;
  op_rows(text, session, results);
  text << '\n';
  format_rows(text, results);
  text << "\nKV cache:";
  for (const DType dtype : {TM_F32, TM_BF16, TM_F16, TM_I8}) {
    const auto matches = [&](const Entry& e) {
      return e.op == "attention" && e.variant.ends_with(std::string("_kv_") + dtype_name(dtype));
    };
    text << ' ' << dtype_name(dtype) << ' ' << cell(results, matches) << (dtype == TM_I8 ? "." : ",");
  }
  const auto is_op = [](const char* op) { return [op](const Entry& e) { return e.op == op; }; };
  text << " Collectives: " << cell(results, is_op("collectives"))
       << ". Capture: " << (session.device.can_capture() ? "yes" : "no") << ".\n";
  return text.str();
}

void write_support_table(const std::string& path, const std::string& backend, const std::string& table) {
  std::ifstream in(path);
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const std::string begin_marker = "<!-- support:" + backend + ":begin -->\n";
  const std::string end_marker = "<!-- support:" + backend + ":end -->";
  const size_t begin = text.find(begin_marker);
  const size_t end = text.find(end_marker);
  check(begin != std::string::npos && end != std::string::npos && begin < end, ErrorCode::kInvalidArgument, path,
        ": expected the markers of backend ", backend, ", found none");
  text.replace(begin + begin_marker.size(), end - begin - begin_marker.size(), table);
  std::ofstream(path) << text;
}

}  // namespace turbomind::conformance
