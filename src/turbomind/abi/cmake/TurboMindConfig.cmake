# SPDX-License-Identifier: Apache-2.0
# Installed as <prefix>/lib/cmake/TurboMind/TurboMindConfig.cmake.
if(NOT TARGET TurboMind::abi)
  get_filename_component(_turbomind_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
  add_library(TurboMind::abi INTERFACE IMPORTED)
  set_target_properties(TurboMind::abi PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${_turbomind_prefix}/include"
    INTERFACE_COMPILE_FEATURES cxx_std_20)
  unset(_turbomind_prefix)
endif()
