#include "common/nn/llama_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/base/files.h"
#include "common/nn/sentencepiece_model.h"
#include "ddpo/models/v1/sentencepiece.pb.h"
#include "tests/testing/copied_folder.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::ddpo::testing::CopiedFolder;
using ::ddpo::testing::SourcePath;
using ::testing::AllOf;
using ::testing::HasSubstr;

using File = models::v1::SentencePieceFile;
using Ids = std::vector<int64_t>;

std::string TokenizerDir(const std::string& name) {
  return SourcePath("tests/goldens/llava/tokenizers/" + name);
}

std::string Refusal(const std::string& dir) {
  return std::string(LlamaTokenizer::Load(dir).status().message());
}

class LlamaTokenizerGoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  const nlohmann::json golden_ =
      nlohmann::json::parse(ReadFile(TokenizerDir(GetParam()) + ".json").value());
  const std::unique_ptr<LlamaTokenizer> tokenizer_ =
      LlamaTokenizer::Load(TokenizerDir(GetParam())).value();
};
INSTANTIATE_TEST_SUITE_P(Vocabularies, LlamaTokenizerGoldenTest,
                         ::testing::Values("sentencepiece_like", "byte_level", "metaspace",
                                           "model_file", "model_file_legacy",
                                           "model_file_no_prefix"),
                         [](const auto& test) { return test.param; });

TEST_P(LlamaTokenizerGoldenTest, GivesTransformersTokens) {
  ASSERT_GT(golden_["encoded"].size(), 60u);
  for (const nlohmann::json& row : golden_["encoded"]) {
    EXPECT_EQ(tokenizer_->Encode(row["text"], true), row["input_ids"].get<Ids>()) << row["text"];
    EXPECT_EQ(tokenizer_->Encode(row["text"], false), row["bare"].get<Ids>()) << row["text"];
  }
}

TEST_P(LlamaTokenizerGoldenTest, GivesTransformersTexts) {
  ASSERT_GT(golden_["decoded"].size(), 100u);
  for (const nlohmann::json& row : golden_["decoded"]) {
    EXPECT_EQ(tokenizer_->Decode(row["input_ids"].get<Ids>()), row["text"]) << row["input_ids"];
  }
}

TEST_P(LlamaTokenizerGoldenTest, SkipsNumbersThatAreNoTokens) {
  const Ids ids = tokenizer_->Encode("a bear", false);
  Ids with_others = ids;
  with_others.insert(with_others.end(), {-1, 100000, int64_t{1} << 40});
  EXPECT_EQ(tokenizer_->Decode(with_others), tokenizer_->Decode(ids));
}

TEST_P(LlamaTokenizerGoldenTest, TakesDamagedUtf8) {
  EXPECT_FALSE(tokenizer_->Encode("a \xff\xc3( \xe2\x96", false).empty());
}

TEST(LlamaTokenizerTest, SaysWhatIsMissing) {
  const CopiedFolder dir(TokenizerDir("model_file"));
  std::filesystem::remove(dir / "tokenizer.model");
  EXPECT_EQ(LlamaTokenizer::Load(dir.path()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Refusal(dir.path()),
              AllOf(HasSubstr(dir.path()), HasSubstr("tokenizer.json or tokenizer.model")));
  dir.Write("tokenizer.model", "\x0a\xff not a model");
  EXPECT_THAT(Refusal(dir.path()),
              AllOf(HasSubstr(dir / "tokenizer.model"), HasSubstr("not a SentencePiece model")));
}

TEST(LlamaTokenizerTest, RefusesStepsThatItDoesNotKnow) {
  const auto refusal = [](const char* key, const nlohmann::json& value) {
    const CopiedFolder dir(TokenizerDir("byte_level"));
    dir.SetJson("tokenizer.json", key, value);
    EXPECT_THAT(Refusal(dir.path()), HasSubstr(dir / "tokenizer.json"));
    return Refusal(dir.path());
  };
  EXPECT_THAT(refusal("model", {{"type", "Unigram"}}), HasSubstr("Unigram"));
  EXPECT_THAT(refusal("normalizer", {{"type", "Nmt"}}), HasSubstr("Nmt"));
  EXPECT_THAT(refusal("pre_tokenizer", {{"type", "CharDelimiterSplit"}}),
              HasSubstr("CharDelimiterSplit"));
  EXPECT_THAT(refusal("decoder", {{"type", "CTC"}}), HasSubstr("CTC"));
  EXPECT_THAT(refusal("post_processor", {{"type", "BertProcessing"}}), HasSubstr("BertProcessing"));
  EXPECT_THAT(refusal("added_tokens", {{{"content", "<x>"}}}), HasSubstr("id is missing"));
  EXPECT_THAT(refusal("model", {{"type", "BPE"}, {"vocab", {{"a", 0}}}, {"merges", {"a b"}}}),
              HasSubstr("`a` and `b`"));
}

// A small vocabulary: the characters of "ab ", their unions, and one that a user defined.
File SmallModel() {
  File file;
  const auto add = [&file](const std::string& text, float score, File::Piece::Type type) {
    File::Piece* piece = file.add_pieces();
    piece->set_piece(text);
    piece->set_score(score);
    piece->set_type(type);
  };
  add("<unk>", 0, File::Piece::UNKNOWN);
  add("<s>", 0, File::Piece::CONTROL);
  add("▁", -1, File::Piece::NORMAL);
  add("a", -2, File::Piece::NORMAL);
  add("b", -3, File::Piece::NORMAL);
  add("ab", -4, File::Piece::NORMAL);
  add("▁a", -5, File::Piece::NORMAL);
  add("#b", -6, File::Piece::USER_DEFINED);
  file.mutable_trainer_spec()->set_model_type(File::TrainerSpec::BPE);
  return file;
}

std::unique_ptr<SentencePieceModel> Parse(const File& file) {
  return SentencePieceModel::Parse(file.SerializeAsString(), true).value();
}

using Pieces = std::vector<std::string>;

TEST(SentencePieceModelTest, JoinsTheBestPiecesFirst) {
  const auto model = Parse(SmallModel());
  EXPECT_EQ(model->Encode("ab a"), (Pieces{"▁", "ab", "▁a"}));
  EXPECT_EQ(model->Encode(""), Pieces{});
}

TEST(SentencePieceModelTest, RemovesExtraSpacesUnlessTheModelKeepsThem) {
  File file = SmallModel();
  EXPECT_EQ(Parse(file)->Encode("  b   b "), (Pieces{"▁", "b", "▁", "b"}));
  EXPECT_EQ(Parse(file)->Encode("   "), Pieces{});
  file.mutable_normalizer_spec()->set_remove_extra_whitespaces(false);
  EXPECT_EQ(Parse(file)->Encode(" b "), (Pieces{"▁", "▁", "b", "▁"}));
}

TEST(SentencePieceModelTest, WhatIsUnknownInARowIsOnePiece) {
  const auto model = Parse(SmallModel());
  EXPECT_EQ(model->Encode("axyb"), (Pieces{"▁a", "xy", "b"}));
  EXPECT_EQ(model->Id("xy"), model->unknown_id());
  EXPECT_EQ(model->Decode({"▁a", "xy", "<unk>", "<s>", "b"}), "axy ⁇ b");
}

TEST(SentencePieceModelTest, AUserDefinedPieceIsNeverCutOrJoined) {
  const auto model = Parse(SmallModel());
  EXPECT_EQ(model->Encode("a#bb"), (Pieces{"▁a", "#b", "b"}));
}

TEST(SentencePieceModelTest, RefusesWhatItWouldGetWrong) {
  const auto refusal = [](const File& file) {
    return std::string(
        SentencePieceModel::Parse(file.SerializeAsString(), true).status().message());
  };
  File file = SmallModel();
  file.mutable_trainer_spec()->set_model_type(File::TrainerSpec::UNIGRAM);
  EXPECT_THAT(refusal(file), AllOf(HasSubstr("UNIGRAM"), HasSubstr("expected BPE")));
  file = SmallModel();
  file.mutable_normalizer_spec()->set_name("nmt_nfkc");
  file.mutable_normalizer_spec()->set_precompiled_charsmap("table");
  EXPECT_THAT(refusal(file), HasSubstr("nmt_nfkc"));
  file = SmallModel();
  file.mutable_trainer_spec()->set_treat_whitespace_as_suffix(true);
  EXPECT_THAT(refusal(file), HasSubstr("after words"));
  file = SmallModel();
  file.mutable_trainer_spec()->set_byte_fallback(true);
  EXPECT_THAT(refusal(file), HasSubstr("<0x00>"));
  file = SmallModel();
  file.mutable_pieces(3)->set_piece("b");
  EXPECT_THAT(refusal(file), HasSubstr("`b` occurs twice"));
  file = SmallModel();
  file.mutable_pieces(0)->set_type(File::Piece::NORMAL);
  EXPECT_THAT(refusal(file), HasSubstr("unknown"));
  file = SmallModel();
  file.mutable_pieces(3)->set_type(File::Piece::BYTE);
  EXPECT_THAT(refusal(file), AllOf(HasSubstr("piece 3"), HasSubstr("<0xFF>")));
  EXPECT_THAT(refusal(File()), HasSubstr("not a SentencePiece model"));
}

}  // namespace
}  // namespace ddpo
