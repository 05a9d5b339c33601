#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ddpo {

struct JinjaToken {
  enum Kind { kName, kString, kNumber, kSymbol, kEnd };
  Kind kind = kEnd;
  std::string text;
};

// The tokens of one of Jinja's tags, the last of which is a kEnd. INVALID_ARGUMENT for a text
// without its end and for escapes other than those of white space and quotation marks.
absl::StatusOr<std::vector<JinjaToken>> JinjaTokens(absl::string_view source);

}  // namespace ddpo
