#include "common/nn/sentence_tokenizer.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/nn/byte_level_tokenizer.h"
#include "common/nn/json_config.h"
#include "common/nn/wordpiece_tokenizer.h"

namespace ddpo {
namespace {

// For folders that do not say; transformers takes any length then.
constexpr int64_t kAnyLength = int64_t{1} << 31;

// The defaults of a family's tokenizer class in transformers.
struct Family {
  const char* model_type;
  const char* tokenizer_class;
  bool word_piece;
  const char *cls, *sep, *pad, *unknown, *mask;
};
constexpr std::array<Family, 3> kFamilies = {{
    {"bert", "BertTokenizer", true, "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"},
    {"roberta", "RobertaTokenizer", false, "<s>", "</s>", "<pad>", "<unk>", "<mask>"},
    {"deberta", "DebertaTokenizer", false, "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"},
}};

// The family of the tokenizer class, which decides, as in transformers' AutoTokenizer, before the
// model type does.
absl::StatusOr<Family> FamilyOf(const JsonConfig& config, const std::string& model_type) {
  DDPO_ASSIGN_OR_RETURN(const std::string name, config.String("tokenizer_class", ""));
  std::string expected;
  for (const Family& family : kFamilies) {
    const std::string fast = absl::StrCat(family.tokenizer_class, "Fast");
    if (name.empty() ? family.model_type == model_type
                     : name == family.tokenizer_class || name == fast) {
      return family;
    }
    absl::StrAppend(&expected, expected.empty() ? "" : " or ", family.tokenizer_class);
  }
  return config.Error("tokenizer_class", expected);
}

void SetDefault(std::string* token, const char* fallback) {
  if (token->empty()) *token = fallback;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SentenceTokenizer>> SentenceTokenizer::Load(
    const std::string& dir, const std::string& model_type) {
  DDPO_ASSIGN_OR_RETURN(const JsonConfig source,
                        JsonConfig::ReadIfThere(JoinPath(dir, "tokenizer_config.json")));
  DDPO_ASSIGN_OR_RETURN(const Family family, FamilyOf(source, model_type));
  DDPO_ASSIGN_OR_RETURN(TokenizerConfig config, ReadTokenizerConfig(dir, family.tokenizer_class));
  SetDefault(&config.cls_token, family.cls);
  SetDefault(&config.sep_token, family.sep);
  SetDefault(&config.pad_token, family.pad);
  SetDefault(&config.unk_token, family.unknown);
  SetDefault(&config.mask_token, family.mask);
  if (!family.word_piece) {
    SetDefault(&config.bos_token, config.cls_token.c_str());
    SetDefault(&config.eos_token, config.sep_token.c_str());
  }
  for (const std::string& token :
       {config.cls_token, config.sep_token, config.pad_token, config.unk_token, config.mask_token,
        config.bos_token, config.eos_token}) {
    if (!token.empty()) config.special_tokens.push_back(token);
  }
  auto tokenizer = std::unique_ptr<SentenceTokenizer>(new SentenceTokenizer());
  if (family.word_piece) {
    DDPO_ASSIGN_OR_RETURN(tokenizer->model_, LoadWordPiece(dir, config.unk_token,
                                                           {config.special_tokens.begin(),
                                                            config.special_tokens.end()}));
  } else {
    DDPO_ASSIGN_OR_RETURN(tokenizer->model_, LoadByteLevelBpe(dir, config.unk_token));
    // bert-score asks RobertaTokenizer for it whatever its own setting is.
    DDPO_ASSIGN_OR_RETURN(tokenizer->space_first_, source.Bool("add_prefix_space", false));
    if (std::string(family.model_type) == "roberta") tokenizer->space_first_ = true;
    // Takes the space before it along, where the folder does not say.
    auto& added = config.added_tokens;
    if (const auto id = tokenizer->model_->TokenId(config.mask_token);
        id.has_value() && !added.contains(config.mask_token)) {
      added[config.mask_token] = {
          .content = config.mask_token, .id = *id, .lstrip = true, .special = true};
    }
  }
  DDPO_RETURN_IF_ERROR(tokenizer->AddTokens(dir, config));
  DDPO_ASSIGN_OR_RETURN(tokenizer->cls_,
                        tokenizer->RequireToken(dir, "cls_token", config.cls_token));
  DDPO_ASSIGN_OR_RETURN(tokenizer->sep_,
                        tokenizer->RequireToken(dir, "sep_token", config.sep_token));
  DDPO_ASSIGN_OR_RETURN(tokenizer->pad_,
                        tokenizer->RequireToken(dir, "pad_token", config.pad_token));
  DDPO_ASSIGN_OR_RETURN(const double max_length,
                        source.Number("model_max_length", static_cast<double>(kAnyLength)));
  if (max_length < 3) return source.Error("model_max_length", "a number of at least 3");
  tokenizer->max_length_ =
      static_cast<int64_t>(std::min(max_length, static_cast<double>(kAnyLength)));
  return tokenizer;
}

absl::Status SentenceTokenizer::AddTokens(const std::string& dir, const TokenizerConfig& config) {
  std::map<std::string, AddedToken> added = config.added_tokens;
  for (const std::string& content : config.special_tokens) {
    const auto found = added.find(content);
    if (found != added.end()) {
      found->second.special = true;
    } else if (const auto id = model_->TokenId(content); id.has_value()) {
      added[content] = {.content = content, .id = *id, .special = true};
    }
  }
  vocabulary_ = model_->vocabulary();
  for (auto& [content, token] : added) {
    if (token.id >= kAnyLength) {
      return absl::InvalidArgumentError(absl::StrCat(dir, ": the added token `", content,
                                                     "` has the number ", token.id,
                                                     ", expected less than ", kAnyLength));
    }
    vocabulary_ = std::max(vocabulary_, token.id + 1);
    if (!token.special && token.normalized) token.content = model_->Fold(token.content);
    added_.push_back(std::make_unique<AddedToken>(std::move(token)));
    tokens_.push_back(added_.back().get());
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> SentenceTokenizer::RequireToken(const std::string& dir, const char* key,
                                                        const std::string& token) const {
  for (const AddedToken* added : tokens_) {
    if (added->content == token) return added->id;
  }
  return absl::InvalidArgumentError(
      absl::StrCat(dir, ": ", key, " `", token, "` is not in the vocabulary"));
}

std::vector<int64_t> SentenceTokenizer::Encode(const std::string& text, int64_t max_length) const {
  std::string stripped = StripAsPython(text);
  std::vector<int64_t> ids = {cls_};
  if (!stripped.empty() && space_first_) stripped.insert(0, " ");
  // Once to fold only what is between special tokens, and again for those that it brings out.
  std::string folded;
  for (const TextPiece& piece : FindTokens(stripped, tokens_)) {
    folded += piece.token != nullptr ? piece.text : model_->Fold(piece.text);
  }
  for (const TextPiece& piece : SplitAtTokensAsPython(folded, tokens_)) {
    if (piece.token != nullptr) {
      ids.push_back(piece.token->id);
    } else {
      model_->Append(piece.text, &ids);
    }
  }
  if (static_cast<int64_t>(ids.size()) > max_length - 1) {
    ids.resize(static_cast<size_t>(max_length - 1));
  }
  ids.push_back(sep_);
  return ids;
}

}  // namespace ddpo
