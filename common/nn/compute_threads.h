#pragma once

namespace ddpo {

// LibTorch's threads for one computation, on this thread and on those that start later.
void SetComputeThreads(int threads);

}  // namespace ddpo
