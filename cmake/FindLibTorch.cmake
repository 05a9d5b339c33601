# LibTorch from the PyPI `torch` wheel, without the wheel's TorchConfig.cmake, which demands a CUDA
# toolkit even for CPU builds. Defines LibTorch::LibTorch (torch_cpu and c10; with DDPO_CUDA also
# torch_cuda and c10_cuda).
#
# Looked for in LIBTORCH_DIR (CMake or environment): the folder that holds include/ and lib/, as
# unpacked from the wheel's torch/ folder. `tools/build` sets it.

set(LIBTORCH_DIR "$ENV{LIBTORCH_DIR}" CACHE PATH "Folder with LibTorch's include/ and lib/")
set(default_dirs "$ENV{HOME}/.cache/ddpo/libtorch-2.15.0/torch")

find_path(LibTorch_INCLUDE_DIR ATen/ATen.h
          HINTS ${LIBTORCH_DIR}/include PATHS ${default_dirs} PATH_SUFFIXES include NO_DEFAULT_PATH)
get_filename_component(LibTorch_ROOT "${LibTorch_INCLUDE_DIR}" DIRECTORY)
find_library(LibTorch_CPU_LIBRARY torch_cpu PATHS ${LibTorch_ROOT}/lib NO_DEFAULT_PATH)
find_library(LibTorch_C10_LIBRARY c10 PATHS ${LibTorch_ROOT}/lib NO_DEFAULT_PATH)
set(required LibTorch_INCLUDE_DIR LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY)
if(DDPO_CUDA)
  find_library(LibTorch_CUDA_LIBRARY torch_cuda PATHS ${LibTorch_ROOT}/lib NO_DEFAULT_PATH)
  find_library(LibTorch_C10_CUDA_LIBRARY c10_cuda PATHS ${LibTorch_ROOT}/lib NO_DEFAULT_PATH)
  list(APPEND required LibTorch_CUDA_LIBRARY LibTorch_C10_CUDA_LIBRARY)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch REQUIRED_VARS ${required}
  REASON_FAILURE_MESSAGE "run tools/build, which fetches it, or set LIBTORCH_DIR")

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  # libtorch_cpu.so of the PyPI wheel needs libcudart and libcupti when a program starts. They lie
  # beside it (tools/build puts them there) or in an installed toolkit; the linker only has to be
  # told not to insist on finding them.
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE
    ${LibTorch_INCLUDE_DIR} ${LibTorch_INCLUDE_DIR}/torch/csrc/api/include)
  target_link_options(LibTorch::LibTorch INTERFACE -Wl,--allow-shlib-undefined
    -Wl,-rpath,${LibTorch_ROOT}/lib)
  set(libraries ${LibTorch_CPU_LIBRARY} ${LibTorch_C10_LIBRARY})
  # --no-as-needed: torch_cuda registers its kernels from static initialisers.
  if(DDPO_CUDA)
    find_package(CUDAToolkit REQUIRED)
    target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
    target_compile_definitions(LibTorch::LibTorch INTERFACE DDPO_CUDA=1)
    list(PREPEND libraries -Wl,--no-as-needed ${LibTorch_CUDA_LIBRARY} ${LibTorch_C10_CUDA_LIBRARY}
         -Wl,--as-needed)
    list(APPEND libraries CUDA::cudart)
  endif()
  # libtorch_cpu.so and libtorch_cuda.so export the symbols of a Gloo of their own, newer than
  # libgloo and of other class layouts. So libgloo stands before them on every link line; the other
  # way round a program that uses Gloo crashes or hangs.
  target_link_libraries(LibTorch::LibTorch INTERFACE ${Gloo_LIBRARY} ${libraries} Threads::Threads)

  # One precompiled header for every file that uses LibTorch. Narrow on purpose: ATen and autograd,
  # not torch/torch.h.
  file(WRITE ${CMAKE_BINARY_DIR}/ddpo_torch_pch.cc "")
  add_library(ddpo_torch_pch OBJECT ${CMAKE_BINARY_DIR}/ddpo_torch_pch.cc)
  target_link_libraries(ddpo_torch_pch PUBLIC LibTorch::LibTorch)
  target_compile_options(ddpo_torch_pch PRIVATE ${DDPO_WARNINGS})
  target_precompile_headers(ddpo_torch_pch PRIVATE <ATen/ATen.h> <ATen/core/grad_mode.h> <map>
                            <string> <vector> <memory>)
endif()
mark_as_advanced(LibTorch_INCLUDE_DIR LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY)
