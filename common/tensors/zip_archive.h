#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ddpo {

// The entries of a zip archive that is in memory, by name; the views point into `bytes`. Only
// stored entries, as torch.save writes them. `source` stands for the file in errors: DATA_LOSS for
// a damaged archive (truncated, an entry that leaves the file, one name twice), INVALID_ARGUMENT
// for what is not supported (compression, encryption, several disks, zip64). Checksums are not
// compared: torch.save can be told to leave them out.
// Format: PKWARE's APPNOTE.TXT
absl::StatusOr<std::map<std::string, absl::string_view>> ReadStoredZip(const std::string& source,
                                                                       absl::string_view bytes);

}  // namespace ddpo
