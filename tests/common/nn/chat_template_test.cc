#include "common/nn/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/nn/jinja.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_dir.h"

namespace ddpo {
namespace {

using ::ddpo::testing::SourcePath;
using ::ddpo::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

using Json = nlohmann::json;

const ChatTemplate::Tokens kTokens{.image = "<image>", .bos = "<s>", .eos = "</s>"};

// Of Jinja, but not of ours: refused, so that nobody gets another text than from Jinja.
const std::set<std::string> kNotSupported = {"namespace", "macro", "slice",   "json",    "chain",
                                             "tuple",     "call",  "keyword", "division"};

void WriteFile(const std::string& path, const std::string& text) {
  ASSERT_TRUE(WriteFileAtomically(path, text).ok());
}

absl::StatusOr<std::string> Ask(const TempDir& dir, const std::string& question) {
  const absl::StatusOr<ChatTemplate> chat = ChatTemplate::Load(dir.path(), kTokens);
  if (!chat.ok()) return chat.status();
  return chat->Render(question);
}

absl::StatusOr<std::string> RenderCase(const Json& test) {
  const absl::StatusOr<JinjaTemplate> jinja = JinjaTemplate::Parse(test["template"]);
  if (!jinja.ok()) return jinja.status();
  const Json content =
      Json::array({{{"type", "image"}}, {{"type", "text"}, {"text", test["question"]}}});
  return jinja->Render({{"messages", Json::array({{{"role", "user"}, {"content", content}}})},
                        {"add_generation_prompt", true},
                        {"bos_token", "<s>"},
                        {"eos_token", "</s>"}});
}

TEST(JinjaTest, RendersAsJinjaOrRefuses) {
  const Json cases =
      Json::parse(ReadFile(SourcePath("tests/goldens/llava/chat_templates.json")).value());
  ASSERT_GT(cases.size(), 30u);
  for (const Json& test : cases) {
    const absl::StatusOr<std::string> text = RenderCase(test);
    if (test.contains("text") && !kNotSupported.contains(test["name"])) {
      ASSERT_TRUE(text.ok()) << test["name"] << ": " << text.status();
      EXPECT_EQ(*text, test["text"]) << test["name"];
    } else {
      EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument)
          << test["name"] << ": " << text.value_or("");
      EXPECT_THAT(std::string(text.status().message()), HasSubstr("line 1"));
    }
  }
}

TEST(JinjaTest, ErrorsNameTheLine) {
  const auto error = [](const std::string& source) {
    const auto jinja = JinjaTemplate::Parse(source);
    return std::string(jinja.ok() ? jinja->Render({}).status().message()
                                  : jinja.status().message());
  };
  EXPECT_THAT(error("a\n{% if x %}\n{{ 1 + }}\n{% endif %}"), HasSubstr("line 3"));
  EXPECT_THAT(error("a\n\n{{ 'x"), AllOf(HasSubstr("line 3"), HasSubstr("without its end")));
  EXPECT_THAT(error("{% for x in 3 %}{% endfor %}"), HasSubstr("not a list"));
  EXPECT_THAT(error("\n{{ raise_exception('no') }}"), HasSubstr("line 2: no"));
  EXPECT_THAT(error("{{ x | frobnicate }}"), HasSubstr("frobnicate"));
  EXPECT_THAT(error("{{ 1 % 0 }}"), HasSubstr("division by 0"));
}

TEST(JinjaTest, RefusesNestingThatWouldExhaustTheStack) {
  std::string parentheses(100000, '('), blocks;
  for (int i = 0; i < 1000; ++i) blocks += "{% if true %}";
  EXPECT_FALSE(JinjaTemplate::Parse("{{ " + parentheses).ok());
  EXPECT_FALSE(JinjaTemplate::Parse("{{ " + std::string(100000, '[')).ok());
  EXPECT_FALSE(JinjaTemplate::Parse(blocks).ok());
}

TEST(ChatTemplateTest, AsksAsLlavaDoesWhereTheFolderHasNoTemplate) {
  const TempDir dir;
  EXPECT_EQ(Ask(dir, "What is this?").value(), "USER: <image>\nWhat is this? ASSISTANT:");
}

TEST(ChatTemplateTest, TakesTheFirstFileThatHasATemplate) {
  const TempDir dir;
  const auto json = [](const std::string& name) {
    return Json{{"chat_template", name + " <image>{{ messages[0].content[1].text }}"}}.dump();
  };
  WriteFile(dir / "tokenizer_config.json", json("tokenizer"));
  EXPECT_EQ(Ask(dir, "?").value(), "tokenizer <image>?");
  WriteFile(dir / "processor_config.json", json("processor"));
  EXPECT_EQ(Ask(dir, "?").value(), "processor <image>?");
  WriteFile(dir / "chat_template.json", json("own"));
  EXPECT_EQ(Ask(dir, "?").value(), "own <image>?");
  WriteFile(dir / "chat_template.jinja", "{{ bos_token }}<image>\n");
  EXPECT_EQ(Ask(dir, "?").value(), "<s><image>");
}

TEST(ChatTemplateTest, TakesTheDefaultOneOfSeveral) {
  const TempDir dir;
  const Json named = {{"chat_template",
                       {{{"name", "tool_use"}, {"template", "no"}},
                        {{"name", "default"}, {"template", "yes <image>"}}}}};
  WriteFile(dir / "tokenizer_config.json", named.dump());
  EXPECT_EQ(Ask(dir, "?").value(), "yes <image>");
  const Json others = {{"chat_template", {{{"name", "tool_use"}, {"template", "no"}}}}};
  WriteFile(dir / "tokenizer_config.json", others.dump());
  EXPECT_THAT(std::string(Ask(dir, "?").status().message()),
              AllOf(HasSubstr(dir / "tokenizer_config.json"), HasSubstr("default")));
}

TEST(ChatTemplateTest, RefusesATemplateWithoutTheImageAndAQuestionThatSpellsItOut) {
  const TempDir dir;
  EXPECT_THAT(std::string(Ask(dir, "an <image>?").status().message()), HasSubstr("<image> once"));
  WriteFile(dir / "chat_template.jinja", "{{ messages[0].content[1].text }}");
  EXPECT_THAT(std::string(Ask(dir, "?").status().message()),
              AllOf(HasSubstr(dir / "chat_template.jinja"), HasSubstr("<image> once")));
  WriteFile(dir / "chat_template.jinja", "\n{% frobnicate %}");
  EXPECT_THAT(
      std::string(Ask(dir, "?").status().message()),
      AllOf(HasSubstr(dir / "chat_template.jinja"), HasSubstr("line 2"), HasSubstr("frobnicate")));
}

}  // namespace
}  // namespace ddpo
