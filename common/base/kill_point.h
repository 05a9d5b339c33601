#pragma once

#include <string>

namespace ddpo {

// A named place at which a test may want the process to die: where the environment variable
// DDPO_KILL_AT is NAME:N, the process kills itself (SIGKILL, as the kernel's out-of-memory killer
// does) when it comes past NAME for the N-th time. Otherwise this does nothing. Any thread.
void KillPoint(const char* name);

}  // namespace ddpo
