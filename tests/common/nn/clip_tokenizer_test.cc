#include "common/nn/clip_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_replace.h"
#include "common/base/files.h"
#include "tests/testing/copied_folder.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::ddpo::testing::CopiedFolder;
using ::ddpo::testing::SourcePath;
using ::testing::AllOf;
using ::testing::HasSubstr;

struct Vocabulary {
  std::string name;  // of the goldens, as in tokens_NAME.json
  std::string dir;
};

void PrintTo(const Vocabulary& vocabulary, std::ostream* os) { *os << vocabulary.name; }

class ClipTokenizerGoldenTest : public ::testing::TestWithParam<Vocabulary> {};
INSTANTIATE_TEST_SUITE_P(
    Vocabularies, ClipTokenizerGoldenTest,
    ::testing::Values(Vocabulary{"multilingual", "tests/goldens/clip/multilingual"},
                      Vocabulary{"emoji_sd", "assets/models/emoji-sd/tokenizer"}),
    [](const auto& test) { return test.param.name; });

TEST_P(ClipTokenizerGoldenTest, GivesTransformersTokens) {
  const auto tokenizer = ClipTokenizer::Load(SourcePath(GetParam().dir));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto rows = nlohmann::json::parse(
      ReadFile(SourcePath("tests/goldens/clip/tokens_" + GetParam().name + ".json")).value());
  ASSERT_GT(rows.size(), 40u);
  for (const nlohmann::json& row : rows) {
    EXPECT_EQ((*tokenizer)->Encode(row["text"]), row["input_ids"].get<std::vector<int64_t>>())
        << row["text"];
  }
}

class ClipTokenizerTest : public ::testing::Test {
 protected:
  absl::Status Load() const { return ClipTokenizer::Load(dir_.path()).status(); }

  // The message for a folder that is refused.
  std::string LoadError() const {
    EXPECT_EQ(Load().code(), absl::StatusCode::kInvalidArgument) << Load();
    return std::string(Load().message());
  }

  const CopiedFolder dir_{SourcePath("tests/goldens/clip/multilingual")};
};

TEST_F(ClipTokenizerTest, DamagedUtf8IsDropped) {
  const auto tokenizer = ClipTokenizer::Load(dir_.path()).value();
  EXPECT_EQ(tokenizer->Encode("a\xff cat\xc3"), tokenizer->Encode("a cat"));
}

TEST_F(ClipTokenizerTest, LongTextsTakeNoQuadraticTime) {
  const auto tokenizer = ClipTokenizer::Load(dir_.path()).value();
  EXPECT_EQ(tokenizer->Encode(std::string(1 << 20, 'a')).size(),
            static_cast<size_t>(tokenizer->model_max_length()));
}

TEST_F(ClipTokenizerTest, ReadsFilesWithWindowsLineEnds) {
  const auto before = ClipTokenizer::Load(dir_.path()).value();
  const std::string merges = ReadFile(dir_ / "merges.txt").value();
  dir_.Write("merges.txt", absl::StrReplaceAll(merges, {{"\n", "\r\n"}}));
  const auto after = ClipTokenizer::Load(dir_.path()).value();
  EXPECT_EQ(after->Encode("the cat's café"), before->Encode("the cat's café"));
}

TEST_F(ClipTokenizerTest, NamesAMissingFile) {
  for (const char* file :
       {"special_tokens_map.json", "tokenizer_config.json", "merges.txt", "vocab.json"}) {
    std::filesystem::remove(dir_ / file);
    EXPECT_EQ(Load().code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(std::string(Load().message()), HasSubstr(dir_ / file));
  }
}

TEST_F(ClipTokenizerTest, RefusesAVocabularyThatIsNoMapToNumbers) {
  dir_.Write("vocab.json", "[1, 2");
  EXPECT_THAT(LoadError(), HasSubstr(dir_ / "vocab.json: not a JSON object"));
  dir_.Write("vocab.json", R"({"a": 0, "b": "one"})");
  EXPECT_THAT(LoadError(), HasSubstr(dir_ / "vocab.json: b is \"one\", expected a token's number"));
}

TEST_F(ClipTokenizerTest, NamesTheLineOfAMergeThatIsNoPair) {
  dir_.Write("merges.txt", "#version: 0.2\na b\n\nc d e\n");
  EXPECT_THAT(LoadError(), HasSubstr(dir_ / "merges.txt:4: expected two pieces"));
  dir_.Write("merges.txt", "#version: 0.2\na \n");
  EXPECT_THAT(LoadError(), HasSubstr(dir_ / "merges.txt:2: expected two pieces"));
}

TEST_F(ClipTokenizerTest, RefusesMergesWithoutTheirFirstLine) {
  dir_.Write("merges.txt", "a b\nc d\n");
  EXPECT_THAT(LoadError(), HasSubstr(dir_ / "merges.txt:1: expected a line `#version: …`"));
}

TEST_F(ClipTokenizerTest, NamesASpecialTokenThatTheVocabularyLacks) {
  dir_.SetJson("special_tokens_map.json", "pad_token", "<pad>");
  EXPECT_THAT(LoadError(), HasSubstr("vocab.json: pad_token `<pad>` is not in the vocabulary"));
}

TEST_F(ClipTokenizerTest, RefusesAnotherTokenizersFolder) {
  dir_.SetJson("tokenizer_config.json", "tokenizer_class", "T5Tokenizer");
  EXPECT_THAT(LoadError(),
              AllOf(HasSubstr("tokenizer_config.json: tokenizer_class is \"T5Tokenizer\""),
                    HasSubstr("\"CLIPTokenizer\"")));
}

TEST_F(ClipTokenizerTest, RefusesALengthThatLeavesNoPlaceOrIsNone) {
  dir_.SetJson("tokenizer_config.json", "model_max_length", 1);
  EXPECT_THAT(LoadError(), HasSubstr("model_max_length is 1, expected a whole number in 2"));
  // What transformers writes for a tokenizer that knows no length.
  dir_.SetJson("tokenizer_config.json", "model_max_length", 1e30);
  EXPECT_THAT(LoadError(), HasSubstr("model_max_length is 1e+30"));
}

TEST_F(ClipTokenizerTest, RefusesAddedTokensThatItWouldReadOtherwise) {
  const auto set = [&](const nlohmann::json& token) {
    dir_.ChangeJson("tokenizer_config.json", [&](nlohmann::json& config) {
      config["added_tokens_decoder"] = {{"700", token}};
    });
  };
  set({{"content", "<x>"}, {"single_word", true}});
  EXPECT_THAT(LoadError(),
              AllOf(HasSubstr("added_tokens_decoder: 700 is"), HasSubstr("single_word false")));
  set({{"single_word", false}});
  EXPECT_THAT(LoadError(), HasSubstr("a content"));
  set({{"content", "<x>"}});
  EXPECT_TRUE(Load().ok()) << Load();
}

}  // namespace
}  // namespace ddpo
