#include "common/nn/sentencepiece_model.h"

#include <unicode/utf8.h>

#include <algorithm>
#include <optional>
#include <queue>
#include <unordered_map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "ddpo/models/v1/sentencepiece.pb.h"

namespace ddpo {
namespace {

using File = models::v1::SentencePieceFile;

constexpr absl::string_view kSpace = "▁";
constexpr absl::string_view kReplacement = "\uFFFD";

// Bytes of the character at the start of `text`; `valid` says whether it is well-formed UTF-8, of
// which otherwise one byte is looked at.
size_t CharacterLength(absl::string_view text, bool* valid) {
  int32_t length = 0;
  UChar32 c = 0;
  U8_NEXT(text.data(), length, static_cast<int32_t>(text.size()), c);
  *valid = c >= 0;
  return *valid ? static_cast<size_t>(length) : 1;
}

// Well-formed UTF-8; each byte of what is not becomes U+FFFD.
std::string Repair(absl::string_view text) {
  std::string repaired;
  while (!text.empty()) {
    bool valid = false;
    const size_t length = CharacterLength(text, &valid);
    absl::StrAppend(&repaired, valid ? text.substr(0, length) : kReplacement);
    text.remove_prefix(length);
  }
  return repaired;
}

std::string ByteName(char byte) {
  return absl::StrFormat("<0x%02X>", static_cast<unsigned char>(byte));
}

// The byte of which this is the name.
std::optional<char> NamedByte(const std::string& name) {
  uint32_t value = 0;
  if (name.size() != 6 || !absl::SimpleHexAtoi(name.substr(3, 2), &value)) return std::nullopt;
  const char byte = static_cast<char>(value);
  if (ByteName(byte) != name) return std::nullopt;
  return byte;
}

// A stretch of the text that may be joined with its neighbours.
struct Symbol {
  absl::string_view text;  // empty once it is joined to the one before
  size_t previous, next;   // past the end where there is none
  bool whole = false;      // user-defined: joined with nothing
};

// Two symbols side by side whose union is a piece.
struct Candidate {
  float score;
  size_t left, right;
  size_t size;  // of the union, by which a stale candidate is known

  // The best score first, and of those the leftmost.
  bool operator<(const Candidate& other) const {
    return score != other.score ? score < other.score : left > other.left;
  }
};

}  // namespace

struct SentencePieceModel::Impl {
  File file;
  // Pieces that are found in texts; the others.
  std::unordered_map<std::string, int> pieces, reserved;
  std::vector<std::string> user_defined;  // the longest first
  int unknown = -1;

  absl::Status ReadPieces();
  absl::Status CheckSupported() const;

  std::string Normalize(const std::string& text) const;
  std::vector<Symbol> Cut(absl::string_view text) const;
  std::vector<absl::string_view> Merge(std::vector<Symbol> symbols) const;

  int Id(const std::string& piece) const {
    if (const auto found = reserved.find(piece); found != reserved.end()) return found->second;
    const auto found = pieces.find(piece);
    return found == pieces.end() ? unknown : found->second;
  }
  File::Piece::Type TypeOf(int id) const { return file.pieces(id).type(); }
};

absl::Status SentencePieceModel::Impl::ReadPieces() {
  for (int id = 0; id < file.pieces_size(); ++id) {
    const File::Piece& piece = file.pieces(id);
    if (piece.piece().empty()) {
      return absl::InvalidArgumentError(absl::StrCat("piece ", id, " is empty"));
    }
    const bool in_texts =
        piece.type() == File::Piece::NORMAL || piece.type() == File::Piece::USER_DEFINED;
    if (piece.type() == File::Piece::UNUSED) {
      return absl::InvalidArgumentError(
          absl::StrCat("piece ", id, " `", piece.piece(), "` is marked unused, expected none"));
    }
    if (piece.type() == File::Piece::BYTE && !NamedByte(piece.piece()).has_value()) {
      return absl::InvalidArgumentError(absl::StrCat("piece ", id, " `", piece.piece(),
                                                     "` stands for a byte, expected one of "
                                                     "<0x00> … <0xFF>"));
    }
    if (pieces.contains(piece.piece()) || reserved.contains(piece.piece())) {
      return absl::InvalidArgumentError(absl::StrCat("piece `", piece.piece(), "` occurs twice"));
    }
    (in_texts ? pieces : reserved)[piece.piece()] = id;
    if (piece.type() == File::Piece::USER_DEFINED) user_defined.push_back(piece.piece());
    if (piece.type() != File::Piece::UNKNOWN) continue;
    if (unknown >= 0) return absl::InvalidArgumentError("two pieces are unknown ones");
    unknown = id;
  }
  if (unknown < 0) return absl::InvalidArgumentError("no piece is the unknown one");
  std::stable_sort(user_defined.begin(), user_defined.end(),
                   [](const auto& a, const auto& b) { return a.size() > b.size(); });
  return absl::OkStatus();
}

absl::Status SentencePieceModel::Impl::CheckSupported() const {
  if (file.trainer_spec().model_type() != File::TrainerSpec::BPE) {
    return absl::InvalidArgumentError(
        absl::StrCat("a ", File::TrainerSpec::ModelType_Name(file.trainer_spec().model_type()),
                     " model, expected BPE"));
  }
  if (!file.normalizer_spec().precompiled_charsmap().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the normalization `", file.normalizer_spec().name(), "`, expected `identity`"));
  }
  if (file.trainer_spec().treat_whitespace_as_suffix()) {
    return absl::InvalidArgumentError("spaces stand after words, expected them before");
  }
  if (!file.trainer_spec().byte_fallback()) return absl::OkStatus();
  for (int byte = 0; byte < 256; ++byte) {
    const std::string name = ByteName(static_cast<char>(byte));
    const auto found = reserved.find(name);
    if (found == reserved.end() || TypeOf(found->second) != File::Piece::BYTE) {
      return absl::InvalidArgumentError(absl::StrCat("no piece for the byte ", name));
    }
  }
  return absl::OkStatus();
}

// Normalizer::Normalize of SentencePiece for a model whose characters stay as they are.
std::string SentencePieceModel::Impl::Normalize(const std::string& text) const {
  const File::NormalizerSpec& spec = file.normalizer_spec();
  std::string plain = Repair(text);
  if (spec.remove_extra_whitespaces()) {
    std::string single;
    for (const char c : plain) {
      if (c != ' ' || (!single.empty() && single.back() != ' ')) single.push_back(c);
    }
    plain = std::string(absl::StripSuffix(single, " "));
  }
  if (plain.empty()) return "";
  if (spec.add_dummy_prefix()) plain.insert(0, " ");
  return spec.escape_whitespaces() ? absl::StrReplaceAll(plain, {{" ", kSpace}}) : plain;
}

// Characters and user-defined pieces.
std::vector<Symbol> SentencePieceModel::Impl::Cut(absl::string_view text) const {
  std::vector<Symbol> symbols;
  while (!text.empty()) {
    bool valid = false;
    size_t length = CharacterLength(text, &valid);
    const auto found =
        std::find_if(user_defined.begin(), user_defined.end(),
                     [&](const std::string& piece) { return absl::StartsWith(text, piece); });
    if (found != user_defined.end()) length = found->size();
    symbols.push_back({.text = text.substr(0, length),
                       .previous = symbols.size() - 1,
                       .next = symbols.size() + 1,
                       .whole = found != user_defined.end()});
    text.remove_prefix(length);
  }
  return symbols;
}

std::vector<absl::string_view> SentencePieceModel::Impl::Merge(std::vector<Symbol> symbols) const {
  std::priority_queue<Candidate> candidates;
  const auto offer = [&](size_t left, size_t right) {
    if (left >= symbols.size() || right >= symbols.size()) return;
    const Symbol &first = symbols[left], &second = symbols[right];
    if (first.whole || second.whole) return;
    // They lie side by side in the text.
    const absl::string_view both(first.text.data(), first.text.size() + second.text.size());
    const auto piece = pieces.find(std::string(both));
    if (piece == pieces.end()) return;
    candidates.push({file.pieces(piece->second).score(), left, right, both.size()});
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i) offer(i, i + 1);
  while (!candidates.empty()) {
    const Candidate best = candidates.top();
    candidates.pop();
    Symbol &left = symbols[best.left], &right = symbols[best.right];
    if (left.text.empty() || right.text.empty() ||
        left.text.size() + right.text.size() != best.size) {
      continue;
    }
    left.text = absl::string_view(left.text.data(), best.size);
    left.next = right.next;
    if (right.next < symbols.size()) symbols[right.next].previous = best.left;
    right.text = "";
    offer(left.previous, best.left);
    offer(best.left, left.next);
  }
  std::vector<absl::string_view> merged;
  for (const Symbol& symbol : symbols) {
    if (!symbol.text.empty()) merged.push_back(symbol.text);
  }
  return merged;
}

SentencePieceModel::SentencePieceModel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SentencePieceModel::~SentencePieceModel() = default;

absl::StatusOr<std::unique_ptr<SentencePieceModel>> SentencePieceModel::Parse(
    const std::string& bytes, bool add_dummy_prefix) {
  auto impl = std::make_unique<Impl>();
  if (!impl->file.ParseFromString(bytes) || impl->file.pieces().empty()) {
    return absl::InvalidArgumentError("not a SentencePiece model");
  }
  DDPO_RETURN_IF_ERROR(impl->ReadPieces());
  DDPO_RETURN_IF_ERROR(impl->CheckSupported());
  if (!add_dummy_prefix) impl->file.mutable_normalizer_spec()->set_add_dummy_prefix(false);
  return std::unique_ptr<SentencePieceModel>(new SentencePieceModel(std::move(impl)));
}

std::vector<std::string> SentencePieceModel::Encode(const std::string& text) const {
  const std::string normalized = impl_->Normalize(text);
  std::vector<std::string> result;
  bool after_unknown = false;
  for (const absl::string_view piece : impl_->Merge(impl_->Cut(normalized))) {
    const bool unknown = impl_->Id(std::string(piece)) == impl_->unknown;
    if (unknown && impl_->file.trainer_spec().byte_fallback()) {
      for (const char byte : piece) result.push_back(ByteName(byte));
      continue;
    }
    // What is unknown in a row is one piece.
    if (unknown && after_unknown) {
      absl::StrAppend(&result.back(), piece);
    } else {
      result.emplace_back(piece);
    }
    after_unknown = unknown;
  }
  return result;
}

std::string SentencePieceModel::Decode(const std::vector<std::string>& pieces) const {
  const File::NormalizerSpec& spec = impl_->file.normalizer_spec();
  std::string text, bytes;
  // Whether a space that a piece begins with is the one that Encode set before the first word.
  bool at_start = spec.add_dummy_prefix() || spec.remove_extra_whitespaces();
  bool took_space = false;
  for (const std::string& piece : pieces) {
    const int id = impl_->Id(piece);
    const File::Piece::Type type = impl_->TypeOf(id);
    if (type == File::Piece::BYTE) {
      bytes.push_back(*NamedByte(piece));
      continue;
    }
    text += Repair(std::exchange(bytes, ""));
    if (took_space || !text.empty()) at_start = false;
    took_space = false;
    if (type == File::Piece::CONTROL) continue;
    if (type == File::Piece::UNKNOWN) {
      const bool is_name = piece == impl_->file.pieces(id).piece();
      text += is_name ? impl_->file.trainer_spec().unk_surface() : piece;
      continue;
    }
    absl::string_view word = piece;
    if (at_start) took_space = absl::ConsumePrefix(&word, kSpace);
    if (spec.remove_extra_whitespaces()) took_space = false;
    text += absl::StrReplaceAll(word, {{kSpace, " "}});
  }
  return text + Repair(bytes);
}

int SentencePieceModel::size() const { return impl_->file.pieces_size(); }
int SentencePieceModel::Id(const std::string& piece) const { return impl_->Id(piece); }
int SentencePieceModel::unknown_id() const { return impl_->unknown; }
std::string SentencePieceModel::Piece(int id) const { return impl_->file.pieces(id).piece(); }

}  // namespace ddpo
