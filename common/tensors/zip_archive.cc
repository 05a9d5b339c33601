#include "common/tensors/zip_archive.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

constexpr uint32_t kEndSignature = 0x06054b50, kCentralSignature = 0x02014b50,
                   kLocalSignature = 0x04034b50;
constexpr size_t kEndBytes = 22, kCentralBytes = 46, kLocalBytes = 30;
constexpr size_t kMaxCommentBytes = 0xffff;
constexpr uint16_t kStored = 0;
constexpr uint16_t kEncrypted = 1;  // bit of the flags
// Stands in place of numbers that only zip64 can hold.
constexpr uint32_t kInZip64 = 0xffffffff;

uint16_t Word(absl::string_view bytes, size_t offset) {
  return static_cast<uint16_t>(static_cast<uint8_t>(bytes[offset]) |
                               static_cast<uint8_t>(bytes[offset + 1]) << 8);
}

uint32_t DoubleWord(absl::string_view bytes, size_t offset) {
  return Word(bytes, offset) | static_cast<uint32_t>(Word(bytes, offset + 2)) << 16;
}

// Whether `size` bytes at `offset` lie in the archive.
bool Fits(absl::string_view bytes, size_t offset, size_t size) {
  return offset <= bytes.size() && size <= bytes.size() - offset;
}

absl::Status Damaged(const std::string& source, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(source, ": not a sound zip archive: ", what));
}

// Where the end record begins.
absl::StatusOr<size_t> FindEnd(const std::string& source, absl::string_view bytes) {
  if (bytes.size() < kEndBytes) return Damaged(source, "shorter than its end record");
  const size_t last = bytes.size() - kEndBytes;
  const size_t first = last - std::min(last, kMaxCommentBytes);
  for (size_t offset = last + 1; offset-- > first;) {
    if (DoubleWord(bytes, offset) == kEndSignature) return offset;
  }
  return Damaged(source, "its end record is missing");
}

// The contents of the entry whose local header is at `offset`.
absl::StatusOr<absl::string_view> Contents(const std::string& source, absl::string_view bytes,
                                           const std::string& name, uint32_t offset,
                                           uint32_t size) {
  if (!Fits(bytes, offset, kLocalBytes) || DoubleWord(bytes, offset) != kLocalSignature) {
    return Damaged(source, absl::StrCat("entry ", name, " has no header"));
  }
  const size_t begin =
      size_t{offset} + kLocalBytes + Word(bytes, offset + 26) + Word(bytes, offset + 28);
  if (!Fits(bytes, begin, size)) {
    return Damaged(source, absl::StrCat("entry ", name, " of ", size, " bytes leaves the file's ",
                                        bytes.size(), " bytes"));
  }
  return bytes.substr(begin, size);
}

}  // namespace

absl::StatusOr<std::map<std::string, absl::string_view>> ReadStoredZip(const std::string& source,
                                                                       absl::string_view bytes) {
  DDPO_ASSIGN_OR_RETURN(const size_t end, FindEnd(source, bytes));
  const uint16_t count = Word(bytes, end + 10);
  size_t offset = DoubleWord(bytes, end + 16);
  if (Word(bytes, end + 4) != 0 || Word(bytes, end + 8) != count || offset == kInZip64) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": a zip archive on several disks or of zip64"));
  }
  std::map<std::string, absl::string_view> entries;
  for (uint16_t i = 0; i < count; ++i) {
    if (!Fits(bytes, offset, kCentralBytes) || DoubleWord(bytes, offset) != kCentralSignature) {
      return Damaged(source, absl::StrCat("entry ", i, " of ", count, " is not in the directory"));
    }
    const size_t name_bytes = Word(bytes, offset + 28);
    if (!Fits(bytes, offset + kCentralBytes, name_bytes)) {
      return Damaged(source, absl::StrCat("the name of entry ", i, " leaves the file"));
    }
    const std::string name(bytes.substr(offset + kCentralBytes, name_bytes));
    const uint32_t size = DoubleWord(bytes, offset + 24);
    if (Word(bytes, offset + 10) != kStored || (Word(bytes, offset + 8) & kEncrypted) != 0 ||
        size == kInZip64 || DoubleWord(bytes, offset + 20) != size) {
      return absl::InvalidArgumentError(absl::StrCat(
          source, ": entry ", name, " is compressed, encrypted or of zip64; expected it stored"));
    }
    DDPO_ASSIGN_OR_RETURN(const absl::string_view contents,
                          Contents(source, bytes, name, DoubleWord(bytes, offset + 42), size));
    if (!entries.emplace(name, contents).second) {
      return Damaged(source, absl::StrCat("entry ", name, " is there twice"));
    }
    offset += kCentralBytes + name_bytes + Word(bytes, offset + 30) + Word(bytes, offset + 32);
  }
  return entries;
}

}  // namespace ddpo
