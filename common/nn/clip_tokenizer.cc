#include "common/nn/clip_tokenizer.h"

#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/nn/json_config.h"

namespace ddpo {
namespace {

constexpr char kEndOfWord[] = "</w>";
constexpr char kStartToken[] = "<|startoftext|>";
constexpr char kEndToken[] = "<|endoftext|>";
// A pretokenized word longer than this would take quadratic time to merge.
constexpr size_t kMaxWordPieces = 4096;

void AppendUtf8(UChar32 c, std::string* out) { icu::UnicodeString(c).toUTF8String(*out); }

// GPT-2's map from bytes to printable characters, in which the vocabulary is written: printable
// Latin-1 stands for itself, the rest comes from U+0100 on.
std::array<std::string, 256> ByteCharacters() {
  std::array<std::string, 256> characters;
  UChar32 next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) ||
                           (byte >= 0xae && byte <= 0xff);
    AppendUtf8(printable ? byte : next++, &characters[static_cast<size_t>(byte)]);
  }
  return characters;
}

// The ideographs that BERT's and so CLIP's basic tokenizer makes words of their own.
bool IsIdeograph(UChar32 c) {
  return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
         (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2ceaf) ||
         (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

// What transformers' tokenizer does where ftfy is not installed: control characters, format
// characters (the joiners in emoji) and damaged bytes are dropped, ideographs get spaces around
// them, and the text is put into its composed form and lower-cased.
icu::UnicodeString CleanText(const std::string& utf8) {
  const icu::UnicodeString text = icu::UnicodeString::fromUTF8(utf8);
  icu::UnicodeString clean;
  for (int32_t at = 0; at < text.length(); at = text.moveIndex32(at, 1)) {
    const UChar32 c = text.char32At(at);
    if (c == '\t' || c == '\n' || c == '\r') {
      clean.append(UChar32{' '});
    } else if (c == 0xfffd || (U_GET_GC_MASK(c) & U_GC_C_MASK)) {
      continue;
    } else if (IsIdeograph(c)) {
      clean.append(UChar32{' '}).append(c).append(UChar32{' '});
    } else {
      clean.append(c);
    }
  }
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* nfc = icu::Normalizer2::getNFCInstance(error);
  if (U_SUCCESS(error)) clean = nfc->normalize(clean, error);
  return clean.toLower(icu::Locale::getRoot());
}

enum class Kind { kSpace, kLetter, kNumber, kOther };

Kind KindOf(UChar32 c) {
  const int32_t mask = U_GET_GC_MASK(c);
  if (u_isUWhiteSpace(c)) return Kind::kSpace;
  if (mask & U_GC_L_MASK) return Kind::kLetter;
  if (mask & U_GC_N_MASK) return Kind::kNumber;
  return Kind::kOther;
}

// The pieces of CLIP's pattern, which ignores case,
//   <\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+
// in cleaned text.
std::vector<std::string> SplitWords(const icu::UnicodeString& text) {
  static const auto& fixed = *new std::array<icu::UnicodeString, 9>{
      kStartToken, kEndToken, "'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
  std::vector<std::string> words;
  int32_t at = 0;
  while (at < text.length()) {
    const Kind kind = KindOf(text.char32At(at));
    if (kind == Kind::kSpace) {
      at = text.moveIndex32(at, 1);
      continue;
    }
    const auto match = std::find_if(fixed.begin(), fixed.end(), [&](const auto& candidate) {
      return text.caseCompare(at, candidate.length(), candidate, U_FOLD_CASE_DEFAULT) == 0;
    });
    int32_t end = text.moveIndex32(at, 1);
    if (match != fixed.end()) {
      end = at + match->length();
    } else if (kind != Kind::kNumber) {
      while (end < text.length() && KindOf(text.char32At(end)) == kind) {
        end = text.moveIndex32(end, 1);
      }
    }
    words.emplace_back();
    text.tempSubStringBetween(at, end).toUTF8String(words.back());
    at = end;
  }
  return words;
}

struct PairHash {
  size_t operator()(const std::pair<std::string, std::string>& pair) const {
    return std::hash<std::string>()(pair.first) * 31 + std::hash<std::string>()(pair.second);
  }
};

// A token's text, which the files write as text or as an object with `content`.
std::string TokenText(const nlohmann::json& json) {
  if (json.is_string()) return json;
  if (json.is_object() && json.contains("content") && json["content"].is_string()) {
    return json["content"];
  }
  return "";
}

}  // namespace

struct ClipTokenizer::Impl {
  std::unordered_map<std::string, int64_t> vocabulary;
  std::unordered_map<std::pair<std::string, std::string>, int, PairHash> merge_ranks;
  std::array<std::string, 256> byte_characters = ByteCharacters();
  int64_t start_id = 0, end_id = 0, pad_id = 0, unknown_id = 0;
  int64_t model_max_length = 77;
  // Tokens that are found in the text before anything else is done with it.
  std::map<std::string, int64_t> added_tokens;

  absl::Status ReadVocabulary(const std::string& dir);
  absl::Status ReadMerges(const std::string& path);
  absl::Status ReadSpecialTokens(const std::string& dir);
  absl::Status ReadAddedTokens(const JsonConfig& config);
  absl::StatusOr<int64_t> SpecialToken(const std::string& dir, const JsonConfig& map,
                                       const JsonConfig& config, const std::string& key,
                                       const std::string& fallback);
  std::vector<std::string> Merge(std::vector<std::string> pieces) const;
  void AppendWord(const std::string& word, std::vector<int64_t>* ids) const;
  void AppendText(const std::string& text, std::vector<int64_t>* ids) const;
};

absl::Status ClipTokenizer::Impl::ReadVocabulary(const std::string& dir) {
  DDPO_ASSIGN_OR_RETURN(const JsonConfig vocab, JsonConfig::Read(dir + "/vocab.json"));
  for (const auto& [token, id] : vocab.json().items()) {
    if (!id.is_number_unsigned()) return vocab.Error(token, "a token's number");
    vocabulary[token] = id;
  }
  return ReadMerges(dir + "/merges.txt");
}

absl::Status ClipTokenizer::Impl::ReadMerges(const std::string& path) {
  DDPO_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  int line_number = 0;
  for (const absl::string_view ended : absl::StrSplit(text, '\n')) {
    const absl::string_view line = absl::StripSuffix(ended, "\r");
    if (++line_number == 1) {
      // transformers drops this line whatever it says, which would lose the first merge.
      if (!absl::StartsWith(line, "#version")) {
        return absl::InvalidArgumentError(absl::StrCat(path, ":1: expected a line `#version: …`"));
      }
      continue;
    }
    if (line.empty()) continue;
    const std::vector<std::string> parts = absl::StrSplit(line, ' ');
    if (parts.size() != 2 || parts[0].empty() || parts[1].empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", line_number, ": expected two pieces with a space between"));
    }
    merge_ranks.emplace(std::pair(parts[0], parts[1]), static_cast<int>(merge_ranks.size()));
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> ClipTokenizer::Impl::SpecialToken(const std::string& dir,
                                                          const JsonConfig& map,
                                                          const JsonConfig& config,
                                                          const std::string& key,
                                                          const std::string& fallback) {
  std::string token = fallback;
  for (const JsonConfig* source : {&config, &map}) {
    if (source->Has(key)) token = TokenText(source->json()[key]);
  }
  const auto found = vocabulary.find(token);
  if (found == vocabulary.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(dir, "/vocab.json: ", key, " `", token, "` is not in the vocabulary"));
  }
  added_tokens[token] = found->second;
  return found->second;
}

absl::Status ClipTokenizer::Impl::ReadAddedTokens(const JsonConfig& config) {
  DDPO_ASSIGN_OR_RETURN(const JsonConfig added, config.Object("added_tokens_decoder"));
  for (const auto& [key, token] : added.json().items()) {
    int64_t id = 0;
    const std::string text = TokenText(token);
    const bool single_word =
        token.is_object() && token.contains("single_word") && token["single_word"] != false;
    if (!absl::SimpleAtoi(key, &id) || id < 0 || text.empty() || single_word) {
      return added.Error(key, "a token of that number with a content, and single_word false");
    }
    added_tokens[text] = id;
  }
  return absl::OkStatus();
}

absl::Status ClipTokenizer::Impl::ReadSpecialTokens(const std::string& dir) {
  DDPO_ASSIGN_OR_RETURN(const JsonConfig config, JsonConfig::Read(dir + "/tokenizer_config.json"));
  DDPO_RETURN_IF_ERROR(
      config.Require("tokenizer_class", {R"("CLIPTokenizer")", R"("CLIPTokenizerFast")"}));
  DDPO_ASSIGN_OR_RETURN(const JsonConfig map, JsonConfig::Read(dir + "/special_tokens_map.json"));
  DDPO_ASSIGN_OR_RETURN(model_max_length, config.Int("model_max_length", 77, 2, 1 << 20));
  DDPO_ASSIGN_OR_RETURN(start_id, SpecialToken(dir, map, config, "bos_token", "<|startoftext|>"));
  DDPO_ASSIGN_OR_RETURN(end_id, SpecialToken(dir, map, config, "eos_token", "<|endoftext|>"));
  DDPO_ASSIGN_OR_RETURN(pad_id, SpecialToken(dir, map, config, "pad_token", "<|endoftext|>"));
  DDPO_ASSIGN_OR_RETURN(unknown_id, SpecialToken(dir, map, config, "unk_token", "<|endoftext|>"));
  return ReadAddedTokens(config);
}

// Merges the pair of lowest rank again and again, all its places at once, as in BPE training.
std::vector<std::string> ClipTokenizer::Impl::Merge(std::vector<std::string> pieces) const {
  while (pieces.size() > 1) {
    int best = std::numeric_limits<int>::max();
    std::pair<std::string, std::string> best_pair;
    for (size_t i = 0; i + 1 < pieces.size(); ++i) {
      const auto rank = merge_ranks.find(std::pair(pieces[i], pieces[i + 1]));
      if (rank != merge_ranks.end() && rank->second < best) {
        best = rank->second;
        best_pair = rank->first;
      }
    }
    if (best == std::numeric_limits<int>::max()) break;
    std::vector<std::string> merged;
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (i + 1 < pieces.size() && pieces[i] == best_pair.first &&
          pieces[i + 1] == best_pair.second) {
        merged.push_back(pieces[i] + pieces[i + 1]);
        ++i;
      } else {
        merged.push_back(std::move(pieces[i]));
      }
    }
    pieces = std::move(merged);
  }
  return pieces;
}

void ClipTokenizer::Impl::AppendWord(const std::string& word, std::vector<int64_t>* ids) const {
  std::vector<std::string> pieces;
  if (word == kStartToken || word == kEndToken) {
    pieces.push_back(word);
  } else {
    for (const char byte : word.substr(0, kMaxWordPieces)) {
      pieces.push_back(byte_characters[static_cast<unsigned char>(byte)]);
    }
    pieces.back() += kEndOfWord;
    pieces = Merge(std::move(pieces));
  }
  for (const std::string& piece : pieces) {
    const auto found = vocabulary.find(piece);
    ids->push_back(found == vocabulary.end() ? unknown_id : found->second);
  }
}

void ClipTokenizer::Impl::AppendText(const std::string& text, std::vector<int64_t>* ids) const {
  size_t at = 0;
  while (at < text.size()) {
    // The first added token, and of those that begin there the longest.
    size_t begin = std::string::npos;
    const std::pair<const std::string, int64_t>* added = nullptr;
    for (const auto& token : added_tokens) {
      const size_t found = text.find(token.first, at);
      if (found == std::string::npos || found > begin) continue;
      if (found == begin && token.first.size() < added->first.size()) continue;
      begin = found;
      added = &token;
    }
    const std::string plain = text.substr(at, added == nullptr ? begin : begin - at);
    for (const std::string& word : SplitWords(CleanText(plain))) AppendWord(word, ids);
    if (added == nullptr) return;
    ids->push_back(added->second);
    at = begin + added->first.size();
  }
}

ClipTokenizer::ClipTokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ClipTokenizer::~ClipTokenizer() = default;

absl::StatusOr<std::unique_ptr<ClipTokenizer>> ClipTokenizer::Load(const std::string& dir) {
  auto impl = std::make_unique<Impl>();
  DDPO_RETURN_IF_ERROR(impl->ReadVocabulary(dir));
  DDPO_RETURN_IF_ERROR(impl->ReadSpecialTokens(dir));
  return std::unique_ptr<ClipTokenizer>(new ClipTokenizer(std::move(impl)));
}

std::vector<int64_t> ClipTokenizer::Encode(const std::string& text) const {
  const auto max_length = static_cast<size_t>(impl_->model_max_length);
  std::vector<int64_t> ids = {impl_->start_id};
  impl_->AppendText(text, &ids);
  if (ids.size() > max_length - 1) ids.resize(max_length - 1);
  ids.push_back(impl_->end_id);
  ids.resize(max_length, impl_->pad_id);
  return ids;
}

int64_t ClipTokenizer::model_max_length() const { return impl_->model_max_length; }

int64_t ClipTokenizer::max_token_id() const {
  int64_t max = 0;
  for (const auto& [token, id] : impl_->vocabulary) max = std::max(max, id);
  for (const auto& [token, id] : impl_->added_tokens) max = std::max(max, id);
  return max;
}

}  // namespace ddpo
