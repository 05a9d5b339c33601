# ddpo_library(NAME SOURCES … DEPS … [TORCH]), ddpo_executable(…), ddpo_test(…), ddpo_benchmark(…):
# one way to declare a target, so that warnings and LibTorch are treated the same everywhere.
#
# TORCH marks a target whose files include LibTorch: it links it and shares the precompiled header.

set(DDPO_WARNINGS -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Werror)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  list(APPEND DDPO_WARNINGS -Wthread-safety)
else()
  # GCC 12 reports false positives of these two inside libstdc++ and Abseil at -O2.
  list(APPEND DDPO_WARNINGS -Wno-maybe-uninitialized -Wno-restrict)
endif()

function(ddpo_configure_target name)
  cmake_parse_arguments(ARG "TORCH" "" "DEPS" ${ARGN})
  target_compile_options(${name} PRIVATE ${DDPO_WARNINGS})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS})
  get_target_property(type ${name} TYPE)
  if(TARGET ddpo_tsan_shims AND type STREQUAL "EXECUTABLE")
    target_sources(${name} PRIVATE $<TARGET_OBJECTS:ddpo_tsan_shims>)
  endif()
  if(ARG_TORCH)
    target_link_libraries(${name} PUBLIC LibTorch::LibTorch)
    target_precompile_headers(${name} REUSE_FROM ddpo_torch_pch)
    if(DDPO_SANITIZER STREQUAL "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # A fence in LibTorch that only tensors of Python programs meet.
      target_compile_options(${name} PRIVATE -Wno-tsan)
    endif()
    if(type STREQUAL "EXECUTABLE")
      # As the precompiled header is compiled; CMake gives executables -fPIE, which GCC refuses.
      target_compile_options(${name} PRIVATE -fPIC)
    endif()
  endif()
endfunction()

function(ddpo_library name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  if(ARG_TORCH)
    ddpo_configure_target(${name} TORCH DEPS ${ARG_DEPS})
  else()
    ddpo_configure_target(${name} DEPS ${ARG_DEPS})
  endif()
endfunction()

function(ddpo_executable name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  if(ARG_TORCH)
    ddpo_configure_target(${name} TORCH DEPS ${ARG_DEPS})
  else()
    ddpo_configure_target(${name} DEPS ${ARG_DEPS})
  endif()
endfunction()

# A GoogleTest executable; every TEST becomes a ctest case. Files under tests/ are found through
# DDPO_SOURCE_DIR (see tests/testing/paths.h). LABELS go to ctest.
function(ddpo_test name)
  cmake_parse_arguments(ARG "TORCH" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  if(ARG_TORCH)
    ddpo_configure_target(${name} TORCH DEPS ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  else()
    ddpo_configure_target(${name} DEPS ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  endif()
  target_compile_definitions(${name} PRIVATE DDPO_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
                             DDPO_BIN_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
  # OMP_NUM_THREADS=1: tests run side by side, and one thread keeps results bitwise stable.
  # CMake drops an empty value, and LABELS would take the next property's name for its own.
  if(ARG_LABELS)
    set(labels LABELS "${ARG_LABELS}")
  endif()
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 120
                       PROPERTIES TIMEOUT ${ARG_TIMEOUT} ${labels} ENVIRONMENT "OMP_NUM_THREADS=1")
endfunction()

function(ddpo_benchmark name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  if(ARG_TORCH)
    ddpo_configure_target(${name} TORCH DEPS ${ARG_DEPS} benchmark::benchmark)
  else()
    ddpo_configure_target(${name} DEPS ${ARG_DEPS} benchmark::benchmark)
  endif()
endfunction()

# A ctest case that runs `SCRIPT BIN_DIR` under the first Python that has the MODULES: the one on the
# PATH or the distribution's own, for which tools/build installs them. Where neither has them the test
# is there still, and fails with the script's message.
function(ddpo_python_test name)
  cmake_parse_arguments(ARG "" "SCRIPT;TIMEOUT" "MODULES" ${ARGN})
  string(REPLACE ";" ", " modules "${ARG_MODULES}")
  set(python python3)
  foreach(candidate python3 /usr/bin/python3)
    execute_process(COMMAND ${candidate} -c "import ${modules}" RESULT_VARIABLE missing
                    OUTPUT_QUIET ERROR_QUIET)
    if(missing STREQUAL "0")
      set(python ${candidate})
      break()
    endif()
  endforeach()
  add_test(NAME ${name} COMMAND ${python} ${CMAKE_CURRENT_SOURCE_DIR}/${ARG_SCRIPT}
                                ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT})
endfunction()
