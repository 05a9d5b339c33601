#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace ddpo {

// A small file that is read again whenever it is seen to have changed. Thread-safe.
class WatchedFile {
 public:
  explicit WatchedFile(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  // Calls back with the contents if the file is another than at the last call, or this is the
  // first. A file that cannot be read is as one that has not changed, except at the first call;
  // what the callback answers is logged, except then. The callback runs under this object's lock.
  absl::Status ReadIfChanged(const std::function<absl::Status(absl::string_view contents)>& take)
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // What a change changes: file, size and time of the last write.
  struct Stamp {
    uint64_t device = 0;
    uint64_t inode = 0;
    int64_t size = -1;
    int64_t nanoseconds = 0;
    bool operator==(const Stamp&) const = default;
  };

  absl::StatusOr<Stamp> CurrentStamp() const;

  const std::string path_;
  absl::Mutex mutex_;
  Stamp stamp_ ABSL_GUARDED_BY(mutex_);
  bool was_read_ ABSL_GUARDED_BY(mutex_) = false;
};

// The bearer tokens that a server takes. It keeps their SHA-256 only. Thread-safe.
class TokenList {
 public:
  // Shorter tokens are refused: they could be guessed.
  static constexpr size_t kMinTokenLength = 16;

  // Reads a file with `TOKEN [NAME]` in each line; blank lines and lines that start with # are
  // skipped. INVALID_ARGUMENT, with the line's number, for a malformed one, and if there is none.
  static absl::StatusOr<std::unique_ptr<TokenList>> Load(const std::string& file);

  // The name of the caller (`line N` where the file has none) whose token this is; UNAUTHENTICATED
  // if it is nobody's. Takes the same time for every wrong token. Reads the file anew if it has
  // changed; a fault in the new one is logged and leaves the last good tokens in force.
  absl::StatusOr<std::string> Authenticate(absl::string_view token) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Entry {
    std::string sha256;
    std::string name;
  };

  explicit TokenList(const std::string& file) : file_(file) {}
  static absl::StatusOr<std::vector<Entry>> Parse(const std::string& path,
                                                  absl::string_view contents);
  absl::Status Refresh();

  WatchedFile file_;
  absl::Mutex mutex_;
  std::vector<Entry> entries_ ABSL_GUARDED_BY(mutex_);
};

// The bearer token that a client shows: the first word of its file. Thread-safe.
class ClientToken {
 public:
  static absl::StatusOr<std::unique_ptr<ClientToken>> Load(const std::string& file);

  // As the file says now, or last said.
  std::string Get() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  explicit ClientToken(const std::string& file) : file_(file) {}
  absl::Status Refresh();

  WatchedFile file_;
  absl::Mutex mutex_;
  std::string token_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ddpo
