#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ddpo {

// The operations on files that a run's safety depends on, as a seam: a test can fail them or drop
// what was never synced. Errors carry errno's meaning and the path. Thread-safe.
class FileSystem {
 public:
  virtual ~FileSystem() = default;

  // The system's; lives for ever.
  static FileSystem* Real();

  virtual absl::StatusOr<std::string> Read(const std::string& path) = 0;
  // Writes and syncs the file itself, not its folder's entry.
  virtual absl::Status WriteSynced(const std::string& path, absl::string_view contents) = 0;
  // Adds to the end of a file, which it makes if it is not there, and syncs the file itself.
  virtual absl::Status AppendSynced(const std::string& path, absl::string_view contents) = 0;
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  // Makes creations, renames and removals in the folder durable.
  virtual absl::Status SyncDirectory(const std::string& path) = 0;
  // With parents, durably; fine if it is there already.
  virtual absl::Status CreateDirectories(const std::string& path) = 0;
  // A file or a whole folder; fine if it is not there.
  virtual absl::Status RemoveAll(const std::string& path) = 0;
  // Names, sorted, without . and ..
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& path) = 0;
  virtual bool Exists(const std::string& path) = 0;
};

absl::StatusOr<std::string> ReadFile(const std::string& path);

// Writes under a temporary name in the same folder, syncs, renames and syncs the folder: readers
// and a machine that loses power see the old contents or the new ones, never a part.
absl::Status WriteFileAtomically(const std::string& path, absl::string_view contents,
                                 FileSystem* file_system = FileSystem::Real());

// a/b, whatever slashes are there already; `b` alone where it is absolute.
std::string JoinPath(absl::string_view a, absl::string_view b);
// The folder part of a path; `.` where there is none.
std::string DirName(absl::string_view path);

// Where an asset such as `assets/configs/demo_compressibility.yaml` lies: as given (absolute or
// from the working directory), under $DDPO_ASSETS_DIR, in the source tree of this build, or in
// ../share/ddpo beside the program's folder.
// NOT_FOUND lists the places.
absl::StatusOr<std::string> FindResource(const std::string& path);

}  // namespace ddpo
