# SPDX-License-Identifier: Apache-2.0
# A plug-in that computes, "failing" by name, whose replays of captured steps fail when a test says so.
function(tm_add_failing_plugin inner)
  add_library(tm_backend_failing_${inner} MODULE ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/failing_backend.cc)
  target_compile_definitions(tm_backend_failing_${inner} PRIVATE TM_INNER_PLUGIN="$<TARGET_FILE:tm_backend_${inner}>")
  target_link_libraries(tm_backend_failing_${inner} PRIVATE tm_abi tm_options ${CMAKE_DL_LIBS})
  add_dependencies(tm_backend_failing_${inner} tm_backend_${inner})
  set_target_properties(tm_backend_failing_${inner} PROPERTIES PREFIX lib OUTPUT_NAME turbomind-failing-${inner})
endfunction()
