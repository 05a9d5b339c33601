#include "common/rpc/tokens.h"

#include <openssl/crypto.h>
#include <sys/stat.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/files.h"
#include "common/base/logging.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"

namespace ddpo {

absl::StatusOr<WatchedFile::Stamp> WatchedFile::CurrentStamp() const {
  struct stat found {};
  if (stat(path_.c_str(), &found) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("can't read ", path_));
  }
  return Stamp{.device = found.st_dev,
               .inode = found.st_ino,
               .size = found.st_size,
               .nanoseconds = found.st_mtim.tv_sec * 1'000'000'000 + found.st_mtim.tv_nsec};
}

absl::Status WatchedFile::ReadIfChanged(
    const std::function<absl::Status(absl::string_view contents)>& take) {
  absl::MutexLock lock(&mutex_);
  const absl::StatusOr<Stamp> stamp = CurrentStamp();
  if (!stamp.ok()) return was_read_ ? absl::OkStatus() : stamp.status();
  if (was_read_ && *stamp == stamp_) return absl::OkStatus();
  const absl::StatusOr<std::string> contents = ReadFile(path_);
  const absl::Status status = contents.ok() ? take(*contents) : contents.status();
  if (was_read_) {
    if (status.ok()) {
      LogInfo("read ", path_, " again");
    } else {
      LogError(status.message(), "; what it held before stays in force");
    }
  } else if (!status.ok()) {
    return status;
  }
  stamp_ = *stamp;
  was_read_ = true;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<TokenList>> TokenList::Load(const std::string& file) {
  auto list = std::unique_ptr<TokenList>(new TokenList(file));
  DDPO_RETURN_IF_ERROR(list->Refresh());
  return list;
}

absl::StatusOr<std::vector<TokenList::Entry>> TokenList::Parse(const std::string& path,
                                                               absl::string_view contents) {
  std::vector<Entry> entries;
  int number = 0;
  for (const absl::string_view raw : absl::StrSplit(contents, '\n')) {
    ++number;
    const absl::string_view line = absl::StripAsciiWhitespace(raw);
    if (line.empty() || line[0] == '#') continue;
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    if (words.size() > 2 || words[0].size() < kMinTokenLength) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", number, ": expected a token of ", kMinTokenLength,
                       " characters or more and, after a space, a name of one word or none"));
    }
    entries.push_back(
        {.sha256 = Sha256Hex(words[0]),
         .name = words.size() == 2 ? std::string(words[1]) : absl::StrCat("line ", number)});
  }
  if (entries.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path,
                                                   ": expected tokens, one a line; no line "
                                                   "holds one"));
  }
  return entries;
}

absl::Status TokenList::Refresh() {
  return file_.ReadIfChanged([this](absl::string_view contents) -> absl::Status {
    DDPO_ASSIGN_OR_RETURN(std::vector<Entry> entries, Parse(file_.path(), contents));
    absl::MutexLock lock(&mutex_);
    entries_ = std::move(entries);
    return absl::OkStatus();
  });
}

absl::StatusOr<std::string> TokenList::Authenticate(absl::string_view token) {
  // Only a first reading can fail.
  DDPO_RETURN_IF_ERROR(Refresh());
  const std::string sha256 = Sha256Hex(token);
  absl::MutexLock lock(&mutex_);
  const Entry* found = nullptr;
  for (const Entry& entry : entries_) {
    if (CRYPTO_memcmp(entry.sha256.data(), sha256.data(), sha256.size()) == 0) found = &entry;
  }
  if (found == nullptr) return absl::UnauthenticatedError("the bearer token is not known here");
  return found->name;
}

absl::StatusOr<std::unique_ptr<ClientToken>> ClientToken::Load(const std::string& file) {
  auto token = std::unique_ptr<ClientToken>(new ClientToken(file));
  DDPO_RETURN_IF_ERROR(token->Refresh());
  return token;
}

absl::Status ClientToken::Refresh() {
  return file_.ReadIfChanged([this](absl::string_view contents) {
    const std::vector<absl::string_view> words =
        absl::StrSplit(contents, absl::ByAnyChar(" \t\r\n"), absl::SkipEmpty());
    if (words.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(file_.path(), ": expected a bearer token"));
    }
    for (const char c : words[0]) {
      // What HTTP headers carry unchanged.
      if (c > ' ' && c <= '~') continue;
      return absl::InvalidArgumentError(
          absl::StrCat(file_.path(), ": expected a token of printable ASCII characters"));
    }
    absl::MutexLock lock(&mutex_);
    token_ = std::string(words[0]);
    return absl::OkStatus();
  });
}

std::string ClientToken::Get() {
  // Only a first reading can fail, which Load has made.
  (void)Refresh();
  absl::MutexLock lock(&mutex_);
  return token_;
}

}  // namespace ddpo
