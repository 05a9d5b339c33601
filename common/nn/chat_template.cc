#include "common/nn/chat_template.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/nn/json_config.h"

namespace ddpo {
namespace {

using Json = nlohmann::json;

// `chat_template` is a text, or a list of named ones.
absl::StatusOr<std::string> TemplateIn(const JsonConfig& config) {
  if (!config.Has("chat_template")) return "";
  const Json& value = config.json()["chat_template"];
  if (!value.is_array()) return config.String("chat_template", "");
  DDPO_ASSIGN_OR_RETURN(const auto named, config.Objects("chat_template"));
  for (const JsonConfig& entry : named) {
    DDPO_ASSIGN_OR_RETURN(const std::string name, entry.String("name", ""));
    if (name == "default") return entry.String("template", "");
  }
  return config.Error("chat_template", "a template of the name `default` among them");
}

}  // namespace

absl::StatusOr<ChatTemplate> ChatTemplate::Load(const std::string& dir, const Tokens& tokens) {
  ChatTemplate chat;
  chat.tokens_ = tokens;
  std::string source;
  for (const char* name : {"chat_template.jinja", "chat_template.json", "processor_config.json",
                           "tokenizer_config.json"}) {
    chat.path_ = JoinPath(dir, name);
    if (!source.empty() || !FileSystem::Real()->Exists(chat.path_)) continue;
    if (chat.path_.ends_with(".jinja")) {
      DDPO_ASSIGN_OR_RETURN(source, ReadFile(chat.path_));
    } else {
      DDPO_ASSIGN_OR_RETURN(const JsonConfig config, JsonConfig::Read(chat.path_));
      DDPO_ASSIGN_OR_RETURN(source, TemplateIn(config));
    }
    if (!source.empty()) break;
  }
  if (source.empty()) return chat;
  absl::StatusOr<JinjaTemplate> jinja = JinjaTemplate::Parse(source);
  if (!jinja.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(chat.path_, ": chat template: ", jinja.status().message()));
  }
  chat.jinja_ = *std::move(jinja);
  return chat;
}

absl::StatusOr<std::string> ChatTemplate::Render(const std::string& question) const {
  std::string text;
  if (!jinja_.has_value()) {
    text = absl::StrCat("USER: ", tokens_.image, "\n", question, " ASSISTANT:");
  } else {
    const Json content = Json::array({{{"type", "image"}}, {{"type", "text"}, {"text", question}}});
    const JinjaScope variables = {
        {"messages", Json::array({{{"role", "user"}, {"content", content}}})},
        {"add_generation_prompt", true},
        {"bos_token", tokens_.bos},
        {"eos_token", tokens_.eos}};
    absl::StatusOr<std::string> rendered = jinja_->Render(variables);
    if (!rendered.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": chat template: ", rendered.status().message()));
    }
    text = *std::move(rendered);
  }
  const size_t first = text.find(tokens_.image);
  if (first == std::string::npos || text.find(tokens_.image, first + 1) != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(jinja_.has_value() ? absl::StrCat(path_, ": ") : "", "the question makes `",
                     text, "`, expected it to hold ", tokens_.image, " once"));
  }
  return text;
}

}  // namespace ddpo
