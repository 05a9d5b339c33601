#include "common/nn/compute_threads.h"

#include <ATen/Parallel.h>

namespace ddpo {

void SetComputeThreads(int threads) { at::set_num_threads(threads); }

}  // namespace ddpo
