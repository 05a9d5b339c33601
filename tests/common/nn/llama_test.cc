#include "common/nn/llama.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/nn/json_config.h"
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
using ::ddpo::testing::SourcePath;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Two float32 computations in different orders, on hidden states up to 4 and logits up to 20.
constexpr double kTolerance = 2e-5;

struct Shape {
  std::string name;
  std::string prefix;
  std::string head;
};
void PrintTo(const Shape& shape, std::ostream* os) { *os << shape.name; }

std::string ModelDir(const std::string& name) { return SourcePath("tests/goldens/llava/" + name); }

LlamaConfig ReadConfig(const std::string& dir) {
  return ReadLlamaConfig(
             JsonConfig::Read(dir + "/config.json").value().Object("text_config").value())
      .value();
}

class LlamaGoldenTest : public ::testing::TestWithParam<Shape> {
 protected:
  LlamaGoldenTest() {
    const std::string dir = ModelDir(GetParam().name);
    WeightLoader loader = WeightLoader::Open(dir, {}).value();
    llama_ = Llama::Load(loader, ReadConfig(dir), GetParam().prefix, GetParam().head).value();
  }

  LlamaCache Cache(int64_t batch, int64_t capacity) const {
    LlamaCache cache;
    cache.batch = batch;
    cache.capacity = capacity;
    return cache;
  }

  const GoldenFixture golden_ =
      ReadGoldenFixture("llava/" + GetParam().name + "_llama.safetensors");
  const at::Tensor ids_ = golden_.in.at("input_ids");
  const at::Tensor is_token_ = golden_.in.at("is_token");
  std::optional<Llama> llama_;
};
// Grouped queries and their own head; the embeddings as the head and stretched positions.
INSTANTIATE_TEST_SUITE_P(Shapes, LlamaGoldenTest,
                         ::testing::Values(Shape{"sentencepiece", "language_model.model.",
                                                 "language_model.lm_head.weight"},
                                           Shape{"tied", "model.language_model.",
                                                 "lm_head.weight"}),
                         [](const auto& test) { return test.param.name; });

TEST_P(LlamaGoldenTest, GivesTransformersHiddenStatesAndLogits) {
  LlamaCache cache = Cache(ids_.size(0), ids_.size(1));
  const at::Tensor hidden = llama_->Forward(llama_->Embed(ids_), is_token_, &cache);
  const at::Tensor mask = is_token_.unsqueeze(2);
  EXPECT_LT(MaxAbsDiff(hidden * mask, golden_.out.at("last_hidden_state")), kTolerance);
  EXPECT_LT(MaxAbsDiff(llama_->Logits(hidden) * mask, golden_.out.at("logits")), kTolerance);
}

TEST_P(LlamaGoldenTest, TheCacheChangesNothing) {
  // In one go, token by token, and in two stretches.
  for (const int64_t stretch : {1, 7}) {
    LlamaCache cache = Cache(ids_.size(0), ids_.size(1));
    std::vector<at::Tensor> parts;
    for (int64_t at = 0; at < ids_.size(1); at += stretch) {
      const int64_t length = std::min(stretch, ids_.size(1) - at);
      parts.push_back(llama_->Forward(llama_->Embed(ids_.narrow(1, at, length)),
                                      is_token_.narrow(1, at, length), &cache));
    }
    EXPECT_EQ(cache.length, ids_.size(1));
    EXPECT_LT(
        MaxAbsDiff(at::cat(parts, 1) * is_token_.unsqueeze(2), golden_.out.at("last_hidden_state")),
        kTolerance)
        << stretch;
  }
}

TEST_P(LlamaGoldenTest, ARowAloneWithoutPaddingGivesTheSame) {
  for (int64_t row = 0; row < ids_.size(0); ++row) {
    const int64_t size = is_token_[row].sum().item<int64_t>(), first = ids_.size(1) - size;
    LlamaCache cache = Cache(1, size);
    const at::Tensor ids = ids_.narrow(0, row, 1).narrow(1, first, size);
    const at::Tensor hidden =
        llama_->Forward(llama_->Embed(ids), at::ones({1, size}, at::kBool), &cache);
    EXPECT_LT(
        MaxAbsDiff(hidden[0], golden_.out.at("last_hidden_state")[row].narrow(0, first, size)),
        kTolerance)
        << row;
  }
}

TEST_P(LlamaGoldenTest, RefusesMoreTokensThanTheCacheHoldsAndOthersThanItKnows) {
  LlamaCache cache = Cache(ids_.size(0), ids_.size(1) - 1);
  EXPECT_THROW(llama_->Forward(llama_->Embed(ids_), is_token_, &cache), c10::Error);
  EXPECT_THROW(llama_->Embed(at::full({1, 1}, llama_->config().vocabulary, at::kLong)), c10::Error);
}

TEST(LlamaConfigTest, RefusesConfigurationsOfOtherComputations) {
  const BadKey bad_keys[] = {
      {"model_type", "mistral", "\"llama\""},
      {"hidden_act", "gelu", "\"silu\""},
      {"num_key_value_heads", 3, "a number that divides 4"},
      {"head_dim", 5, "an even number"},
      {"rope_theta", -1, "above 0"},
      {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}}, "\"llama3\""},
      {"rope_scaling", {{"rope_type", "linear"}, {"factor", 0}}, "above 0"},
      {"num_hidden_layers", 0, "a whole number"},
      {"attention_bias", "no", "true or false"}};
  for (const BadKey& bad : bad_keys) {
    nlohmann::json json = {{"num_attention_heads", 4}, {"hidden_size", 32}};
    json[bad.key] = bad.value;
    const auto config = ReadLlamaConfig(JsonConfig::Of("a/config.json", json));
    EXPECT_THAT(std::string(config.status().message()),
                AllOf(HasSubstr("a/config.json"), HasSubstr(bad.expected)))
        << bad.key;
  }
}

TEST(LlamaConfigTest, ReadsThePositionsOfTransformersFiveToo) {
  const auto frequencies = [](const nlohmann::json& json) {
    return ReadLlamaConfig(JsonConfig::Of("config.json", json)).value().inverse_frequencies;
  };
  const nlohmann::json old_way = {{"rope_theta", 5000.0},
                                  {"rope_scaling", {{"type", "linear"}, {"factor", 4.0}}}};
  const nlohmann::json new_way = {
      {"rope_parameters", {{"rope_theta", 5000.0}, {"rope_type", "linear"}, {"factor", 4.0}}}};
  EXPECT_TRUE(at::equal(frequencies(old_way), frequencies(new_way)));
}

}  // namespace
}  // namespace ddpo
