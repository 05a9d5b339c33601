#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "common/base/files.h"

namespace ddpo::testing {

// The real one, which from the given write operation on fails as a disk that is full: a file's
// first half may still be written.
class FailingFileSystem : public FileSystem {
 public:
  explicit FailingFileSystem(int operations) : left_(operations) {}
  bool failed() const { return left_ < 0; }

  absl::StatusOr<std::string> Read(const std::string& path) override { return real_->Read(path); }
  absl::Status WriteSynced(const std::string& path, absl::string_view contents) override {
    if (Spend()) return real_->WriteSynced(path, contents);
    (void)real_->WriteSynced(path, contents.substr(0, contents.size() / 2));
    return Full(path);
  }
  absl::Status AppendSynced(const std::string& path, absl::string_view contents) override {
    return Spend() ? real_->AppendSynced(path, contents) : Full(path);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    return Spend() ? real_->Rename(from, to) : Full(to);
  }
  absl::Status SyncDirectory(const std::string& path) override {
    return Spend() ? real_->SyncDirectory(path) : Full(path);
  }
  absl::Status CreateDirectories(const std::string& path) override {
    return Spend() ? real_->CreateDirectories(path) : Full(path);
  }
  absl::Status RemoveAll(const std::string& path) override {
    return Spend() ? real_->RemoveAll(path) : Full(path);
  }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    return real_->List(path);
  }
  bool Exists(const std::string& path) override { return real_->Exists(path); }

 private:
  bool Spend() { return --left_ >= 0; }
  static absl::Status Full(const std::string& path) {
    return absl::ResourceExhaustedError("cannot write " + path + ": no space left on device");
  }

  FileSystem* const real_ = FileSystem::Real();
  std::atomic<int> left_;
};

}  // namespace ddpo::testing
