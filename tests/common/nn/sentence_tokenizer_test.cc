#include "common/nn/sentence_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/base/files.h"
#include "tests/testing/copied_folder.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::ddpo::testing::CopiedFolder;
using ::ddpo::testing::SourcePath;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr int64_t kAnyLength = 1 << 20;

struct Shape {
  std::string name;
  std::string model_type;
};
void PrintTo(const Shape& shape, std::ostream* os) { *os << shape.name; }

std::string ModelDir(const std::string& name) { return SourcePath("tests/goldens/bert/" + name); }

std::string Refusal(const CopiedFolder& dir, const std::string& model_type) {
  return std::string(SentenceTokenizer::Load(dir.path(), model_type).status().message());
}

class SentenceTokenizerGoldenTest : public ::testing::TestWithParam<Shape> {};
INSTANTIATE_TEST_SUITE_P(Shapes, SentenceTokenizerGoldenTest,
                         ::testing::Values(Shape{"bert", "bert"}, Shape{"bert_cased", "bert"},
                                           Shape{"roberta", "roberta"}, Shape{"deberta", "deberta"},
                                           Shape{"deberta_absolute", "deberta"}),
                         [](const auto& test) { return test.param.name; });

TEST_P(SentenceTokenizerGoldenTest, GivesBertScoresTokens) {
  const auto tokenizer = SentenceTokenizer::Load(ModelDir(GetParam().name), GetParam().model_type);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto rows = nlohmann::json::parse(
      ReadFile(SourcePath("tests/goldens/bert/" + GetParam().name + "_tokens.json")).value());
  ASSERT_GT(rows.size(), 60u);
  for (const nlohmann::json& row : rows) {
    EXPECT_EQ((*tokenizer)->Encode(row["text"], (*tokenizer)->max_length()),
              row["input_ids"].get<std::vector<int64_t>>())
        << row["text"];
  }
}

TEST_P(SentenceTokenizerGoldenTest, CutsWhatIsTooLongBeforeTheLastToken) {
  const auto tokenizer =
      SentenceTokenizer::Load(ModelDir(GetParam().name), GetParam().model_type).value();
  const std::vector<int64_t> whole = tokenizer->Encode("a bear playing chess", kAnyLength);
  ASSERT_GT(whole.size(), 4u);
  EXPECT_THAT(tokenizer->Encode("a bear playing chess", 4),
              ElementsAre(tokenizer->cls(), whole[1], whole[2], tokenizer->sep()));
  EXPECT_THAT(tokenizer->Encode(" \n", 4), ElementsAre(tokenizer->cls(), tokenizer->sep()));
}

TEST(SentenceTokenizerTest, TakesAnyLengthWhereTheFolderNamesNone) {
  const CopiedFolder dir(ModelDir("bert"));
  std::filesystem::remove(dir / "tokenizer_config.json");
  const auto tokenizer = SentenceTokenizer::Load(dir.path(), "bert");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_GT((*tokenizer)->max_length(), kAnyLength);
  EXPECT_THAT((*tokenizer)->Encode(std::string(3000, '?'), kAnyLength), SizeIs(3002));
}

TEST(SentenceTokenizerTest, DamagedUtf8IsLeftOutOrReplaced) {
  const auto tokenizer = SentenceTokenizer::Load(ModelDir("bert"), "bert").value();
  EXPECT_EQ(tokenizer->Encode("a b\xff\xc3 c", kAnyLength), tokenizer->Encode("a b c", kAnyLength));
}

TEST(SentenceTokenizerTest, SaysWhichFileIsMissingOrDamaged) {
  const CopiedFolder bert(ModelDir("bert"));
  std::filesystem::remove(bert / "vocab.txt");
  EXPECT_THAT(Refusal(bert, "bert"), HasSubstr(bert / "vocab.txt"));
  bert.Write("vocab.txt", "[CLS]\n[SEP]\n[PAD]\n[MASK]\na\n");
  EXPECT_THAT(Refusal(bert, "bert"), AllOf(HasSubstr(bert / "vocab.txt"), HasSubstr("[UNK]")));

  const CopiedFolder roberta(ModelDir("roberta"));
  std::filesystem::remove(roberta / "merges.txt");
  EXPECT_THAT(Refusal(roberta, "roberta"), HasSubstr(roberta / "merges.txt"));
  roberta.Write("merges.txt", "#version: 0.2\nq q\n");
  EXPECT_THAT(Refusal(roberta, "roberta"),
              AllOf(HasSubstr(roberta.path()), HasSubstr("`q` and `q`")));
  roberta.Write("vocab.json", R"({"a": "one"})");
  EXPECT_THAT(Refusal(roberta, "roberta"), AllOf(HasSubstr("vocab.json"), HasSubstr("\"one\"")));
}

TEST(SentenceTokenizerTest, RefusesOtherTokenizersAndOptions) {
  const CopiedFolder dir(ModelDir("bert"));
  dir.SetJson("tokenizer_config.json", "tokenizer_class", "T5Tokenizer");
  EXPECT_THAT(Refusal(dir, "bert"), AllOf(HasSubstr(dir / "tokenizer_config.json"),
                                          HasSubstr("T5Tokenizer"), HasSubstr("BertTokenizer")));
  const CopiedFolder basic(ModelDir("bert"));
  basic.SetJson("tokenizer_config.json", "do_basic_tokenize", false);
  EXPECT_THAT(Refusal(basic, "bert"), HasSubstr("do_basic_tokenize is false"));
  const CopiedFolder length(ModelDir("bert"));
  length.SetJson("tokenizer_config.json", "model_max_length", 2);
  EXPECT_THAT(Refusal(length, "bert"), HasSubstr("model_max_length is 2"));
}

}  // namespace
}  // namespace ddpo
