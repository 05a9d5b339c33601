#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace ddpo {

// A process's claim on a folder: an flock on a file in it, which ends with this object, and with
// the process however that ends. The file stays, and says who had it last.
class FolderLock {
 public:
  // Locks FOLDER/NAME and makes both if need be. Waits at most `patience` for another process that
  // has it, as one that is just ending; ABORTED then names the folder and that process. Where the
  // file system knows no locks this warns and locks nothing.
  static absl::StatusOr<std::unique_ptr<FolderLock>> Take(const std::string& folder,
                                                          const std::string& name,
                                                          absl::Duration patience);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;

 private:
  explicit FolderLock(int file) : file_(file) {}

  const int file_;
};

}  // namespace ddpo
