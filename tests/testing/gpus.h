#pragma once

#include <ATen/Context.h>

#include <iostream>

namespace ddpo::testing {

// Whether there are that many GPUs. If not, says so in a line that tools/test shows at its end; the
// test is to be skipped.
inline bool HasGpus(size_t count) {
  const size_t found = at::getNumGPUs();
  if (found >= count) return true;
  std::cout << "SKIPPED: needs " << count << (count == 1 ? " GPU" : " GPUs") << ", there are "
            << found
#ifndef DDPO_CUDA
            << " (this build has no CUDA)"
#endif
            << std::endl;
  return false;
}

}  // namespace ddpo::testing
