#include "common/nn/llava.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "common/base/files.h"
#include "tests/testing/copied_folder.h"
#include "tests/testing/golden_fixture.h"
#include "tests/testing/image_tensor.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::ddpo::testing::BadKey;
using ::ddpo::testing::CopiedFolder;
using ::ddpo::testing::GoldenFixture;
using ::ddpo::testing::ImagesOf;
using ::ddpo::testing::ReadGoldenFixture;
using ::ddpo::testing::Refuses;
using ::ddpo::testing::SourcePath;
using ::testing::AllOf;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

using Ids = std::vector<int64_t>;

constexpr char kWeights[] = "model.safetensors";

std::string ModelDir(const std::string& name) { return SourcePath("tests/goldens/llava/" + name); }

std::unique_ptr<Llava> Load(const std::string& dir, const LlavaOptions& options = {}) {
  absl::StatusOr<std::unique_ptr<Llava>> llava = Llava::Load(dir, options);
  EXPECT_TRUE(llava.ok()) << llava.status();
  return llava.ok() ? *std::move(llava) : nullptr;
}

std::string Refusal(const CopiedFolder& dir) {
  return std::string(Llava::Load(dir.path(), {}).status().message());
}

// Questions about pictures, and what transformers answers.
class GoldenReplies {
 public:
  explicit GoldenReplies(const std::string& model)
      : golden_(ReadGoldenFixture("llava/" + model + "_llava.safetensors")),
        images_(ImagesOf(golden_.in.at("images"))),
        texts_(golden_.params.at("questions").get<std::vector<std::string>>()) {
    for (size_t i = 0; i < texts_.size(); ++i) {
      questions_.push_back({&images_[i], texts_[i], golden_.params.at("max_new_tokens")});
      const at::Tensor ids = golden_.out.at("token_ids")[static_cast<int64_t>(i)];
      const at::Tensor said = ids.masked_select(ids.ge(0));
      replies_.emplace_back(said.const_data_ptr<int64_t>(),
                            said.const_data_ptr<int64_t>() + said.numel());
    }
  }

  const std::vector<LlavaQuestion>& questions() const { return questions_; }
  const std::vector<Ids>& replies() const { return replies_; }

 private:
  const GoldenFixture golden_;
  const std::vector<Image> images_;
  const std::vector<std::string> texts_;
  std::vector<LlavaQuestion> questions_;
  std::vector<Ids> replies_;
};

std::vector<Ids> Answer(const Llava& llava, absl::Span<const LlavaQuestion> questions) {
  std::vector<Ids> replies;
  for (const absl::StatusOr<LlavaReply>& reply : llava.Answer(questions)) {
    EXPECT_TRUE(reply.ok()) << reply.status();
    replies.push_back(reply.ok() ? reply->token_ids : Ids{});
  }
  return replies;
}

class LlavaGoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  const GoldenReplies golden_{GetParam()};
};
// sentencepiece: keys of transformers before 4.52, a class token less, grouped queries, fp16.
// tied: keys since 4.52, several layers with their class token, bf16.
INSTANTIATE_TEST_SUITE_P(Shapes, LlavaGoldenTest, ::testing::Values("sentencepiece", "tied"),
                         [](const auto& test) { return test.param; });

TEST_P(LlavaGoldenTest, RepliesAsTransformersTokenForToken) {
  EXPECT_EQ(Answer(*Load(ModelDir(GetParam())), golden_.questions()), golden_.replies());
}

TEST_P(LlavaGoldenTest, QuestionsOfOneBatchDoNotDisturbEachOther) {
  // Of different lengths, so padded on the left.
  LlavaOptions one_by_one;
  one_by_one.max_batch_size = 1;
  EXPECT_EQ(Answer(*Load(ModelDir(GetParam()), one_by_one), golden_.questions()),
            golden_.replies());
  LlavaOptions in_parts;
  in_parts.max_batch_size = 3;
  EXPECT_EQ(Answer(*Load(ModelDir(GetParam()), in_parts), golden_.questions()), golden_.replies());
}

TEST_P(LlavaGoldenTest, EachQuestionEndsAtItsOwnLength) {
  std::vector<LlavaQuestion> questions = golden_.questions();
  std::vector<Ids> expected = golden_.replies();
  for (size_t i = 0; i < questions.size(); ++i) {
    questions[i].max_new_tokens = static_cast<int>(1 + 2 * i);
    expected[i].resize(std::min(expected[i].size(), 1 + 2 * i));
  }
  EXPECT_EQ(Answer(*Load(ModelDir(GetParam())), questions), expected);
}

TEST_P(LlavaGoldenTest, ReadsShards) {
  const CopiedFolder dir(ModelDir(GetParam()));
  dir.Shard(kWeights);
  EXPECT_EQ(Answer(*Load(dir.path()), golden_.questions()), golden_.replies());
}

TEST_P(LlavaGoldenTest, ReadsTheOtherKeysOfTransformers) {
  const CopiedFolder dir(ModelDir(GetParam()));
  dir.ChangeTensors(kWeights, [](NamedTensors& tensors) {
    const std::vector<std::pair<std::string, std::string>> old_and_new = {
        {"language_model.lm_head.", "lm_head."},
        {"language_model.model.", "model.language_model."},
        {"vision_tower.", "model.vision_tower."},
        {"multi_modal_projector.", "model.multi_modal_projector."}};
    const bool is_old = tensors.begin()->first.starts_with("language_model.");
    NamedTensors renamed;
    for (const auto& [key, tensor] : tensors) {
      for (const auto& [old_prefix, new_prefix] : old_and_new) {
        const std::string& from = is_old ? old_prefix : new_prefix;
        if (key.starts_with(from)) {
          renamed[(is_old ? new_prefix : old_prefix) + key.substr(from.size())] = tensor;
        }
      }
    }
    ASSERT_EQ(renamed.size(), tensors.size());
    tensors = renamed;
  });
  EXPECT_EQ(Answer(*Load(dir.path()), golden_.questions()), golden_.replies());
}

TEST_P(LlavaGoldenTest, ComputesInSixteenBits) {
  for (const char* dtype : {"float16", "bfloat16"}) {
    LlavaOptions options;
    options.dtype = dtype;
    const auto llava = Load(ModelDir(GetParam()), options);
    // Rounding may choose another token, but not fail.
    for (const auto& reply : llava->Answer(golden_.questions())) {
      ASSERT_TRUE(reply.ok()) << reply.status();
      EXPECT_FALSE(reply->token_ids.empty());
    }
    EXPECT_NE(llava->digest(), Load(ModelDir(GetParam()))->digest());
  }
}

TEST(LlavaTest, TheTextIsOfTheTokensWithoutSpecialOnes) {
  const GoldenReplies golden("sentencepiece");
  const auto llava = Load(ModelDir("sentencepiece"));
  for (const auto& reply : llava->Answer(golden.questions())) {
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_THAT(reply->text, ::testing::Not(HasSubstr("</s>")));
  }
}

TEST(LlavaTest, AQuestionThatCannotBeAnsweredDoesNotDisturbTheOthers) {
  const GoldenReplies golden("tied");
  std::vector<LlavaQuestion> questions = golden.questions();
  const Image nothing;
  questions[0].image = &nothing;
  questions[1].text = "an <image>?";
  questions[2].max_new_tokens = 0;
  const auto replies = Load(ModelDir("tied"))->Answer(questions);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(replies[i].status().code(), absl::StatusCode::kInvalidArgument) << i;
  }
  EXPECT_THAT(std::string(replies[1].status().message()), HasSubstr("<image> once"));
  ASSERT_TRUE(replies[3].ok()) << replies[3].status();
  EXPECT_EQ(replies[3]->token_ids, golden.replies()[3]);
  EXPECT_TRUE(Load(ModelDir("tied"))->Answer({}).empty());
}

TEST(LlavaTest, RefusesAModelOfAnotherFamilyAndMissingFiles) {
  const CopiedFolder dir(ModelDir("tied"));
  dir.SetJson("config.json", "model_type", "qwen2_vl");
  EXPECT_THAT(Refusal(dir), AllOf(HasSubstr(dir / "config.json"), HasSubstr("qwen2_vl")));
  for (const char* file : {kWeights, "config.json", "preprocessor_config.json", "tokenizer.json"}) {
    const CopiedFolder incomplete(ModelDir("tied"));
    std::filesystem::remove(incomplete / file);
    const absl::Status status = Llava::Load(incomplete.path(), {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << file << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(incomplete.path())) << file;
  }
}

TEST(LlavaTest, RefusesMissingMisshapenAndSurplusTensors) {
  const std::string key = "model.multi_modal_projector.linear_1.weight";
  const CopiedFolder dir(ModelDir("tied"));
  dir.ChangeTensors(kWeights, [&](NamedTensors& tensors) {
    tensors[key] = tensors[key].narrow(1, 0, 7).contiguous();
  });
  EXPECT_THAT(Refusal(dir), AllOf(HasSubstr(dir / kWeights), HasSubstr(key), HasSubstr("[40,7]"),
                                  HasSubstr("[40,72]")));
  dir.ChangeTensors(kWeights, [&](NamedTensors& tensors) { tensors.erase(key); });
  EXPECT_THAT(Refusal(dir), AllOf(HasSubstr(key), HasSubstr("is missing")));
  const CopiedFolder surplus(ModelDir("tied"));
  surplus.ChangeTensors(
      kWeights, [](NamedTensors& tensors) { tensors["model.image_newline"] = at::zeros({2}); });
  EXPECT_THAT(Refusal(surplus), HasSubstr("model.image_newline"));
  const CopiedFolder other(ModelDir("tied"));
  other.ChangeTensors(kWeights, [](NamedTensors& tensors) {
    tensors = {{"transformer.wte.weight", at::zeros({2, 2})}};
  });
  EXPECT_THAT(Refusal(other), HasSubstr("language_model.model."));
}

TEST(LlavaTest, RefusesConfigurationsOfOtherComputations) {
  const BadKey bad_keys[] = {{"vision_feature_select_strategy", "cls", "\"full\""},
                             {"vision_feature_layer", 7, "-4 … 3"},
                             {"vision_feature_layer", "last", "a number"},
                             {"projector_hidden_act", "relu", "gelu_pytorch_tanh"},
                             {"image_token_index", 5, "the number of the tokenizer's <image>"},
                             {"image_token_index", 1 << 19, "a whole number"}};
  for (const BadKey& bad : bad_keys) {
    const CopiedFolder dir(ModelDir("tied"));
    dir.SetJson("config.json", bad.key, bad.value);
    EXPECT_THAT(Refusal(dir), Refuses(dir, bad)) << bad.key;
  }
  const CopiedFolder crop(ModelDir("tied"));
  crop.SetJson("preprocessor_config.json", "crop_size", 19);
  EXPECT_THAT(Refusal(crop), AllOf(HasSubstr(crop / "preprocessor_config.json"),
                                   HasSubstr("19 × 19"), HasSubstr("20")));
  const CopiedFolder chat(ModelDir("tied"));
  chat.Write("chat_template.jinja", "{{ raise_exception('never') }}");
  EXPECT_THAT(Refusal(chat), AllOf(HasSubstr(chat / "chat_template.jinja"), HasSubstr("never")));
}

TEST(LlavaTest, TakesTheEndTokensOfTheGenerationConfigFirst) {
  const GoldenReplies golden("tied");
  const CopiedFolder dir(ModelDir("tied"));
  // Ends at the first token that it says.
  dir.SetJson("generation_config.json", "eos_token_id", golden.replies()[0][0]);
  EXPECT_THAT(Answer(*Load(dir.path()), {golden.questions()[0]})[0],
              ElementsAreArray({golden.replies()[0][0]}));
  dir.SetJson("generation_config.json", "eos_token_id", "end");
  EXPECT_THAT(Refusal(dir), AllOf(HasSubstr(dir / "generation_config.json"), HasSubstr("end")));
}

TEST(LlavaTest, RefusesToLeaveOutWhatTheGenerationConfigAsksOfTheLogits) {
  const BadKey bad_keys[] = {{"repetition_penalty", 1.2, "1.0"},
                             {"no_repeat_ngram_size", 3, "0"},
                             {"suppress_tokens", {7}, "null"}};
  for (const BadKey& bad : bad_keys) {
    const CopiedFolder dir(ModelDir("tied"));
    dir.SetJson("generation_config.json", bad.key, bad.value);
    EXPECT_THAT(Refusal(dir), AllOf(HasSubstr(dir / "generation_config.json"), HasSubstr(bad.key),
                                    HasSubstr(bad.expected)));
  }
}

TEST(LlavaTest, HasAnotherDigestForOtherWeightsTemplatesAndPixels) {
  const CopiedFolder dir(ModelDir("tied"));
  const std::string digest = Load(dir.path())->digest();
  EXPECT_EQ(digest, Load(ModelDir("tied"))->digest()) << "of another place";
  dir.Write("chat_template.jinja", "<image>{{ messages[0].content[1].text }}");
  const std::string asked_otherwise = Load(dir.path())->digest();
  EXPECT_NE(asked_otherwise, digest);
  dir.SetJson("preprocessor_config.json", "image_mean", 0.5);
  EXPECT_NE(Load(dir.path())->digest(), asked_otherwise);
}

}  // namespace
}  // namespace ddpo
