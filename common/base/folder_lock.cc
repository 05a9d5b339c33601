#include "common/base/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/logging.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(20);

// Errors of file systems without locks, as some network volumes are.
bool KnowsNoLocks(int error) {
  return error == ENOLCK || error == ENOSYS || error == EOPNOTSUPP || error == EINVAL;
}

// The process and, as folders are shared between machines and containers, where it runs.
std::string ThisProcess() {
  char host[256] = {};
  if (gethostname(host, sizeof(host) - 1) != 0) host[0] = '\0';
  return absl::StrCat("process ", getpid(), " on ", host);
}

}  // namespace

absl::StatusOr<std::unique_ptr<FolderLock>> FolderLock::Take(const std::string& folder,
                                                             const std::string& name,
                                                             absl::Duration patience) {
  DDPO_RETURN_IF_ERROR(FileSystem::Real()->CreateDirectories(folder));
  const std::string path = JoinPath(folder, name);
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  std::unique_ptr<FolderLock> lock(new FolderLock(file));
  const absl::Time deadline = absl::Now() + patience;
  while (flock(file, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    if (error == EINTR) continue;
    if (KnowsNoLocks(error)) {
      LogWarning(path, " cannot be locked (", std::strerror(error),
                 "): nothing keeps a second process out of the folder");
      return lock;
    }
    if (error != EWOULDBLOCK) {
      return absl::ErrnoToStatus(error, absl::StrCat("cannot lock ", path));
    }
    if (absl::Now() >= deadline) {
      std::string holder = ReadFile(path).value_or("");
      absl::StripAsciiWhitespace(&holder);
      return absl::AbortedError(absl::StrCat(
          folder, " is in use: ", holder.empty() ? "another process" : holder, " has ", name));
    }
    absl::SleepFor(kPoll);
  }
  // For the message above; the lock holds without it, as on a full disk.
  const std::string holder = ThisProcess() + "\n";
  if (ftruncate(file, 0) == 0) {
    [[maybe_unused]] const ssize_t written = pwrite(file, holder.data(), holder.size(), 0);
  }
  return lock;
}

FolderLock::~FolderLock() { close(file_); }

}  // namespace ddpo
