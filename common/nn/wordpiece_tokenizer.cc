#include "common/nn/wordpiece_tokenizer.h"

#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/nn/json_config.h"

namespace ddpo {
namespace {

// Longer words are unknown, as in transformers' WordpieceTokenizer.
constexpr size_t kMaxWordCharacters = 100;
constexpr UChar32 kReplacement = 0xfffd;

using CodePoints = std::u32string;

// Damaged bytes become U+FFFD.
CodePoints Decode(const std::string& text) {
  CodePoints characters;
  const auto size = static_cast<int32_t>(text.size());
  for (int32_t at = 0; at < size;) {
    UChar32 c = 0;
    U8_NEXT_OR_FFFD(text.data(), at, size, c);
    characters.push_back(static_cast<char32_t>(c));
  }
  return characters;
}

CodePoints Decode(const icu::UnicodeString& text) {
  std::string utf8;
  return Decode(text.toUTF8String(utf8));
}

icu::UnicodeString ToIcu(const CodePoints& characters) {
  icu::UnicodeString text;
  for (const char32_t c : characters) text.append(static_cast<UChar32>(c));
  return text;
}

std::string Encode(const CodePoints& characters) {
  std::string utf8;
  return ToIcu(characters).toUTF8String(utf8);
}

bool IsControl(UChar32 c) {
  return c != '\t' && c != '\n' && c != '\r' && (U_GET_GC_MASK(c) & U_GC_C_MASK) != 0;
}

bool IsPunctuation(UChar32 c) {
  const bool ascii = (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
                     (c >= 123 && c <= 126);
  return ascii || (U_GET_GC_MASK(c) & U_GC_P_MASK) != 0;
}

bool IsIdeograph(UChar32 c) {
  return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
         (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2ceaf) ||
         (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

struct WordPieceOptions {
  bool lower_case = true;
  bool strip_accents = true;
  bool split_ideographs = true;
};

class WordPiece : public SubwordModel {
 public:
  static absl::StatusOr<std::unique_ptr<SubwordModel>> Load(const std::string& dir,
                                                            const std::string& unknown,
                                                            std::set<std::string> special_tokens) {
    auto model = std::make_unique<WordPiece>();
    model->special_tokens_ = std::move(special_tokens);
    DDPO_RETURN_IF_ERROR(model->ReadOptions(dir));
    const std::string path = JoinPath(dir, "vocab.txt");
    DDPO_RETURN_IF_ERROR(model->ReadVocabulary(path));
    const auto id = model->TokenId(unknown);
    if (!id.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": unk_token `", unknown, "` is not in the vocabulary"));
    }
    model->unknown_ = *id;
    UErrorCode error = U_ZERO_ERROR;
    model->composed_ = icu::Normalizer2::getNFCInstance(error);
    model->decomposed_ = icu::Normalizer2::getNFDInstance(error);
    if (U_FAILURE(error)) return absl::InternalError(absl::StrCat("ICU: ", u_errorName(error)));
    return model;
  }

  // Character by character, as transformers does it, so that no sigma is at a word's end.
  std::string Fold(const std::string& text) const override {
    if (!options_.lower_case) return text;
    std::string folded;
    for (const char32_t c : Decode(text)) {
      if (c < 0x80) {
        folded.push_back(absl::ascii_tolower(static_cast<unsigned char>(c)));
      } else {
        icu::UnicodeString(static_cast<UChar32>(c))
            .toLower(icu::Locale::getRoot())
            .toUTF8String(folded);
      }
    }
    return folded;
  }

  void Append(const std::string& text, std::vector<int64_t>* ids) const override {
    UErrorCode error = U_ZERO_ERROR;
    const CodePoints clean = Decode(composed_->normalize(ToIcu(Clean(text)), error));
    CodePoints word;
    for (const char32_t c : clean) {
      if (!u_isUWhiteSpace(static_cast<UChar32>(c))) {
        word.push_back(c);
      } else {
        AppendWord(std::exchange(word, {}), ids);
      }
    }
    AppendWord(word, ids);
  }

  std::optional<int64_t> TokenId(const std::string& token) const override {
    const auto found = ids_.find(token);
    if (found == ids_.end()) return std::nullopt;
    return found->second;
  }
  int64_t vocabulary() const override { return size_; }

 private:
  absl::Status ReadOptions(const std::string& dir) {
    DDPO_ASSIGN_OR_RETURN(const JsonConfig config,
                          JsonConfig::ReadIfThere(JoinPath(dir, "tokenizer_config.json")));
    DDPO_ASSIGN_OR_RETURN(options_.lower_case, config.Bool("do_lower_case", true));
    DDPO_ASSIGN_OR_RETURN(options_.strip_accents,
                          config.Bool("strip_accents", options_.lower_case));
    DDPO_ASSIGN_OR_RETURN(options_.split_ideographs, config.Bool("tokenize_chinese_chars", true));
    DDPO_RETURN_IF_ERROR(config.Require("do_basic_tokenize", {"true"}));
    return config.Require("never_split", {"[]"});
  }

  absl::Status ReadVocabulary(const std::string& path) {
    DDPO_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
    for (absl::string_view line : absl::StrSplit(absl::StripSuffix(text, "\n"), '\n')) {
      absl::ConsumeSuffix(&line, "\r");
      ids_[std::string(line)] = size_++;
    }
    return absl::OkStatus();
  }

  // Without control characters and damaged bytes, all white space a space, ideographs between two.
  CodePoints Clean(const std::string& text) const {
    CodePoints clean;
    for (const char32_t character : Decode(text)) {
      const auto c = static_cast<UChar32>(character);
      if (c == 0 || c == kReplacement || IsControl(c)) continue;
      const bool space = c == '\t' || c == '\n' || c == '\r' || u_charType(c) == U_SPACE_SEPARATOR;
      const bool apart = options_.split_ideographs && IsIdeograph(c);
      if (apart) clean.push_back(' ');
      clean.push_back(space ? ' ' : character);
      if (apart) clean.push_back(' ');
    }
    return clean;
  }

  CodePoints WithoutAccents(const CodePoints& word) const {
    UErrorCode error = U_ZERO_ERROR;
    CodePoints bare = Decode(decomposed_->normalize(ToIcu(word), error));
    std::erase_if(
        bare, [](char32_t c) { return u_charType(static_cast<UChar32>(c)) == U_NON_SPACING_MARK; });
    return bare;
  }

  // A word that spaces enclose; cut at punctuation, each mark a word of its own.
  void AppendWord(CodePoints word, std::vector<int64_t>* ids) const {
    if (special_tokens_.contains(Encode(word))) return AppendPieces(word, ids);
    if (options_.strip_accents) word = WithoutAccents(word);
    size_t begin = 0;
    for (size_t at = 0; at < word.size(); ++at) {
      if (!IsPunctuation(static_cast<UChar32>(word[at]))) continue;
      AppendPieces(word.substr(begin, at - begin), ids);
      AppendPieces(word.substr(at, 1), ids);
      begin = at + 1;
    }
    AppendPieces(word.substr(begin), ids);
  }

  // Greedily the longest piece first; all but the first begin with ##.
  void AppendPieces(const CodePoints& word, std::vector<int64_t>* ids) const {
    if (word.empty()) return;
    if (word.size() > kMaxWordCharacters) {
      ids->push_back(unknown_);
      return;
    }
    const size_t before = ids->size();
    for (size_t begin = 0, end = 0; begin < word.size(); begin = end) {
      std::optional<int64_t> piece;
      for (end = word.size(); end > begin; --end) {
        piece =
            TokenId(absl::StrCat(begin > 0 ? "##" : "", Encode(word.substr(begin, end - begin))));
        if (piece.has_value()) break;
      }
      if (!piece.has_value()) {
        ids->resize(before);
        ids->push_back(unknown_);
        return;
      }
      ids->push_back(*piece);
    }
  }

  WordPieceOptions options_;
  std::set<std::string> special_tokens_;
  std::unordered_map<std::string, int64_t> ids_;
  int64_t size_ = 0;
  int64_t unknown_ = 0;
  const icu::Normalizer2* composed_ = nullptr;
  const icu::Normalizer2* decomposed_ = nullptr;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SubwordModel>> LoadWordPiece(const std::string& dir,
                                                            const std::string& unknown,
                                                            std::set<std::string> special_tokens) {
  return WordPiece::Load(dir, unknown, std::move(special_tokens));
}

}  // namespace ddpo
