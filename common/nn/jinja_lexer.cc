#include "common/nn/jinja_lexer.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/nn/jinja_value.h"

namespace ddpo {
namespace {

absl::StatusOr<std::string> ReadString(absl::string_view source, size_t* at) {
  const char quote = source[(*at)++];
  std::string text;
  for (; *at < source.size(); ++*at) {
    const char c = source[*at];
    if (c == quote) {
      ++*at;
      return text;
    }
    if (c != '\\' || *at + 1 == source.size()) {
      text.push_back(c);
      continue;
    }
    switch (const char escaped = source[++*at]) {
      case 'n':
        text.push_back('\n');
        break;
      case 't':
        text.push_back('\t');
        break;
      case 'r':
        text.push_back('\r');
        break;
      case '\\':
      case '\'':
      case '"':
        text.push_back(escaped);
        break;
      default:
        return JinjaUnsupported(absl::StrCat("the escape \\", std::string(1, escaped)));
    }
  }
  return absl::InvalidArgumentError("a text without its closing quotation mark");
}

}  // namespace

absl::StatusOr<std::vector<JinjaToken>> JinjaTokens(absl::string_view source) {
  static constexpr absl::string_view kLong[] = {"==", "!=", "<=", ">="};
  std::vector<JinjaToken> tokens;
  for (size_t at = 0; at < source.size();) {
    const char c = source[at];
    if (absl::ascii_isspace(static_cast<unsigned char>(c))) {
      ++at;
    } else if (c == '\'' || c == '"') {
      DDPO_ASSIGN_OR_RETURN(std::string text, ReadString(source, &at));
      tokens.push_back({JinjaToken::kString, std::move(text)});
    } else if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_') {
      size_t end = at;
      while (end < source.size() &&
             (absl::ascii_isalnum(static_cast<unsigned char>(source[end])) || source[end] == '_')) {
        ++end;
      }
      tokens.push_back({absl::ascii_isdigit(static_cast<unsigned char>(c)) ? JinjaToken::kNumber
                                                                           : JinjaToken::kName,
                        std::string(source.substr(at, end - at))});
      at = end;
    } else {
      const auto longer = std::find(std::begin(kLong), std::end(kLong), source.substr(at, 2));
      const size_t size = longer == std::end(kLong) ? 1 : 2;
      tokens.push_back({JinjaToken::kSymbol, std::string(source.substr(at, size))});
      at += size;
    }
  }
  tokens.emplace_back();
  return tokens;
}

}  // namespace ddpo
