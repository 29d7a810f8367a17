// SPDX-License-Identifier: Apache-2.0
//
// The contract as a C++17 plug-in author meets it. Compiled, never run.
#include <type_traits>

#include "turbomind/abi/tm_backend.h"

static_assert(std::is_standard_layout_v<tm_backend_api> && std::is_trivial_v<tm_backend_api>);
static_assert(std::is_same_v<std::underlying_type_t<tm_status>, std::underlying_type_t<tm_op_id>>);
