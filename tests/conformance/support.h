// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "suite.h"

namespace turbomind::conformance {

struct EntryResult {
  const Entry* entry;
  Result result;
};

// Markdown: op x activation dtype, weight format x op, KV dtypes.
std::string support_table(const Session& session, const std::vector<EntryResult>& results);

// Puts the text between the markers "<!-- support:<backend>:begin -->" and ":end -->" of a file. Throws Error if the
// file has no such markers.
void write_support_table(const std::string& path, const std::string& backend, const std::string& table);

}  // namespace turbomind::conformance
