#include "common/nn/sentence_encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/testing/copied_folder.h"
#include "tests/testing/golden_fixture.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::ddpo::testing::BadKey;
using ::ddpo::testing::CopiedFolder;
using ::ddpo::testing::GoldenFixture;
using ::ddpo::testing::MaxAbsDiff;
using ::ddpo::testing::ReadGoldenFixture;
using ::ddpo::testing::Refuses;
using ::ddpo::testing::SourcePath;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Two float32 computations in different orders, on hidden states of size 1 to 4.
constexpr double kTolerance = 2e-6;
constexpr char kWeights[] = "model.safetensors";

std::string ModelDir(const std::string& name) { return SourcePath("tests/goldens/bert/" + name); }

std::string Refusal(const CopiedFolder& dir, int64_t layer = 1) {
  return std::string(LoadSentenceEncoder(dir.path(), layer, {}).status().message());
}

class SentenceEncoderGoldenTest : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Shapes, SentenceEncoderGoldenTest,
                         ::testing::Values("bert", "bert_cased", "roberta", "deberta",
                                           "deberta_absolute"),
                         [](const auto& test) { return test.param; });

TEST_P(SentenceEncoderGoldenTest, GivesTransformersHiddenStatesOfEveryLayer) {
  const GoldenFixture golden = ReadGoldenFixture("bert/" + GetParam() + ".safetensors");
  const at::Tensor is_token = golden.in.at("is_token");
  for (size_t layer = 0; layer < golden.out.size(); ++layer) {
    const auto encoder = LoadSentenceEncoder(ModelDir(GetParam()), static_cast<int64_t>(layer), {});
    ASSERT_TRUE(encoder.ok()) << encoder.status();
    const at::Tensor hidden = (*encoder)->Forward(golden.in.at("input_ids"), is_token);
    const at::Tensor expected = golden.out.at(absl::StrCat("hidden_states.", layer));
    EXPECT_LT(MaxAbsDiff(hidden * is_token.unsqueeze(2), expected), kTolerance) << layer;
  }
}

TEST_P(SentenceEncoderGoldenTest, ReadsWhatEveryNumberTypeHolds) {
  const GoldenFixture golden = ReadGoldenFixture("bert/" + GetParam() + ".safetensors");
  const at::Tensor is_token = golden.in.at("is_token").unsqueeze(2);
  const auto encoder = LoadSentenceEncoder(ModelDir(GetParam()), 1, {.dtype = at::kBFloat16});
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  const at::Tensor hidden =
      (*encoder)->Forward(golden.in.at("input_ids"), golden.in.at("is_token"));
  EXPECT_EQ(hidden.scalar_type(), at::kFloat);
  // bfloat16 has 8 bits, and a layer some ten roundings.
  EXPECT_LT(MaxAbsDiff(hidden * is_token, golden.out.at("hidden_states.1")), 0.1);
}

TEST(SentenceEncoderTest, LoadsWithAndWithoutThePrefixOfAModelWithAHead) {
  const GoldenFixture golden = ReadGoldenFixture("bert/bert.safetensors");
  const CopiedFolder dir(ModelDir("bert"));
  dir.ChangeTensors(kWeights, [](NamedTensors& tensors) {
    NamedTensors bare;
    for (const auto& [key, tensor] : tensors) {
      if (key.starts_with("bert.")) bare[key.substr(5)] = tensor;
    }
    tensors = bare;
  });
  const auto encoder = LoadSentenceEncoder(dir.path(), 2, {});
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  const at::Tensor is_token = golden.in.at("is_token");
  EXPECT_LT(
      MaxAbsDiff((*encoder)->Forward(golden.in.at("input_ids"), is_token) * is_token.unsqueeze(2),
                 golden.out.at("hidden_states.2")),
      kTolerance);
}

TEST(SentenceEncoderTest, RefusesAModelOfAnotherFamily) {
  const CopiedFolder dir(ModelDir("bert"));
  dir.SetJson("config.json", "model_type", "t5");
  EXPECT_THAT(Refusal(dir),
              AllOf(HasSubstr(dir / "config.json"), HasSubstr("\"t5\""), HasSubstr("\"deberta\"")));
  dir.ChangeJson("config.json", [](nlohmann::json& json) { json.erase("model_type"); });
  EXPECT_THAT(Refusal(dir), HasSubstr("model_type is missing"));
  // BERT's configuration over RoBERTa's weights.
  const CopiedFolder other(ModelDir("roberta"));
  other.SetJson("config.json", "model_type", "bert");
  EXPECT_THAT(Refusal(other),
              AllOf(HasSubstr(other.path()), HasSubstr("embeddings."), HasSubstr("is missing")));
}

TEST(SentenceEncoderTest, SaysWhichFileIsMissing) {
  const CopiedFolder dir(ModelDir("bert"));
  std::filesystem::remove(dir / kWeights);
  EXPECT_EQ(LoadSentenceEncoder(dir.path(), 1, {}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Refusal(dir), HasSubstr(dir.path()));
  std::filesystem::remove(dir / "config.json");
  EXPECT_THAT(Refusal(dir), HasSubstr(dir / "config.json"));
}

TEST(SentenceEncoderTest, RefusesMissingMisshapenAndSurplusTensors) {
  const CopiedFolder dir(ModelDir("bert_cased"));
  const std::string key = "encoder.layer.0.attention.self.query.weight";
  dir.ChangeTensors(kWeights, [&](NamedTensors& tensors) {
    tensors[key] = tensors[key].narrow(0, 0, 5).contiguous();
  });
  EXPECT_THAT(Refusal(dir), AllOf(HasSubstr(dir / kWeights), HasSubstr(key), HasSubstr("[5,36]"),
                                  HasSubstr("[36,36]")));
  dir.ChangeTensors(kWeights, [&](NamedTensors& tensors) { tensors.erase(key); });
  EXPECT_THAT(Refusal(dir), AllOf(HasSubstr(key), HasSubstr("is missing")));
  const CopiedFolder surplus(ModelDir("bert_cased"));
  surplus.ChangeTensors(
      kWeights, [](NamedTensors& tensors) { tensors["encoder.adapter.weight"] = at::zeros({2}); });
  EXPECT_THAT(Refusal(surplus), HasSubstr("encoder.adapter.weight"));
}

TEST(SentenceEncoderTest, RefusesALayerThatTheEncoderDoesNotHave) {
  const CopiedFolder dir(ModelDir("bert"));
  EXPECT_THAT(Refusal(dir, 4), AllOf(HasSubstr("num_hidden_layers is 3"), HasSubstr("4")));
  EXPECT_THAT(Refusal(dir, -1), HasSubstr("num_hidden_layers"));
}

TEST(SentenceEncoderTest, RefusesConfigurationsOfOtherComputations) {
  const std::vector<std::pair<std::string, BadKey>> bad_keys = {
      {"bert", {"hidden_act", "mish", "gelu"}},
      {"bert", {"position_embedding_type", "relative_key", "absolute"}},
      {"bert", {"is_decoder", true, "false"}},
      {"bert", {"num_attention_heads", 5, "divides hidden_size (32)"}},
      {"bert", {"hidden_size", -3, "a whole number"}},
      {"bert", {"layer_norm_eps", "small", "a number"}},
      {"roberta", {"max_position_embeddings", 3, "more than pad_token_id"}},
      {"deberta", {"pos_att_type", "c2p|x2y", "c2p, p2c, or both"}},
      {"deberta", {"pos_att_type", 3, "c2p, p2c, or both"}},
      {"deberta", {"talking_head", true, "false"}},
      {"deberta", {"relative_attention", "yes", "true or false"}}};
  for (const auto& [model, bad] : bad_keys) {
    const CopiedFolder dir(ModelDir(model));
    dir.SetJson("config.json", bad.key, bad.value);
    EXPECT_THAT(Refusal(dir), Refuses(dir, bad)) << bad.key;
  }
}

}  // namespace
}  // namespace ddpo
