#include "common/nn/bpe.h"

#include <unicode/utf8.h>

#include <nlohmann/json.hpp>
#include <queue>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

using Json = nlohmann::json;

// Numbers of tokens fit 32 bits, so that two make a key.
constexpr int64_t kMaxTokenId = (int64_t{1} << 31) - 1;

uint64_t PairKey(int64_t left, int64_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint64_t>(right);
}

}  // namespace

absl::StatusOr<BytePairEncoder> BytePairEncoder::Load(const JsonConfig& model) {
  BytePairEncoder encoder;
  DDPO_RETURN_IF_ERROR(model.Require("type", {R"("BPE")"}));
  DDPO_RETURN_IF_ERROR(model.Require("dropout", {"0.0"}));
  DDPO_RETURN_IF_ERROR(model.Require("continuing_subword_prefix", {R"("")"}));
  DDPO_RETURN_IF_ERROR(model.Require("end_of_word_suffix", {R"("")"}));
  DDPO_ASSIGN_OR_RETURN(encoder.byte_fallback_, model.Bool("byte_fallback", false));
  DDPO_ASSIGN_OR_RETURN(encoder.fuse_unknown_, model.Bool("fuse_unk", false));
  DDPO_ASSIGN_OR_RETURN(encoder.ignore_merges_, model.Bool("ignore_merges", false));
  DDPO_RETURN_IF_ERROR(encoder.ReadVocabulary(model));
  DDPO_RETURN_IF_ERROR(encoder.ReadMerges(model));
  DDPO_ASSIGN_OR_RETURN(const std::string unknown, model.String("unk_token", ""));
  if (!unknown.empty()) {
    encoder.unknown_ = encoder.TokenId(unknown);
    if (!encoder.unknown_.has_value()) return model.Error("unk_token", "a token of the vocabulary");
  }
  return encoder;
}

absl::Status BytePairEncoder::ReadVocabulary(const JsonConfig& model) {
  DDPO_ASSIGN_OR_RETURN(const JsonConfig vocab, model.Object("vocab"));
  for (const auto& [token, id] : vocab.json().items()) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > kMaxTokenId) {
      return vocab.Error(token, "a token's number");
    }
    ids_[token] = id.get<int64_t>();
    tokens_[id.get<int64_t>()] = token;
  }
  return absl::OkStatus();
}

// Each entry is "left right" or, since tokenizers 0.20, ["left", "right"].
absl::Status BytePairEncoder::ReadMerges(const JsonConfig& model) {
  if (!model.Has("merges")) return absl::OkStatus();
  for (const Json& merge : model.json()["merges"]) {
    if (merge.is_string()) {
      const std::string text = merge;
      const size_t space = text.find(' ');
      if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
        DDPO_RETURN_IF_ERROR(AddMerge(model, text.substr(0, space), text.substr(space + 1)));
        continue;
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      DDPO_RETURN_IF_ERROR(AddMerge(model, merge[0], merge[1]));
      continue;
    }
    return absl::InvalidArgumentError(absl::StrCat(model.path(), ": merges has ", merge.dump(),
                                                   ", expected two tokens with a space between"));
  }
  return absl::OkStatus();
}

absl::Status BytePairEncoder::AddMerge(const JsonConfig& model, const std::string& left,
                                       const std::string& right) {
  const auto left_id = TokenId(left), right_id = TokenId(right), result = TokenId(left + right);
  if (!left_id.has_value() || !right_id.has_value() || !result.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(model.path(), ": merges joins `", left, "` and `", right,
                     "`, expected them and their union to be tokens of the vocabulary"));
  }
  const auto rank = static_cast<int64_t>(merges_.size());
  merges_[PairKey(*left_id, *right_id)] = {.rank = rank, .result = *result};
  return absl::OkStatus();
}

std::optional<int64_t> BytePairEncoder::TokenId(const std::string& token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

void BytePairEncoder::AppendCharacter(const std::string& character, bool* after_unknown,
                                      std::vector<int64_t>* ids) const {
  const bool fuse = std::exchange(*after_unknown, false) && fuse_unknown_;
  if (const auto id = TokenId(character); id.has_value()) {
    ids->push_back(*id);
    return;
  }
  if (byte_fallback_) {
    std::vector<int64_t> bytes;
    for (const char byte : character) {
      const auto id = TokenId(absl::StrFormat("<0x%02X>", static_cast<unsigned char>(byte)));
      if (id.has_value()) bytes.push_back(*id);
    }
    if (bytes.size() == character.size()) {
      ids->insert(ids->end(), bytes.begin(), bytes.end());
      return;
    }
  }
  if (!unknown_.has_value()) return;
  *after_unknown = true;
  if (!fuse) ids->push_back(*unknown_);
}

const BytePairEncoder::Merge* BytePairEncoder::FindMerge(int64_t left, int64_t right) const {
  const auto found = merges_.find(PairKey(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

// The merge of lowest rank first, and of those the leftmost.
std::vector<int64_t> BytePairEncoder::MergeAll(const std::vector<int64_t>& ids) const {
  struct Symbol {
    int64_t id;
    size_t previous, next;
    bool gone = false;
  };
  // Rank and place of the left symbol, then the result, by which a stale entry is known.
  using Candidate = std::tuple<int64_t, size_t, int64_t>;
  const size_t size = ids.size();
  std::vector<Symbol> symbols;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](size_t left) {
    if (left >= size || symbols[left].next >= size) return;
    const Merge* merge = FindMerge(symbols[left].id, symbols[symbols[left].next].id);
    if (merge != nullptr) queue.emplace(merge->rank, left, merge->result);
  };
  for (size_t i = 0; i < size; ++i) {
    symbols.push_back({.id = ids[i], .previous = i == 0 ? size : i - 1, .next = i + 1});
  }
  for (size_t i = 0; i < size; ++i) offer(i);
  while (!queue.empty()) {
    const auto [rank, left, result] = queue.top();
    queue.pop();
    Symbol& symbol = symbols[left];
    if (symbol.gone || symbol.next >= size) continue;
    Symbol& right = symbols[symbol.next];
    const Merge* merge = FindMerge(symbol.id, right.id);
    if (merge == nullptr || merge->rank != rank || merge->result != result) continue;
    symbol.id = result;
    right.gone = true;
    symbol.next = right.next;
    if (symbol.next < size) symbols[symbol.next].previous = left;
    offer(symbol.previous);
    offer(left);
  }
  std::vector<int64_t> merged;
  for (const Symbol& symbol : symbols) {
    if (!symbol.gone) merged.push_back(symbol.id);
  }
  return merged;
}

void BytePairEncoder::Encode(const std::string& word, std::vector<int64_t>* ids) const {
  if (ignore_merges_) {
    if (const auto whole = TokenId(word); whole.has_value()) {
      ids->push_back(*whole);
      return;
    }
  }
  std::vector<int64_t> symbols;
  bool after_unknown = false;
  for (size_t at = 0; at < word.size();) {
    auto end = static_cast<int32_t>(at);
    U8_FWD_1(word.data(), end, static_cast<int32_t>(word.size()));
    AppendCharacter(word.substr(at, static_cast<size_t>(end) - at), &after_unknown, &symbols);
    at = static_cast<size_t>(end);
  }
  const std::vector<int64_t> merged = MergeAll(symbols);
  ids->insert(ids->end(), merged.begin(), merged.end());
}

}  // namespace ddpo
