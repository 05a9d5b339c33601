#include "common/nn/bert_score.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/nn/bert_score_layers.h"
#include "tests/testing/copied_folder.h"
#include "tests/testing/golden_fixture.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::ddpo::testing::CopiedFolder;
using ::ddpo::testing::GoldenFixture;
using ::ddpo::testing::ReadGoldenFixture;
using ::ddpo::testing::SourcePath;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Two float32 computations in different orders, on numbers up to 1.
constexpr double kTolerance = 1e-6;

std::string ModelDir(const std::string& name) { return SourcePath("tests/goldens/bert/" + name); }

BertScorerOptions Options(const std::string& dir, int64_t layer) {
  BertScorerOptions options;
  options.encoder_dir = dir;
  options.layer = layer;
  return options;
}

std::string Refusal(const BertScorerOptions& options) {
  return std::string(BertScorer::Load(options).status().message());
}

void ExpectScores(const std::vector<BertScore>& scores, const GoldenFixture& golden) {
  const at::Tensor precision = golden.out.at("precision"), recall = golden.out.at("recall"),
                   f1 = golden.out.at("f1");
  ASSERT_EQ(static_cast<int64_t>(scores.size()), f1.size(0));
  for (size_t i = 0; i < scores.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    const std::string pair = golden.params.at("candidates")[i].dump();
    EXPECT_NEAR(scores[i].precision, precision[row].item<double>(), kTolerance) << pair;
    EXPECT_NEAR(scores[i].recall, recall[row].item<double>(), kTolerance) << pair;
    EXPECT_NEAR(scores[i].f1, f1[row].item<double>(), kTolerance) << pair;
  }
}

class BertScoreGoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  // Scores the pairs of the golden file of this name, which hold empty and overlong sentences.
  void Check(const std::string& name) const {
    const GoldenFixture golden =
        ReadGoldenFixture(absl::StrCat("bert/", GetParam(), "_", name, ".safetensors"));
    BertScorerOptions options = Options(ModelDir(GetParam()), golden.params.at("num_layers"));
    if (golden.params.contains("baseline")) {
      options.baseline_file =
          absl::StrCat(options.encoder_dir, "/", golden.params.at("baseline").get<std::string>());
    }
    const auto scorer = BertScorer::Load(options);
    ASSERT_TRUE(scorer.ok()) << scorer.status();
    EXPECT_EQ((*scorer)->is_rescaled(), !options.baseline_file.empty());
    const auto scores =
        (*scorer)->Score(golden.params.at("candidates").get<std::vector<std::string>>(),
                         golden.params.at("references").get<std::vector<std::string>>());
    ASSERT_TRUE(scores.ok()) << scores.status();
    ExpectScores(*scores, golden);
  }
};
INSTANTIATE_TEST_SUITE_P(Shapes, BertScoreGoldenTest,
                         ::testing::Values("bert", "bert_cased", "roberta", "deberta",
                                           "deberta_absolute"),
                         [](const auto& test) { return test.param; });

TEST_P(BertScoreGoldenTest, GivesBertScoresNumbers) { Check("bertscore"); }

TEST_P(BertScoreGoldenTest, RescalesWithABaseline) { Check("bertscore_rescaled"); }

TEST(BertScoreTest, EqualSentencesScoreOneAndEmptyOnesZero) {
  const auto scorer = BertScorer::Load(Options(ModelDir("bert"), 2)).value();
  const auto scores =
      scorer->Score({"a cat", "", "a cat", "", " \t"}, {"a cat", "a cat", "", "", "a cat"}).value();
  EXPECT_NEAR(scores[0].precision, 1, kTolerance);
  EXPECT_NEAR(scores[0].recall, 1, kTolerance);
  EXPECT_NEAR(scores[0].f1, 1, kTolerance);
  for (size_t i = 1; i < scores.size(); ++i) {
    EXPECT_EQ(scores[i].precision, 0) << i;
    EXPECT_EQ(scores[i].recall, 0) << i;
    EXPECT_EQ(scores[i].f1, 0) << i;
  }
  EXPECT_TRUE(scorer->Score({}, {}).value().empty());
}

TEST(BertScoreTest, CutsSentencesToTheEncodersPositions) {
  const CopiedFolder dir(ModelDir("roberta"));
  dir.ChangeJson("tokenizer_config.json",
                 [](nlohmann::json& json) { json.erase("model_max_length"); });
  const auto scorer = BertScorer::Load(Options(dir.path(), 3)).value();
  const std::string long_sentence(5000, 'a');
  const auto scores = scorer->Score({long_sentence}, {long_sentence});
  ASSERT_TRUE(scores.ok()) << scores.status();
  EXPECT_NEAR((*scores)[0].f1, 1, kTolerance);
}

TEST(BertScoreTest, ScoresMorePairsThanOneBatchHolds) {
  const auto scorer = BertScorer::Load(Options(ModelDir("deberta"), 1)).value();
  std::vector<std::string> candidates, references;
  for (int i = 0; i < 150; ++i) {
    candidates.push_back(absl::StrCat("a cat and ", i, " dogs"));
    references.push_back(absl::StrCat("a dog and ", 150 - i, " cats"));
  }
  const auto scores = scorer->Score(candidates, references).value();
  ASSERT_EQ(scores.size(), 150u);
  for (const size_t i : {0, 63, 64, 149}) {
    const BertScore alone = scorer->Score({candidates[i]}, {references[i]}).value()[0];
    EXPECT_NEAR(scores[i].f1, alone.f1, kTolerance) << i;
  }
}

TEST(BertScoreTest, RefusesWhatHasNoScore) {
  const auto scorer = BertScorer::Load(Options(ModelDir("bert"), 2)).value();
  EXPECT_THAT(std::string(scorer->Score({"a", "b"}, {"c"}).status().message()),
              AllOf(HasSubstr("2 candidates"), HasSubstr("1 references")));
  EXPECT_THAT(std::string(scorer->Score({"[SEP]"}, {"a cat"}).status().message()),
              AllOf(HasSubstr("`[SEP]`"), HasSubstr("not finite")));
}

TEST(BertScoreTest, TakesBertScoresLayerByTheModelsName) {
  EXPECT_EQ(BertScoreLayer("microsoft/deberta-xlarge-mnli"), 40);
  EXPECT_EQ(BertScoreLayer("/data/models/deberta-xlarge-mnli/"), 40);
  EXPECT_EQ(BertScoreLayer("roberta-large"), 17);
  EXPECT_EQ(BertScoreLayer("bert-base-uncased"), 9);
  EXPECT_EQ(BertScoreLayer("bert-base-uncased-of-mine"), std::nullopt);

  const CopiedFolder dir(ModelDir("bert"));
  BertScorerOptions options;
  options.encoder_dir = dir.path();
  EXPECT_THAT(Refusal(options), AllOf(HasSubstr(dir / "config.json"), HasSubstr("_name_or_path"),
                                      HasSubstr("bert_score.layer")));
  dir.SetJson("config.json", "_name_or_path", "google/bert_uncased_L-4_H-128_A-2");
  EXPECT_EQ(BertScorer::Load(options).value()->layer(), 3);
}

TEST(BertScoreTest, SaysWhatIsWrongInABaseline) {
  const CopiedFolder dir(ModelDir("bert"));
  BertScorerOptions options = Options(dir.path(), 2);
  options.baseline_file = dir / "mine.tsv";
  EXPECT_THAT(Refusal(options), HasSubstr(dir / "mine.tsv"));
  dir.Write("mine.tsv", "LAYER,P,R,F\n0,0.1,0.1,0.1\n");
  EXPECT_THAT(Refusal(options), AllOf(HasSubstr("mine.tsv"), HasSubstr("layer 2")));
  dir.Write("mine.tsv", "LAYER,P,R,F\n0,0,0,0\n1,0,0,0\n2,0.5,1.0,0.5\n");
  EXPECT_THAT(Refusal(options), AllOf(HasSubstr("mine.tsv:4"), HasSubstr("below 1")));
  dir.Write("mine.tsv", "layer;p;r;f\n");
  EXPECT_THAT(Refusal(options), AllOf(HasSubstr("mine.tsv:1"), HasSubstr("LAYER,P,R,F")));
}

TEST(BertScoreTest, RefusesATokenizerWithMoreTokensThanTheEncoder) {
  const CopiedFolder dir(ModelDir("bert"));
  std::string vocabulary = ReadFile(dir / "vocab.txt").value();
  for (int i = 0; i < 10; ++i) vocabulary += absl::StrCat("more", i, "\n");
  dir.Write("vocab.txt", vocabulary);
  EXPECT_THAT(Refusal(Options(dir.path(), 2)),
              AllOf(HasSubstr(dir / "config.json"), HasSubstr("vocab_size")));
}

TEST(BertScoreTest, HasAnotherDigestForAnotherLayerBaselineTypeAndVocabulary) {
  const CopiedFolder dir(ModelDir("bert"));
  const auto digest = [](const BertScorerOptions& options) {
    return BertScorer::Load(options).value()->digest();
  };
  const BertScorerOptions options = Options(dir.path(), 2);
  const std::string plain = digest(options);
  EXPECT_EQ(plain, digest(Options(ModelDir("bert"), 2))) << "of another place";
  EXPECT_NE(plain, digest(Options(dir.path(), 1)));
  BertScorerOptions rescaled = options, halved = options;
  rescaled.baseline_file = dir / "baseline.tsv";
  EXPECT_NE(plain, digest(rescaled));
  halved.dtype = "float16";
  EXPECT_NE(plain, digest(halved));
  dir.SetJson("tokenizer_config.json", "do_lower_case", false);
  EXPECT_NE(plain, digest(options));
}

}  // namespace
}  // namespace ddpo
