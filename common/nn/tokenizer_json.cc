#include "common/nn/tokenizer_json.h"

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/nn/bpe.h"
#include "common/nn/byte_characters.h"
#include "common/nn/json_config.h"
#include "common/nn/tokenizer_steps.h"

namespace ddpo {
namespace {

using Json = nlohmann::json;

class JsonTokenizer : public LlamaTokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<LlamaTokenizer>> Load(const std::string& path,
                                                              TokenizerConfig config) {
    DDPO_ASSIGN_OR_RETURN(const JsonConfig file, JsonConfig::Read(path));
    DDPO_ASSIGN_OR_RETURN(const JsonConfig model, file.Object("model"));
    DDPO_ASSIGN_OR_RETURN(BytePairEncoder encoder, BytePairEncoder::Load(model));
    auto tokenizer = std::make_unique<JsonTokenizer>(std::move(config), std::move(encoder));
    DDPO_RETURN_IF_ERROR(tokenizer->ReadSteps(file));
    DDPO_RETURN_IF_ERROR(tokenizer->ReadAddedTokens(file));
    DDPO_RETURN_IF_ERROR(tokenizer->ReadTemplate(file));
    return tokenizer;
  }

  JsonTokenizer(TokenizerConfig config, BytePairEncoder encoder)
      : config_(std::move(config)), encoder_(std::move(encoder)) {}

  std::vector<int64_t> Encode(const std::string& text, bool add_special_tokens) const override {
    std::vector<int64_t> ids = add_special_tokens ? before_ : std::vector<int64_t>{};
    bool at_start = true;
    for (const TextPiece& raw : SplitAtTokens(text, raw_tokens_)) {
      if (raw.token != nullptr) {
        ids.push_back(raw.token->id);
      } else {
        AppendText(normalize_(raw.text), at_start, &ids);
      }
      at_start = false;
    }
    if (add_special_tokens) ids.insert(ids.end(), after_.begin(), after_.end());
    return ids;
  }

  std::string Decode(absl::Span<const int64_t> ids) const override {
    std::vector<std::string> tokens;
    for (const int64_t id : ids) {
      if (special_ids_.contains(id)) continue;
      if (const auto added = added_texts_.find(id); added != added_texts_.end()) {
        tokens.push_back(added->second);
      } else if (const auto token = encoder_.tokens().find(id); token != encoder_.tokens().end()) {
        tokens.push_back(token->second);
      }
    }
    const std::string text =
        has_decoder_ ? absl::StrJoin(decode_(std::move(tokens)), "") : absl::StrJoin(tokens, " ");
    return config_.clean_up_tokenization_spaces ? CleanUpSpaces(text) : text;
  }

  std::optional<int64_t> TokenId(const std::string& token) const override {
    const auto found = added_.find(token);
    if (found != added_.end()) return found->second.id;
    return encoder_.TokenId(token);
  }
  const std::string& bos_token() const override { return config_.bos_token; }
  const std::string& eos_token() const override { return config_.eos_token; }

 private:
  absl::Status ReadSteps(const JsonConfig& file) {
    DDPO_ASSIGN_OR_RETURN(const JsonConfig normalizer, file.Object("normalizer"));
    DDPO_ASSIGN_OR_RETURN(normalize_, MakeNormalizer(normalizer));
    DDPO_ASSIGN_OR_RETURN(const JsonConfig pre_tokenizer, file.Object("pre_tokenizer"));
    DDPO_ASSIGN_OR_RETURN(pre_tokenize_, MakePreTokenizer(pre_tokenizer));
    DDPO_ASSIGN_OR_RETURN(const JsonConfig decoder, file.Object("decoder"));
    DDPO_ASSIGN_OR_RETURN(decode_, MakeDecoder(decoder));
    has_decoder_ = file.Has("decoder");
    return absl::OkStatus();
  }

  // Those of the file; tokenizer_config.json adds what the file lacks.
  absl::Status ReadAddedTokens(const JsonConfig& file) {
    DDPO_ASSIGN_OR_RETURN(const auto entries, file.Objects("added_tokens"));
    for (const JsonConfig& entry : entries) {
      if (!entry.Has("id")) return entry.Error("id", "the token's number");
      DDPO_ASSIGN_OR_RETURN(const int64_t id, entry.Int("id", 0, 0, int64_t{1} << 31));
      DDPO_ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(entry, id));
      added_[token.content] = std::move(token);
    }
    added_.insert(config_.added_tokens.begin(), config_.added_tokens.end());
    for (const std::string& content : config_.special_tokens) {
      const auto found = added_.find(content);
      if (found != added_.end()) {
        found->second.special = true;
      } else if (const auto id = encoder_.TokenId(content); id.has_value()) {
        added_[content] = {.content = content, .id = *id, .special = true};
      }
    }
    for (auto& [content, token] : added_) {
      added_texts_[token.id] = content;
      if (token.special) special_ids_.insert(token.id);
      if (!token.normalized) {
        raw_tokens_.push_back(&token);
        continue;
      }
      normalized_.push_back(std::make_unique<AddedToken>(token));
      normalized_.back()->content = normalize_(content);
      normalized_tokens_.push_back(normalized_.back().get());
    }
    return absl::OkStatus();
  }

  // What stands around a text: transformers' LlamaTokenizerFast decides by its own options, other
  // classes leave it to the file.
  absl::Status ReadTemplate(const JsonConfig& file) {
    if (config_.IsLlama()) {
      DDPO_RETURN_IF_ERROR(AppendSpecial(file, config_.add_bos_token, config_.bos_token, &before_));
      return AppendSpecial(file, config_.add_eos_token, config_.eos_token, &after_);
    }
    if (!file.Has("post_processor")) return absl::OkStatus();
    DDPO_ASSIGN_OR_RETURN(const JsonConfig processor, file.Object("post_processor"));
    return ReadProcessor(file, processor);
  }

  absl::Status AppendSpecial(const JsonConfig& file, bool wanted, const std::string& token,
                             std::vector<int64_t>* ids) const {
    if (!wanted) return absl::OkStatus();
    const auto id = TokenId(token);
    if (!id.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat(file.path(), ": the special token `", token, "` is not in the vocabulary"));
    }
    ids->push_back(*id);
    return absl::OkStatus();
  }

  absl::Status ReadProcessor(const JsonConfig& file, const JsonConfig& processor) {
    DDPO_RETURN_IF_ERROR(processor.RequirePresent(
        "type", {R"("TemplateProcessing")", R"("ByteLevel")", R"("Sequence")"}));
    DDPO_ASSIGN_OR_RETURN(const auto steps, processor.Objects("processors"));
    for (const JsonConfig& step : steps) DDPO_RETURN_IF_ERROR(ReadProcessor(file, step));
    DDPO_ASSIGN_OR_RETURN(const auto parts, processor.Objects("single"));
    bool after = false;
    for (const JsonConfig& part : parts) {
      if (part.Has("Sequence")) {
        after = true;
        continue;
      }
      DDPO_ASSIGN_OR_RETURN(const JsonConfig special, part.Object("SpecialToken"));
      DDPO_ASSIGN_OR_RETURN(const std::string token, special.String("id", ""));
      DDPO_RETURN_IF_ERROR(AppendSpecial(file, true, token, after ? &after_ : &before_));
    }
    return absl::OkStatus();
  }

  void AppendText(const std::string& text, bool at_start, std::vector<int64_t>* ids) const {
    for (const TextPiece& piece : SplitAtTokens(text, normalized_tokens_)) {
      if (piece.token != nullptr) {
        ids->push_back(piece.token->id);
      } else {
        for (const Word& word : pre_tokenize_({{piece.text, at_start}})) {
          encoder_.Encode(word.text, ids);
        }
      }
      at_start = false;
    }
  }

  const TokenizerConfig config_;
  const BytePairEncoder encoder_;
  Normalizer normalize_;
  PreTokenizer pre_tokenize_;
  Decoder decode_;
  bool has_decoder_ = false;
  std::map<std::string, AddedToken> added_;
  std::unordered_map<int64_t, std::string> added_texts_;
  std::set<int64_t> special_ids_;
  // Looked for before the normalizer and after it; the latter with normalized contents.
  std::vector<const AddedToken*> raw_tokens_, normalized_tokens_;
  std::vector<std::unique_ptr<AddedToken>> normalized_;
  std::vector<int64_t> before_, after_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LlamaTokenizer>> LoadTokenizerJson(const std::string& path,
                                                                  TokenizerConfig config) {
  return JsonTokenizer::Load(path, std::move(config));
}

}  // namespace ddpo
