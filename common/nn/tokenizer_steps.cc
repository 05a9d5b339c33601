#include "common/nn/tokenizer_steps.h"

#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/regex.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "common/nn/byte_characters.h"

namespace ddpo {
namespace {

// GPT-2's words, as the ByteLevel pre-tokenizer cuts them.
constexpr char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// A pattern over text, written as JSON's {"String": …} or {"Regex": …}.
class Pattern {
 public:
  static absl::StatusOr<Pattern> Read(const JsonConfig& config) {
    DDPO_ASSIGN_OR_RETURN(const JsonConfig pattern, config.Object("pattern"));
    DDPO_ASSIGN_OR_RETURN(const std::string literal, pattern.String("String", ""));
    if (!literal.empty()) return Compile(config, literal, UREGEX_LITERAL);
    DDPO_ASSIGN_OR_RETURN(const std::string regex, pattern.String("Regex", ""));
    if (regex.empty()) return config.Error("pattern", "a String or a Regex");
    return Compile(config, UnicodeSpaces(regex), 0);
  }
  static Pattern Builtin(const char* regex) {
    return *Compile(JsonConfig::Empty("built in"), UnicodeSpaces(regex), 0);
  }

  // The matches and what lies between them, in order, empty ones left out.
  struct Part {
    std::string text;
    bool match = false;
  };
  std::vector<Part> Cut(const std::string& utf8) const {
    const icu::UnicodeString text = icu::UnicodeString::fromUTF8(utf8);
    UErrorCode error = U_ZERO_ERROR;
    const std::unique_ptr<icu::RegexMatcher> matcher(regex_->matcher(text, error));
    std::vector<Part> parts;
    int32_t at = 0;
    const auto add = [&](int32_t end, bool match) {
      if (end == at) return;
      parts.push_back({"", match});
      text.tempSubStringBetween(at, end).toUTF8String(parts.back().text);
      at = end;
    };
    while (matcher->find(error) && U_SUCCESS(error)) {
      add(matcher->start(error), false);
      add(matcher->end(error), true);
    }
    add(text.length(), false);
    return parts;
  }

 private:
  static absl::StatusOr<Pattern> Compile(const JsonConfig& config, const std::string& source,
                                         uint32_t flags) {
    UErrorCode error = U_ZERO_ERROR;
    Pattern pattern;
    pattern.regex_.reset(
        icu::RegexPattern::compile(icu::UnicodeString::fromUTF8(source), flags, error));
    if (U_FAILURE(error)) {
      return config.Error("pattern",
                          absl::StrCat("a regular expression (", u_errorName(error), ")"));
    }
    return pattern;
  }

  // ICU's \s lacks some of Unicode's white space, which the tokenizers library's has.
  static std::string UnicodeSpaces(const std::string& regex) {
    std::string result;
    for (size_t i = 0; i < regex.size(); ++i) {
      if (regex[i] != '\\' || i + 1 == regex.size()) {
        result.push_back(regex[i]);
        continue;
      }
      const char escaped = regex[++i];
      absl::StrAppend(&result, escaped == 's'   ? "\\p{White_Space}"
                               : escaped == 'S' ? "\\P{White_Space}"
                                                : std::string{'\\', escaped});
    }
    return result;
  }

  std::shared_ptr<icu::RegexPattern> regex_;
};

std::string Join(const std::vector<std::string>& parts) {
  std::string joined;
  for (const std::string& part : parts) joined += part;
  return joined;
}

// A step, or those of a Sequence one after the other.
template <typename Step>
absl::StatusOr<Step> MakeChain(const JsonConfig& config, const char* key,
                               absl::StatusOr<Step> (*make)(const JsonConfig&)) {
  DDPO_ASSIGN_OR_RETURN(const std::string type, config.String("type", ""));
  std::vector<Step> steps;
  if (type == "Sequence") {
    DDPO_ASSIGN_OR_RETURN(const auto parts, config.Objects(key));
    for (const JsonConfig& part : parts) {
      DDPO_ASSIGN_OR_RETURN(steps.emplace_back(), MakeChain(part, key, make));
    }
  } else if (!type.empty()) {
    DDPO_ASSIGN_OR_RETURN(steps.emplace_back(), make(config));
  }
  return Step([steps = std::move(steps)](auto value) {
    for (const Step& step : steps) value = step(std::move(value));
    return value;
  });
}

absl::StatusOr<Normalizer> UnicodeForm(const std::string& type) {
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* form = type == "NFC"    ? icu::Normalizer2::getNFCInstance(error)
                                 : type == "NFD"  ? icu::Normalizer2::getNFDInstance(error)
                                 : type == "NFKC" ? icu::Normalizer2::getNFKCInstance(error)
                                                  : icu::Normalizer2::getNFKDInstance(error);
  if (U_FAILURE(error)) return absl::InternalError(absl::StrCat("ICU: ", u_errorName(error)));
  return Normalizer([form](const std::string& text) {
    UErrorCode failed = U_ZERO_ERROR;
    std::string result;
    form->normalize(icu::UnicodeString::fromUTF8(text), failed).toUTF8String(result);
    return result;
  });
}

absl::StatusOr<Normalizer> MakeNormalizerStep(const JsonConfig& config) {
  DDPO_ASSIGN_OR_RETURN(const std::string type, config.String("type", ""));
  if (type == "Prepend") {
    DDPO_ASSIGN_OR_RETURN(const std::string prefix, config.String("prepend", ""));
    return Normalizer([prefix](const std::string& text) {
      return text.empty() ? text : absl::StrCat(prefix, text);
    });
  }
  if (type == "Replace") {
    DDPO_ASSIGN_OR_RETURN(const Pattern pattern, Pattern::Read(config));
    DDPO_ASSIGN_OR_RETURN(const std::string content, config.String("content", ""));
    return Normalizer([pattern, content](const std::string& text) {
      std::string result;
      for (const auto& part : pattern.Cut(text)) result += part.match ? content : part.text;
      return result;
    });
  }
  if (type == "Lowercase") {
    return Normalizer([](const std::string& text) {
      std::string result;
      icu::UnicodeString::fromUTF8(text).toLower(icu::Locale::getRoot()).toUTF8String(result);
      return result;
    });
  }
  if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") return UnicodeForm(type);
  return config.Error("type", "Prepend, Replace, Lowercase, NFC, NFD, NFKC, NFKD or Sequence");
}

struct MetaspaceOptions {
  std::string replacement;
  std::string prepend_scheme;  // always, first or never
  bool split = true;
};

absl::StatusOr<MetaspaceOptions> ReadMetaspace(const JsonConfig& config) {
  MetaspaceOptions options;
  DDPO_ASSIGN_OR_RETURN(options.replacement, config.String("replacement", "▁"));
  if (options.replacement.empty()) return config.Error("replacement", "a character");
  // Before tokenizers 0.15 a flag said it.
  DDPO_ASSIGN_OR_RETURN(const bool prefix, config.Bool("add_prefix_space", true));
  DDPO_RETURN_IF_ERROR(
      config.Require("prepend_scheme", {R"("always")", R"("first")", R"("never")"}));
  DDPO_ASSIGN_OR_RETURN(options.prepend_scheme,
                        config.String("prepend_scheme", prefix ? "always" : "never"));
  DDPO_ASSIGN_OR_RETURN(options.split, config.Bool("split", true));
  return options;
}

std::vector<Word> MetaspaceWords(const MetaspaceOptions& options, const std::vector<Word>& words) {
  std::vector<Word> result;
  for (const Word& word : words) {
    std::string text = absl::StrReplaceAll(word.text, {{" ", options.replacement}});
    const bool prepend =
        options.prepend_scheme == "always" || (options.prepend_scheme == "first" && word.at_start);
    if (prepend && !absl::StartsWith(text, options.replacement)) {
      text.insert(0, options.replacement);
    }
    // Each replacement character begins a word.
    for (size_t at = 0, end = 0; at < text.size(); at = end) {
      end = options.split ? text.find(options.replacement, at + 1) : text.size();
      end = std::min(end, text.size());
      result.push_back({text.substr(at, end - at), word.at_start && at == 0});
    }
  }
  return result;
}

std::vector<Word> ByteLevelWords(bool add_prefix_space, const std::optional<Pattern>& pattern,
                                 const std::vector<Word>& words) {
  std::vector<Word> result;
  for (const Word& word : words) {
    std::string text = word.text;
    if (add_prefix_space && !absl::StartsWith(text, " ")) text.insert(0, " ");
    std::vector<Pattern::Part> parts = {{text, true}};
    if (pattern.has_value()) parts = pattern->Cut(text);
    for (size_t i = 0; i < parts.size(); ++i) {
      std::string characters;
      for (const char byte : parts[i].text) {
        characters += ByteCharacters()[static_cast<unsigned char>(byte)];
      }
      result.push_back({std::move(characters), word.at_start && i == 0});
    }
  }
  return result;
}

// Cuts at a pattern; with `keep` what matches is a word as well.
PreTokenizer SplitAt(const Pattern& pattern, bool keep, bool invert) {
  return [pattern, keep, invert](const std::vector<Word>& words) {
    std::vector<Word> result;
    for (const Word& word : words) {
      const std::vector<Pattern::Part> parts = pattern.Cut(word.text);
      for (size_t i = 0; i < parts.size(); ++i) {
        if (!keep && parts[i].match != invert) continue;
        result.push_back({parts[i].text, word.at_start && i == 0});
      }
    }
    return result;
  };
}

absl::StatusOr<PreTokenizer> MakePreTokenizerStep(const JsonConfig& config) {
  DDPO_ASSIGN_OR_RETURN(const std::string type, config.String("type", ""));
  if (type == "Metaspace") {
    DDPO_ASSIGN_OR_RETURN(const MetaspaceOptions options, ReadMetaspace(config));
    return PreTokenizer(
        [options](const std::vector<Word>& words) { return MetaspaceWords(options, words); });
  }
  if (type == "ByteLevel") {
    DDPO_ASSIGN_OR_RETURN(const bool prefix, config.Bool("add_prefix_space", true));
    DDPO_ASSIGN_OR_RETURN(const bool use_regex, config.Bool("use_regex", true));
    std::optional<Pattern> pattern;
    if (use_regex) pattern = Pattern::Builtin(kGpt2Pattern);
    return PreTokenizer([prefix, pattern](const std::vector<Word>& words) {
      return ByteLevelWords(prefix, pattern, words);
    });
  }
  if (type == "Split") {
    DDPO_ASSIGN_OR_RETURN(const Pattern pattern, Pattern::Read(config));
    DDPO_RETURN_IF_ERROR(config.RequirePresent("behavior", {R"("Isolated")", R"("Removed")"}));
    DDPO_ASSIGN_OR_RETURN(const std::string behavior, config.String("behavior", ""));
    DDPO_ASSIGN_OR_RETURN(const bool invert, config.Bool("invert", false));
    return SplitAt(pattern, behavior == "Isolated", invert);
  }
  if (type == "Digits") {
    DDPO_ASSIGN_OR_RETURN(const bool individual, config.Bool("individual_digits", false));
    return SplitAt(Pattern::Builtin(individual ? "\\p{N}" : "\\p{N}+"), /*keep=*/true,
                   /*invert=*/false);
  }
  return config.Error("type", "Metaspace, ByteLevel, Split, Digits or Sequence");
}

// The byte of a token <0x..>; −1 for other tokens.
int FallbackByte(const std::string& token) {
  int byte = -1;
  if (token.size() == 6 && absl::StartsWith(token, "<0x") && token.back() == '>' &&
      absl::SimpleHexAtoi(token.substr(3, 2), &byte)) {
    return byte;
  }
  return -1;
}

bool IsUtf8(const std::string& bytes) {
  UChar32 c = 0;
  for (int32_t at = 0, size = static_cast<int32_t>(bytes.size()); at < size;) {
    U8_NEXT(bytes.data(), at, size, c);
    if (c < 0) return false;
  }
  return true;
}

// Runs of byte tokens become their character, or U+FFFD for each byte where they make none.
std::vector<std::string> JoinFallbackBytes(const std::vector<std::string>& tokens) {
  std::vector<std::string> result;
  std::string bytes;
  const auto flush = [&] {
    if (IsUtf8(bytes)) {
      if (!bytes.empty()) result.push_back(bytes);
    } else {
      result.insert(result.end(), bytes.size(), "\xEF\xBF\xBD");
    }
    bytes.clear();
  };
  for (const std::string& token : tokens) {
    if (const int byte = FallbackByte(token); byte >= 0) {
      bytes.push_back(static_cast<char>(byte));
      continue;
    }
    flush();
    result.push_back(token);
  }
  flush();
  return result;
}

// A token with a character of another alphabet is text as it stands.
std::string BytesOfToken(const std::string& token) {
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    auto end = static_cast<int32_t>(at);
    U8_FWD_1(token.data(), end, static_cast<int32_t>(token.size()));
    const auto byte = BytesOfCharacters().find(token.substr(at, static_cast<size_t>(end) - at));
    if (byte == BytesOfCharacters().end()) return token;
    bytes.push_back(static_cast<char>(byte->second));
    at = static_cast<size_t>(end);
  }
  return bytes;
}

absl::StatusOr<Decoder> MakeStrip(const JsonConfig& config) {
  DDPO_ASSIGN_OR_RETURN(const std::string content, config.String("content", " "));
  if (content.empty()) return config.Error("content", "a character");
  DDPO_ASSIGN_OR_RETURN(const int64_t start, config.Int("start", 0, 0));
  DDPO_ASSIGN_OR_RETURN(const int64_t stop, config.Int("stop", 0, 0));
  return Decoder([=](std::vector<std::string> tokens) {
    for (std::string& token : tokens) {
      for (int64_t i = 0; i < start && absl::StartsWith(token, content); ++i) {
        token.erase(0, content.size());
      }
      for (int64_t i = 0; i < stop && absl::EndsWith(token, content); ++i) {
        token.resize(token.size() - content.size());
      }
    }
    return tokens;
  });
}

absl::StatusOr<Decoder> MakeDecoderStep(const JsonConfig& config) {
  DDPO_ASSIGN_OR_RETURN(const std::string type, config.String("type", ""));
  if (type == "Replace") {
    DDPO_ASSIGN_OR_RETURN(const Normalizer replace, MakeNormalizerStep(config));
    return Decoder([replace](std::vector<std::string> tokens) {
      for (std::string& token : tokens) token = replace(token);
      return tokens;
    });
  }
  if (type == "ByteFallback") return Decoder(JoinFallbackBytes);
  if (type == "Fuse") {
    return Decoder([](const std::vector<std::string>& tokens) {
      return std::vector<std::string>{Join(tokens)};
    });
  }
  if (type == "Strip") return MakeStrip(config);
  if (type == "Metaspace") {
    DDPO_ASSIGN_OR_RETURN(const MetaspaceOptions options, ReadMetaspace(config));
    return Decoder([options](std::vector<std::string> tokens) {
      for (size_t i = 0; i < tokens.size(); ++i) {
        const bool drop = i == 0 && options.prepend_scheme != "never";
        tokens[i] = absl::StrReplaceAll(tokens[i], {{options.replacement, drop ? "" : " "}});
      }
      return tokens;
    });
  }
  if (type == "ByteLevel") {
    return Decoder([](const std::vector<std::string>& tokens) {
      std::string bytes;
      for (const std::string& token : tokens) bytes += BytesOfToken(token);
      return std::vector<std::string>{ReplaceDamagedUtf8(bytes)};
    });
  }
  return config.Error("type",
                      "Replace, ByteFallback, Fuse, Strip, Metaspace, ByteLevel or Sequence");
}

}  // namespace

absl::StatusOr<Normalizer> MakeNormalizer(const JsonConfig& config) {
  return MakeChain(config, "normalizers", MakeNormalizerStep);
}

absl::StatusOr<PreTokenizer> MakePreTokenizer(const JsonConfig& config) {
  return MakeChain(config, "pretokenizers", MakePreTokenizerStep);
}

absl::StatusOr<Decoder> MakeDecoder(const JsonConfig& config) {
  return MakeChain(config, "decoders", MakeDecoderStep);
}

}  // namespace ddpo
