#pragma once

#include <cerrno>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/files.h"

namespace ddpo::testing {

// Files and folders in memory that lose what a machine without power may lose. A name made, renamed
// or removed stays so for sure once its folder was synced, and no other folder's sync helps; a
// file's bytes are safe once its write has returned. `.` and `/` are the same folder, which is
// always there. One thread uses it.
class CrashingFileSystem : public FileSystem {
 public:
  // The operation with this number, from 0, is the last: it happens in part or not at all, and all
  // that follow fail. −1 for none.
  void CrashAt(int operation) { crash_at_ = operation; }
  // What is there after the power came back: nothing of what was not synced, or with a seed any
  // part of it. A rename within a folder is on the disk wholly or not at all.
  void Reboot(std::optional<uint64_t> seed = std::nullopt) {
    std::mt19937_64 coin(seed.value_or(0));
    Settle(*root_, [&] { return seed.has_value() && coin() % 2 == 0; });
    crash_at_ = -1;
    operations_ = 0;
  }
  int operations() const { return operations_; }

  absl::StatusOr<std::string> Read(const std::string& path) override {
    const NodePtr file = Find(path);
    if (file == nullptr) return Error(ENOENT, "cannot open ", path);
    if (file->is_folder) return Error(EISDIR, "cannot read ", path);
    return file->contents;
  }

  absl::Status WriteSynced(const std::string& path, absl::string_view contents) override {
    return Write(path, "", contents);
  }

  absl::Status AppendSynced(const std::string& path, absl::string_view contents) override {
    const NodePtr file = Find(path);
    return Write(path, file == nullptr ? "" : file->contents, contents);
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (!Spend()) return Down();
    const NodePtr node = Find(from);
    const NodePtr target = Find(to);
    const NodePtr from_folder = Find(DirName(from));
    const NodePtr to_folder = Find(DirName(to));
    const std::string what = absl::StrCat("cannot rename ", from, " to ");
    if (node == nullptr || to_folder == nullptr) return Error(ENOENT, what, to);
    if (!to_folder->is_folder) return Error(ENOTDIR, what, to);
    if (target != nullptr) {
      if (target == node) return absl::OkStatus();
      if (target->is_folder && !node->is_folder) return Error(EISDIR, what, to);
      if (!target->is_folder && node->is_folder) return Error(ENOTDIR, what, to);
      if (!target->entries.empty()) return Error(ENOTEMPTY, what, to);
    }
    if (from_folder == to_folder) {
      Make({BaseName(from), BaseName(to), node}, *to_folder);
    } else {
      Make({"", BaseName(to), node}, *to_folder);
      Make({BaseName(from), "", nullptr}, *from_folder);
    }
    return absl::OkStatus();
  }

  absl::Status SyncDirectory(const std::string& path) override {
    if (!Spend()) return Down();
    const NodePtr folder = Find(path);
    if (folder == nullptr) return Error(ENOENT, "cannot sync the folder ", path);
    if (!folder->is_folder) return Error(ENOTDIR, "cannot sync the folder ", path);
    folder->durable = folder->entries;
    folder->unsynced.clear();
    return absl::OkStatus();
  }

  absl::Status CreateDirectories(const std::string& path) override {
    if (!Spend()) return Down();
    NodePtr folder = root_;
    for (const std::string& name : Names(path)) {
      if (!folder->entries.contains(name)) {
        Make({"", name, NewFolder()}, *folder);
      }
      folder = folder->entries[name];
      if (!folder->is_folder) return Error(ENOTDIR, "cannot create the folder ", path);
    }
    return absl::OkStatus();
  }

  absl::Status RemoveAll(const std::string& path) override {
    const bool up = Spend();
    if (!up && !IsLast()) return Down();
    const NodePtr folder = Find(DirName(path));
    if (Find(path) != nullptr) Remove(*folder, BaseName(path));
    return up ? absl::OkStatus() : Down();
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    const NodePtr folder = Find(path);
    if (folder == nullptr) return Error(ENOENT, "cannot list ", path);
    if (!folder->is_folder) return Error(ENOTDIR, "cannot list ", path);
    std::vector<std::string> names;
    for (const auto& [name, node] : folder->entries) names.push_back(name);
    return names;
  }

  bool Exists(const std::string& path) override { return Find(path) != nullptr; }

 private:
  struct Node;
  using NodePtr = std::shared_ptr<Node>;
  using Entries = std::map<std::string, NodePtr>;
  // A change of a folder's entries, which reaches the disk as a whole or not at all. Either name
  // may be empty.
  struct Change {
    std::string removed;
    std::string added;
    NodePtr node;

    void Apply(Entries& entries) const {
      if (!removed.empty()) entries.erase(removed);
      if (!added.empty()) entries[added] = node;
    }
  };
  struct Node {
    bool is_folder = false;
    std::string contents;  // of a file
    Entries entries;       // of a folder, as programs see it
    Entries durable;       // as it was when it was synced
    std::vector<Change> unsynced;
  };

  static NodePtr NewFolder() {
    const auto folder = std::make_shared<Node>();
    folder->is_folder = true;
    return folder;
  }

  static std::vector<std::string> Names(const std::string& path) {
    std::vector<std::string> names = absl::StrSplit(path, '/', absl::SkipEmpty());
    std::erase(names, ".");
    return names;
  }
  static std::string BaseName(const std::string& path) { return Names(path).back(); }

  NodePtr Find(const std::string& path) const {
    NodePtr node = root_;
    for (const std::string& name : Names(path)) {
      const auto entry = node->entries.find(name);
      if (entry == node->entries.end()) return nullptr;
      node = entry->second;
    }
    return node;
  }

  static void Make(const Change& change, Node& folder) {
    change.Apply(folder.entries);
    folder.unsynced.push_back(change);
  }

  // One name after the other, as the system does it.
  static void Remove(Node& folder, const std::string& name) {
    const NodePtr node = folder.entries.at(name);
    while (!node->entries.empty()) Remove(*node, node->entries.begin()->first);
    Make({name, "", nullptr}, folder);
  }

  absl::Status Write(const std::string& path, const std::string& before,
                     absl::string_view contents) {
    const bool up = Spend();
    if (!up && !IsLast()) return Down();
    const NodePtr folder = Find(DirName(path));
    if (folder == nullptr) return Error(ENOENT, "cannot create ", path);
    if (!folder->is_folder) return Error(ENOTDIR, "cannot create ", path);
    NodePtr file = Find(path);
    if (file == nullptr) {
      file = std::make_shared<Node>();
      Make({"", BaseName(path), file}, *folder);
    }
    if (file->is_folder) return Error(EISDIR, "cannot create ", path);
    // The worst case: half of the bytes are on the disk.
    file->contents = absl::StrCat(before, up ? contents : contents.substr(0, contents.size() / 2));
    return up ? absl::OkStatus() : Down();
  }

  // Leaves of every folder what is durable and of the other changes those that `reached_disk`.
  static void Settle(Node& folder, const std::function<bool()>& reached_disk) {
    for (const Change& change : folder.unsynced) {
      if (reached_disk()) change.Apply(folder.durable);
    }
    folder.unsynced.clear();
    folder.entries = folder.durable;
    for (const auto& [name, node] : folder.entries) Settle(*node, reached_disk);
  }

  // Whether there is power for one more operation.
  bool Spend() {
    const int operation = operations_++;
    return crash_at_ < 0 || operation < crash_at_;
  }
  // Whether the operation that there was no power for is the first of them.
  bool IsLast() const { return operations_ == crash_at_ + 1; }
  static absl::Status Down() { return absl::UnavailableError("the machine is down"); }
  static absl::Status Error(int code, absl::string_view what, const std::string& path) {
    return absl::ErrnoToStatus(code, absl::StrCat(what, path));
  }

  const NodePtr root_ = NewFolder();
  int operations_ = 0;
  int crash_at_ = -1;
};

}  // namespace ddpo::testing
