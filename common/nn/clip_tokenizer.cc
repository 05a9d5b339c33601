#include "common/nn/clip_tokenizer.h"

#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/nn/json_config.h"

namespace ddpo {
namespace {

constexpr char kEndOfWord[] = "</w>";
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

enum class Kind { kSpace, kLetter, kNumber, kOther };

Kind KindOf(UChar32 c) {
  const int32_t mask = U_GET_GC_MASK(c);
  if (u_isUWhiteSpace(c)) return Kind::kSpace;
  if (mask & U_GC_L_MASK) return Kind::kLetter;
  if (mask & U_GC_N_MASK) return Kind::kNumber;
  return Kind::kOther;
}

// The pieces of CLIP's pattern
//   's|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+
// in text that is normalised and lower-cased already.
std::vector<std::string> SplitWords(const icu::UnicodeString& text) {
  static const std::array<icu::UnicodeString, 7> contractions = {"'s", "'t",  "'re", "'ve",
                                                                 "'m", "'ll", "'d"};
  std::vector<std::string> words;
  int32_t at = 0;
  while (at < text.length()) {
    const Kind kind = KindOf(text.char32At(at));
    if (kind == Kind::kSpace) {
      at = text.moveIndex32(at, 1);
      continue;
    }
    int32_t end = text.moveIndex32(at, 1);
    bool contraction = false;
    for (const icu::UnicodeString& candidate : contractions) {
      if (text.compare(at, candidate.length(), candidate) != 0) continue;
      end = at + candidate.length();
      contraction = true;
      break;
    }
    while (!contraction && kind != Kind::kNumber && end < text.length() &&
           KindOf(text.char32At(end)) == kind) {
      end = text.moveIndex32(end, 1);
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

  absl::Status ReadVocabulary(const std::string& dir);
  absl::Status ReadMerges(const std::string& path);
  absl::Status ReadSpecialTokens(const std::string& dir);
  absl::StatusOr<int64_t> SpecialToken(const std::string& dir, const JsonConfig& map,
                                       const JsonConfig& config, const std::string& key,
                                       const std::string& fallback) const;
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
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++line_number;
    if (line.empty() || (line_number == 1 && line[0] == '#')) continue;
    const std::vector<std::string> parts = absl::StrSplit(line, ' ');
    if (parts.size() != 2) {
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
                                                          const std::string& fallback) const {
  std::string token = fallback;
  for (const JsonConfig* source : {&config, &map}) {
    if (source->Has(key)) token = TokenText(source->json()[key]);
  }
  const auto found = vocabulary.find(token);
  if (found == vocabulary.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(dir, "/vocab.json: ", key, " `", token, "` is not in the vocabulary"));
  }
  return found->second;
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
  return absl::OkStatus();
}

// Merges the pair of lowest rank again and again, all its places at once, as in BPE training.
void ClipTokenizer::Impl::AppendWord(const std::string& word, std::vector<int64_t>* ids) const {
  std::vector<std::string> pieces;
  for (const char byte : word.substr(0, kMaxWordPieces)) {
    pieces.push_back(byte_characters[static_cast<unsigned char>(byte)]);
  }
  pieces.back() += kEndOfWord;
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
  for (const std::string& piece : pieces) {
    const auto found = vocabulary.find(piece);
    ids->push_back(found == vocabulary.end() ? unknown_id : found->second);
  }
}

// Text without special tokens in it.
void ClipTokenizer::Impl::AppendText(const std::string& text, std::vector<int64_t>* ids) const {
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* nfc = icu::Normalizer2::getNFCInstance(error);
  icu::UnicodeString normalised = icu::UnicodeString::fromUTF8(text);
  if (U_SUCCESS(error)) normalised = nfc->normalize(normalised, error);
  for (const std::string& word : SplitWords(normalised.toLower(icu::Locale::getRoot()))) {
    AppendWord(word, ids);
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
  // The special tokens may stand in the text itself.
  size_t at = 0;
  while (at < text.size()) {
    static const std::string start = "<|startoftext|>", end = "<|endoftext|>";
    const size_t special = std::min(text.find(start, at), text.find(end, at));
    impl_->AppendText(text.substr(at, special == std::string::npos ? special : special - at), &ids);
    if (special == std::string::npos) break;
    const bool is_start = text.compare(special, start.size(), start) == 0;
    ids.push_back(is_start ? impl_->start_id : impl_->end_id);
    at = special + (is_start ? start : end).size();
  }
  if (ids.size() > max_length - 1) ids.resize(max_length - 1);
  ids.push_back(impl_->end_id);
  ids.resize(max_length, impl_->pad_id);
  return ids;
}

int64_t ClipTokenizer::model_max_length() const { return impl_->model_max_length; }

}  // namespace ddpo
