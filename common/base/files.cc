#include "common/base/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

namespace fs = std::filesystem;

absl::Status ToStatus(const std::error_code& error, absl::string_view what,
                      const std::string& path) {
  if (!error) return absl::OkStatus();
  return absl::ErrnoToStatus(error.value(), absl::StrCat(what, " ", path));
}

// Closes the descriptor it holds.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }

 private:
  const int fd_;
};

class RealFileSystem : public FileSystem {
 public:
  absl::StatusOr<std::string> Read(const std::string& path) override {
    const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.ok()) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
    std::string contents;
    char buffer[1 << 16];
    while (true) {
      const ssize_t count = read(file.get(), buffer, sizeof(buffer));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
      if (count == 0) return contents;
      contents.append(buffer, static_cast<size_t>(count));
    }
  }

  absl::Status WriteSynced(const std::string& path, absl::string_view contents) override {
    return Write(path, O_TRUNC, contents);
  }

  absl::Status AppendSynced(const std::string& path, absl::string_view contents) override {
    return Write(path, O_APPEND, contents);
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    std::error_code error;
    fs::rename(from, to, error);
    return ToStatus(error, absl::StrCat("cannot rename ", from, " to"), to);
  }

  absl::Status SyncDirectory(const std::string& path) override {
    const Descriptor directory(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory.ok() || fsync(directory.get()) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot sync the folder ", path));
    }
    return absl::OkStatus();
  }

  absl::Status CreateDirectories(const std::string& path) override {
    std::error_code error;
    std::vector<fs::path> made;
    for (fs::path folder = fs::absolute(path, error); !error && !fs::exists(folder, error);
         folder = folder.parent_path()) {
      made.push_back(folder);
    }
    error.clear();
    fs::create_directories(path, error);
    DDPO_RETURN_IF_ERROR(ToStatus(error, "cannot create the folder", path));
    for (const fs::path& folder : made) {
      const absl::Status synced = SyncDirectory(folder.parent_path().string());
      // One that may be written but not read cannot be synced.
      if (!synced.ok() && !absl::IsPermissionDenied(synced)) return synced;
    }
    return absl::OkStatus();
  }

  absl::Status RemoveAll(const std::string& path) override {
    std::error_code error;
    fs::remove_all(path, error);
    return ToStatus(error, "cannot remove", path);
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    std::error_code error;
    std::vector<std::string> names;
    for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
      names.push_back(it->path().filename().string());
    }
    if (error) return ToStatus(error, "cannot list", path);
    std::sort(names.begin(), names.end());
    return names;
  }

  bool Exists(const std::string& path) override {
    std::error_code error;
    return fs::exists(path, error);
  }

 private:
  static absl::Status Write(const std::string& path, int mode, absl::string_view contents) {
    const Descriptor file(open(path.c_str(), O_WRONLY | O_CREAT | mode | O_CLOEXEC, 0644));
    if (!file.ok()) return absl::ErrnoToStatus(errno, absl::StrCat("cannot create ", path));
    while (!contents.empty()) {
      const ssize_t count = write(file.get(), contents.data(), contents.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
      contents.remove_prefix(static_cast<size_t>(count));
    }
    if (fsync(file.get()) != 0)
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot sync ", path));
    return absl::OkStatus();
  }
};

}  // namespace

FileSystem* FileSystem::Real() {
  static RealFileSystem* const file_system = new RealFileSystem();
  return file_system;
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  return FileSystem::Real()->Read(path);
}

absl::Status WriteFileAtomically(const std::string& path, absl::string_view contents,
                                 FileSystem* file_system) {
  static std::atomic<uint64_t> counter{0};
  const std::string temporary = absl::StrCat(path, ".tmp-", getpid(), "-", counter.fetch_add(1));
  absl::Status status = file_system->WriteSynced(temporary, contents);
  if (status.ok()) status = file_system->Rename(temporary, path);
  if (!status.ok()) {
    // The first error is the one to tell; the temporary file may not be there at all.
    (void)file_system->RemoveAll(temporary);
    return status;
  }
  return file_system->SyncDirectory(DirName(path));
}

std::string JoinPath(absl::string_view a, absl::string_view b) {
  return (fs::path(std::string(a)) / fs::path(std::string(b))).string();
}

std::string DirName(absl::string_view path) {
  const std::string parent = fs::path(std::string(path)).parent_path().string();
  return parent.empty() ? "." : parent;
}

absl::StatusOr<std::string> FindResource(const std::string& path) {
  std::vector<std::string> places = {path};
  if (const char* assets = std::getenv("DDPO_ASSETS_DIR")) places.push_back(JoinPath(assets, path));
  places.push_back(JoinPath(DDPO_SOURCE_ROOT, path));
  std::error_code error;
  if (const fs::path program = fs::read_symlink("/proc/self/exe", error); !error) {
    const fs::path share = program.parent_path().parent_path() / "share" / "ddpo";
    places.push_back(JoinPath(share.string(), path));
  }
  for (const std::string& place : places) {
    if (FileSystem::Real()->Exists(place)) return place;
  }
  return absl::NotFoundError(
      absl::StrCat(path, ": not found; looked at ", absl::StrJoin(places, ", ")));
}

}  // namespace ddpo
