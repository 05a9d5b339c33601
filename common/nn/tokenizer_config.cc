#include "common/nn/tokenizer_config.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

using Json = nlohmann::json;

// A token's text, which the files write as text or as an object with `content`.
std::string TokenText(const Json& json) {
  if (json.is_string()) return json;
  if (json.is_object() && json.contains("content") && json["content"].is_string()) {
    return json["content"];
  }
  return "";
}

absl::Status ReadSpecialTokens(const JsonConfig& source, TokenizerConfig* config) {
  const std::pair<const char*, std::string*> named[] = {
      {"bos_token", &config->bos_token},  {"eos_token", &config->eos_token},
      {"unk_token", &config->unk_token},  {"pad_token", &config->pad_token},
      {"sep_token", &config->sep_token},  {"cls_token", &config->cls_token},
      {"mask_token", &config->mask_token}};
  for (const auto& [key, text] : named) {
    if (!source.json().contains(key)) continue;
    const std::string token = TokenText(source.json()[key]);
    *text = token;
    if (!token.empty()) config->special_tokens.push_back(token);
  }
  if (source.Has("additional_special_tokens")) {
    const Json& list = source.json()["additional_special_tokens"];
    if (!list.is_array()) return source.Error("additional_special_tokens", "a list of tokens");
    for (const Json& token : list) config->special_tokens.push_back(TokenText(token));
  }
  // Those of multimodal processors, by names of their own, as image_token.
  DDPO_ASSIGN_OR_RETURN(const JsonConfig extra, source.Object("extra_special_tokens"));
  for (const auto& [name, token] : extra.json().items()) {
    config->special_tokens.push_back(TokenText(token));
  }
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(const std::string& dir, const JsonConfig& source,
                             TokenizerConfig* config) {
  // The older file, without flags.
  DDPO_ASSIGN_OR_RETURN(const JsonConfig added,
                        JsonConfig::ReadIfThere(JoinPath(dir, "added_tokens.json")));
  for (const auto& [content, id] : added.json().items()) {
    if (!id.is_number_unsigned()) return added.Error(content, "a token's number");
    config->added_tokens[content] = {
        .content = content, .id = id.get<int64_t>(), .normalized = true};
  }
  DDPO_ASSIGN_OR_RETURN(const JsonConfig decoder, source.Object("added_tokens_decoder"));
  for (const auto& [key, entry] : decoder.json().items()) {
    int64_t id = 0;
    if (!absl::SimpleAtoi(key, &id) || id < 0) {
      return source.Error("added_tokens_decoder", "tokens under their numbers");
    }
    DDPO_ASSIGN_OR_RETURN(const JsonConfig token, decoder.Object(key));
    DDPO_ASSIGN_OR_RETURN(AddedToken read, ReadAddedToken(token, id));
    config->added_tokens[read.content] = std::move(read);
  }
  return absl::OkStatus();
}

// Code points of UTF-8 text, looked at one by one. Damaged bytes read as negative.
UChar32 Next(const std::string& text, size_t* at) {
  UChar32 c = 0;
  auto i = static_cast<int32_t>(*at);
  U8_NEXT(text.data(), i, static_cast<int32_t>(text.size()), c);
  *at = static_cast<size_t>(i);
  return c;
}

UChar32 Previous(const std::string& text, size_t* at) {
  UChar32 c = 0;
  auto i = static_cast<int32_t>(*at);
  U8_PREV(text.data(), 0, i, c);
  *at = static_cast<size_t>(i);
  return c;
}

bool IsWordCharacter(UChar32 c) {
  return c >= 0 && (u_isalnum(c) || c == '_' || u_getIntPropertyValue(c, UCHAR_ALPHABETIC) != 0 ||
                    (U_GET_GC_MASK(c) & (U_GC_M_MASK | U_GC_PC_MASK)) != 0);
}

// Python's str.isspace.
bool IsPythonSpace(UChar32 c) { return u_isUWhiteSpace(c) || (c >= 0x1c && c <= 0x1f); }

// The first of the tokens in the text from `at` on, and of those the longest; null without any. A
// token that a normalizer left nothing of is nowhere.
const AddedToken* FindFirst(const std::string& text, const std::vector<const AddedToken*>& tokens,
                            size_t at, size_t* begin) {
  const AddedToken* found = nullptr;
  *begin = std::string::npos;
  for (const AddedToken* token : tokens) {
    const size_t place = text.find(token->content, at);
    if (place == std::string::npos || place > *begin || token->content.empty()) continue;
    if (place == *begin && token->content.size() <= found->content.size()) continue;
    *begin = place;
    found = token;
  }
  return found;
}

bool TouchesWord(const std::string& text, size_t begin, size_t end) {
  size_t before = begin, after = end;
  return (begin > 0 && IsWordCharacter(Previous(text, &before))) ||
         (end < text.size() && IsWordCharacter(Next(text, &after)));
}

}  // namespace

absl::StatusOr<AddedToken> ReadAddedToken(const JsonConfig& entry, int64_t id) {
  AddedToken token;
  token.id = id;
  DDPO_ASSIGN_OR_RETURN(token.content, entry.String("content", ""));
  if (token.content.empty()) return entry.Error("content", "the token's text");
  DDPO_ASSIGN_OR_RETURN(token.single_word, entry.Bool("single_word", false));
  DDPO_ASSIGN_OR_RETURN(token.lstrip, entry.Bool("lstrip", false));
  DDPO_ASSIGN_OR_RETURN(token.rstrip, entry.Bool("rstrip", false));
  DDPO_ASSIGN_OR_RETURN(token.special, entry.Bool("special", false));
  DDPO_ASSIGN_OR_RETURN(token.normalized, entry.Bool("normalized", !token.special));
  return token;
}

absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::string& dir,
                                                    const std::string& default_class) {
  TokenizerConfig config;
  DDPO_ASSIGN_OR_RETURN(const JsonConfig source,
                        JsonConfig::ReadIfThere(JoinPath(dir, "tokenizer_config.json")));
  DDPO_ASSIGN_OR_RETURN(const JsonConfig map,
                        JsonConfig::ReadIfThere(JoinPath(dir, "special_tokens_map.json")));
  DDPO_ASSIGN_OR_RETURN(config.tokenizer_class, source.String("tokenizer_class", default_class));
  if (config.IsLlama()) {
    config.bos_token = "<s>";
    config.eos_token = "</s>";
    config.unk_token = "<unk>";
  }
  DDPO_RETURN_IF_ERROR(ReadSpecialTokens(map, &config));
  DDPO_RETURN_IF_ERROR(ReadSpecialTokens(source, &config));
  for (const std::string* token : {&config.bos_token, &config.eos_token, &config.unk_token}) {
    if (!token->empty()) config.special_tokens.push_back(*token);
  }
  DDPO_RETURN_IF_ERROR(ReadAddedTokens(dir, source, &config));
  DDPO_ASSIGN_OR_RETURN(config.add_bos_token, source.Bool("add_bos_token", true));
  DDPO_ASSIGN_OR_RETURN(config.add_eos_token, source.Bool("add_eos_token", false));
  DDPO_ASSIGN_OR_RETURN(config.legacy, source.Bool("legacy", true));
  DDPO_ASSIGN_OR_RETURN(config.add_prefix_space, source.Bool("add_prefix_space", true));
  DDPO_ASSIGN_OR_RETURN(config.clean_up_tokenization_spaces,
                        source.Bool("clean_up_tokenization_spaces", false));
  return config;
}

std::vector<TextPiece> SplitAtTokens(const std::string& text,
                                     const std::vector<const AddedToken*>& tokens) {
  std::vector<TextPiece> pieces;
  size_t at = 0, search = 0;
  while (search < text.size()) {
    size_t begin = 0;
    const AddedToken* found = FindFirst(text, tokens, search, &begin);
    if (found == nullptr) break;
    size_t end = begin + found->content.size();
    search = end;
    if (found->single_word && TouchesWord(text, begin, end)) continue;
    if (found->lstrip) {
      for (size_t before = begin; before > at; begin = before) {
        if (!u_isUWhiteSpace(Previous(text, &before)) || before < at) break;
      }
    }
    if (found->rstrip) {
      for (size_t after = end; after < text.size(); end = after) {
        if (!u_isUWhiteSpace(Next(text, &after))) break;
      }
    }
    if (begin > at) pieces.push_back({text.substr(at, begin - at), nullptr});
    pieces.push_back({found->content, found});
    at = search = end;
  }
  if (at < text.size()) pieces.push_back({text.substr(at), nullptr});
  return pieces;
}

std::vector<TextPiece> FindTokens(const std::string& text,
                                  const std::vector<const AddedToken*>& tokens) {
  std::vector<TextPiece> pieces;
  size_t at = 0;
  while (at < text.size()) {
    size_t begin = 0;
    const AddedToken* found = FindFirst(text, tokens, at, &begin);
    if (found == nullptr) break;
    if (begin > at) pieces.push_back({text.substr(at, begin - at), nullptr});
    pieces.push_back({found->content, found});
    at = begin + found->content.size();
  }
  if (at < text.size()) pieces.push_back({text.substr(at), nullptr});
  return pieces;
}

std::vector<TextPiece> SplitAtTokensAsPython(const std::string& text,
                                             const std::vector<const AddedToken*>& tokens) {
  std::vector<TextPiece> parts = FindTokens(text, tokens);
  for (size_t i = 0; i < parts.size(); ++i) {
    const AddedToken* token = parts[i].token;
    if (token == nullptr) continue;
    const std::string left = i > 0 ? parts[i - 1].text : "";
    const std::string right = i + 1 < parts.size() ? parts[i + 1].text : "";
    if (token->rstrip && !right.empty()) parts[i + 1].text = StripLeftAsPython(right);
    if (token->lstrip && !left.empty()) parts[i - 1].text = StripRightAsPython(left);
    if (!token->single_word) continue;
    if (!left.empty() && left.back() != ' ') {
      parts[i - 1] = {parts[i - 1].text + token->content, nullptr};
    } else if (!right.empty() && right.front() != ' ') {
      parts[i + 1] = {token->content + parts[i + 1].text, nullptr};
    } else {
      continue;
    }
    parts[i] = {};
  }
  std::erase_if(parts, [](const TextPiece& part) { return part.text.empty(); });
  return parts;
}

std::string StripLeftAsPython(const std::string& text) {
  size_t begin = 0;
  for (size_t at = 0; at < text.size(); begin = at) {
    if (!IsPythonSpace(Next(text, &at))) break;
  }
  return text.substr(begin);
}

std::string StripRightAsPython(const std::string& text) {
  size_t end = text.size();
  for (size_t at = end; at > 0; end = at) {
    if (!IsPythonSpace(Previous(text, &at))) break;
  }
  return text.substr(0, end);
}

std::string StripAsPython(const std::string& text) {
  return StripRightAsPython(StripLeftAsPython(text));
}

std::string CleanUpSpaces(std::string text) {
  // One after the other, as each sees what the one before left.
  const std::pair<const char*, const char*> replacements[] = {
      {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
      {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& replacement : replacements) text = absl::StrReplaceAll(text, {replacement});
  return text;
}

}  // namespace ddpo
