#pragma once

namespace ddpo {

// A named place at which a test may want something to go wrong. Where one of these environment
// variables is NAME:N, it goes wrong when the process comes past NAME for the N-th time:
//
//   DDPO_KILL_AT   the process kills itself (SIGKILL, as the kernel's out-of-memory killer does)
//   DDPO_STOP_AT   it stops itself (SIGSTOP); its connections stay open
//   DDPO_HANG_AT   the thread that comes by never goes on; the others do
//
// Otherwise this does nothing. Any thread.
void KillPoint(const char* name);

}  // namespace ddpo
