# Compiler settings that hold for every target: build type, ccache, linker, sanitizers.

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
# -O2: the time is spent inside LibTorch's own kernels; -O3 only makes our files slower to compile.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # The sloppiness lets ccache keep files that use a precompiled header.
  set(launcher ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      ${CCACHE_PROGRAM})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher} CACHE STRING "")
  set(CMAKE_C_COMPILER_LAUNCHER ${launcher} CACHE STRING "")
endif()

if(DDPO_SANITIZER)
  # Reports need lines and frames, and nothing more.
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1 -DNDEBUG")
  add_compile_options(-fsanitize=${DDPO_SANITIZER} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${DDPO_SANITIZER})
endif()
