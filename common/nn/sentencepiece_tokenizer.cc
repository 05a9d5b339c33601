#include "common/nn/sentencepiece_tokenizer.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/nn/sentencepiece_model.h"

namespace ddpo {
namespace {

constexpr char kSpace[] = "▁";

class SentencePieceTokenizer : public LlamaTokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<LlamaTokenizer>> Load(const std::string& path,
                                                              TokenizerConfig config) {
    DDPO_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
    absl::StatusOr<std::unique_ptr<SentencePieceModel>> model =
        SentencePieceModel::Parse(bytes, /*add_dummy_prefix=*/config.legacy);
    if (!model.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", model.status().message()));
    }
    auto tokenizer = std::make_unique<SentencePieceTokenizer>(std::move(config), *std::move(model));
    DDPO_RETURN_IF_ERROR(tokenizer->ReadAddedTokens(path));
    return tokenizer;
  }

  SentencePieceTokenizer(TokenizerConfig config, std::unique_ptr<SentencePieceModel> model)
      : config_(std::move(config)), model_(std::move(model)) {}

  std::vector<int64_t> Encode(const std::string& text, bool add_special_tokens) const override {
    std::vector<int64_t> ids;
    if (add_special_tokens && config_.add_bos_token) ids.push_back(*TokenId(config_.bos_token));
    for (const std::string& token : Tokens(text)) {
      ids.push_back(TokenId(token).value_or(model_->unknown_id()));
    }
    if (add_special_tokens && config_.add_eos_token) ids.push_back(*TokenId(config_.eos_token));
    return ids;
  }

  std::string Decode(absl::Span<const int64_t> ids) const override {
    std::string text;
    std::vector<std::string> run;  // of tokens that SentencePiece knows
    for (const int64_t id : ids) {
      const auto added = added_texts_.find(id);
      if (added == added_texts_.end()) {
        if (id >= 0 && id < model_->size()) run.push_back(model_->Piece(static_cast<int>(id)));
      } else if (!special_.contains(added->second)) {
        text += DecodeRun(std::exchange(run, {})) + added->second;
      }
    }
    text += DecodeRun(std::move(run));
    return config_.clean_up_tokenization_spaces ? CleanUpSpaces(text) : text;
  }

  std::optional<int64_t> TokenId(const std::string& token) const override {
    const auto added = added_.find(token);
    if (added != added_.end()) return added->second.id;
    const int id = model_->Id(token);
    if (id == model_->unknown_id() && token != model_->Piece(id)) return std::nullopt;
    return id;
  }
  const std::string& bos_token() const override { return config_.bos_token; }
  const std::string& eos_token() const override { return config_.eos_token; }

 private:
  absl::Status ReadAddedTokens(const std::string& path) {
    added_ = config_.added_tokens;
    for (const std::string& content : config_.special_tokens) {
      const auto id = TokenId(content);
      if (!id.has_value()) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ": the special token `", content, "` is not in the vocabulary"));
      }
      // Keeps the flags of a token that is among the added ones.
      added_.insert({content, {.content = content, .id = *id, .special = true}});
      special_.insert(content);
    }
    for (const auto& [content, token] : added_) {
      if (token.special) special_.insert(content);
      added_texts_[token.id] = content;
      tokens_.push_back(&token);
    }
    return absl::OkStatus();
  }

  // LlamaTokenizer.tokenize: outside the legacy mode the whole text, not each stretch between
  // added tokens, begins with a space.
  std::vector<std::string> Tokens(std::string text) const {
    const bool prefix = !config_.legacy && !text.empty();
    if (prefix) {
      text = absl::StrReplaceAll(text, {{kSpace, " "}});
      if (config_.add_prefix_space) text.insert(0, kSpace);
    }
    std::vector<std::string> tokens;
    for (const TextPiece& piece : SplitAtTokensAsPython(text, tokens_)) {
      if (piece.token != nullptr) {
        tokens.push_back(piece.text);
        continue;
      }
      for (std::string& token : Pieces(piece.text)) tokens.push_back(std::move(token));
    }
    if (prefix && tokens.size() > 1 && tokens[0] == kSpace && special_.contains(tokens[1])) {
      tokens.erase(tokens.begin());
    }
    return tokens;
  }

  // LlamaTokenizer._tokenize: SentencePiece drops a leading space, unless a token stands before.
  std::vector<std::string> Pieces(const std::string& text) const {
    const bool leading_space = absl::StartsWith(text, kSpace) || absl::StartsWith(text, " ");
    if (config_.legacy || !leading_space) return model_->Encode(text);
    std::vector<std::string> pieces = model_->Encode(absl::StrCat(config_.unk_token, text));
    const size_t unknown = model_->Encode(config_.unk_token).size();
    pieces.erase(pieces.begin(),
                 pieces.begin() + static_cast<std::ptrdiff_t>(std::min(unknown, pieces.size())));
    return pieces;
  }

  // LlamaTokenizer.convert_tokens_to_string. The space before the first word is the tokenizer's.
  std::string DecodeRun(std::vector<std::string> pieces) const {
    if (pieces.empty()) return "";
    if (config_.add_prefix_space && absl::StartsWith(pieces[0], kSpace)) {
      pieces[0].erase(0, sizeof(kSpace) - 1);
    }
    return model_->Decode(pieces);
  }

  const TokenizerConfig config_;
  const std::unique_ptr<SentencePieceModel> model_;
  std::map<std::string, AddedToken> added_;
  std::map<int64_t, std::string> added_texts_;
  std::set<std::string> special_;
  std::vector<const AddedToken*> tokens_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LlamaTokenizer>> LoadSentencePieceTokenizer(const std::string& path,
                                                                           TokenizerConfig config) {
  return SentencePieceTokenizer::Load(path, std::move(config));
}

}  // namespace ddpo
