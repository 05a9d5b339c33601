#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"

namespace ddpo::testing {

// Files in memory that lose what a machine without power may lose: everything whose folder was not
// synced since. One thread uses it.
class CrashingFileSystem : public FileSystem {
 public:
  // The operation with this number, from 0, is the last: it happens in part or not at all, and all
  // that follow fail. −1 for none.
  void CrashAt(int operation) { crash_at_ = operation; }
  // What is there after the power came back.
  void Reboot() {
    now_ = durable_;
    crash_at_ = -1;
    operations_ = 0;
  }
  int operations() const { return operations_; }

  absl::StatusOr<std::string> Read(const std::string& path) override {
    const auto file = now_.find(path);
    if (file == now_.end()) return absl::NotFoundError(absl::StrCat("cannot open ", path));
    return file->second;
  }

  absl::Status WriteSynced(const std::string& path, absl::string_view contents) override {
    if (Crashes()) {
      // The worst case: half of the bytes, under a name that happens to have reached the disk.
      if (IsFirstFailure()) durable_[path] = std::string(contents.substr(0, contents.size() / 2));
      return Down();
    }
    // Contents that replace others in place reach the disk; a new name does not.
    if (durable_.contains(path)) durable_[path] = std::string(contents);
    now_[path] = std::string(contents);
    return absl::OkStatus();
  }

  absl::Status AppendSynced(const std::string& path, absl::string_view contents) override {
    const auto file = now_.find(path);
    const std::string before = file == now_.end() ? "" : file->second;
    return WriteSynced(path, absl::StrCat(before, contents));
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (Crashes()) return Down();
    if (!now_.contains(from)) return absl::NotFoundError(absl::StrCat("cannot rename ", from));
    now_[to] = now_[from];
    now_.erase(from);
    return absl::OkStatus();
  }

  absl::Status SyncDirectory(const std::string& path) override {
    if (Crashes()) return Down();
    std::erase_if(durable_, [&](const auto& file) { return DirName(file.first) == path; });
    for (const auto& file : now_) {
      if (DirName(file.first) == path) durable_.insert(file);
    }
    return absl::OkStatus();
  }

  absl::Status CreateDirectories(const std::string&) override {
    return Crashes() ? Down() : absl::OkStatus();
  }

  absl::Status RemoveAll(const std::string& path) override {
    if (Crashes()) return Down();
    std::erase_if(now_, [&](const auto& file) {
      return file.first == path || file.first.starts_with(path + "/");
    });
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    std::vector<std::string> names;
    for (const auto& [file, contents] : now_) {
      if (DirName(file) == path) names.push_back(file.substr(path.size() + 1));
    }
    return names;
  }

  bool Exists(const std::string& path) override { return now_.contains(path); }

 private:
  bool Crashes() {
    const int operation = operations_++;
    return crash_at_ >= 0 && operation >= crash_at_;
  }
  bool IsFirstFailure() const { return operations_ == crash_at_ + 1; }
  static absl::Status Down() { return absl::UnavailableError("the machine is down"); }

  std::map<std::string, std::string> now_;
  std::map<std::string, std::string> durable_;
  int operations_ = 0;
  int crash_at_ = -1;
};

}  // namespace ddpo::testing
