// `ddpo parity` as a person runs it, on fixtures that Python made (tests/goldens/).

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/tensors/safetensors.h"
#include "tests/testing/temp_dir.h"
#include "tests/tools/run_ddpo.h"

namespace ddpo {
namespace {

using ::ddpo::testing::CommandResult;
using ::ddpo::testing::RunDdpo;
using ::ddpo::testing::SourcePath;
using ::ddpo::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

const char kModel[] = "tests/goldens/pipelines/tiny";

std::string Golden(const std::string& name) { return SourcePath("tests/goldens/parity/" + name); }

CommandResult Parity(const std::string& fixture, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {"parity", "--model", SourcePath(kModel), "--fixture",
                                        fixture};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return RunDdpo(arguments);
}

class ParityOfFixture : public ::testing::TestWithParam<std::string> {};

TEST_P(ParityOfFixture, AgreesWithPython) {
  const CommandResult result = Parity(SourcePath("tests/goldens/" + GetParam()));
  EXPECT_EQ(result.exit_code, 0) << result.output;
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, ParityOfFixture,
    ::testing::Values("parity/tokenize.safetensors", "parity/text_encoder.safetensors",
                      "parity/unet.safetensors", "parity/unet_lora.safetensors",
                      "parity/vae_decode.safetensors", "parity/vae_encode.safetensors",
                      "parity/ddim_step_00.safetensors", "parity/ddim_step_25.safetensors",
                      "parity/ddim_step_49.safetensors", "parity/jpeg_size_75.safetensors",
                      "parity/jpeg_size_95.safetensors",
                      "pipelines/tiny_fixtures/denoise.safetensors",
                      "pipelines/tiny_fixtures/denoise_lora.safetensors",
                      "pipelines/tiny_fixtures/policy_gradient_step_ddpo_is.safetensors",
                      "pipelines/tiny_fixtures/policy_gradient_step_ddpo_is_whole.safetensors",
                      "pipelines/tiny_fixtures/policy_gradient_step_ddpo_sf.safetensors",
                      "pipelines/tiny_fixtures/policy_gradient_step_ddpo_sf_whole.safetensors",
                      "pipelines/tiny_fixtures/ddpo_epoch_trl.safetensors",
                      "pipelines/tiny_fixtures/rwr_step_dense.safetensors",
                      "pipelines/tiny_fixtures/rwr_step_sparse.safetensors"));

struct TransformersCase {
  std::string model;
  std::string fixture;
};
void PrintTo(const TransformersCase& test, std::ostream* os) { *os << test.fixture; }

class ParityOfTransformersFolder : public ::testing::TestWithParam<TransformersCase> {};

TEST_P(ParityOfTransformersFolder, AgreesWithPython) {
  const CommandResult result =
      RunDdpo({"parity", "--model", SourcePath("tests/goldens/" + GetParam().model), "--fixture",
               SourcePath("tests/goldens/" + GetParam().fixture), "--atol", "1e-5", "--rtol", "0"});
  EXPECT_EQ(result.exit_code, 0) << result.output;
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, ParityOfTransformersFolder,
    ::testing::Values(TransformersCase{"bert/bert", "bert/bert_tokenize.safetensors"},
                      TransformersCase{"bert/roberta", "bert/roberta_bertscore.safetensors"},
                      TransformersCase{"bert/deberta",
                                       "bert/deberta_bertscore_rescaled.safetensors"},
                      TransformersCase{"llava/tied", "llava/tied_tokenize.safetensors"},
                      TransformersCase{"llava/tied", "llava/tied_llava.safetensors"},
                      TransformersCase{"clip_vision/both_towers",
                                       "clip_vision/both_towers_clip_image_83x41.safetensors"}));

// A copy in `dir` of the fixture, with one number of one expected tensor changed by `delta`.
std::string Damaged(const TempDir& dir, const std::string& name, const std::string& tensor,
                    double delta) {
  SafetensorsContents contents = ReadSafetensors(Golden(name)).value();
  at::Tensor changed = contents.tensors.at(tensor).clone();
  changed.view(-1)[3].add_(at::scalar_tensor(delta).to(changed.scalar_type()));
  contents.tensors[tensor] = changed;
  const std::string path = dir / "damaged.safetensors";
  EXPECT_TRUE(WriteSafetensors(path, contents.tensors, contents.metadata).ok());
  return path;
}

TEST(Parity, SaysWhichTensorDiffersAndByHowMuch) {
  const TempDir dir;
  const CommandResult result =
      Parity(Damaged(dir, "unet.safetensors", "out.sample", 0.5), {"--json"});
  EXPECT_EQ(result.exit_code, 1);
  const nlohmann::json report = nlohmann::json::parse(result.output);
  EXPECT_EQ(report[0]["kind"], "unet");
  EXPECT_EQ(report[0]["matches"], false);
  EXPECT_EQ(report[0]["tensors"][0]["name"], "sample");
  // 0.5 was added; the network itself differs by less than 1e-4.
  EXPECT_NEAR(report[0]["tensors"][0]["max_absolute"].get<double>(), 0.5, 1e-4);
}

TEST(Parity, HoldsIntegersToEquality) {
  const TempDir dir;
  EXPECT_EQ(
      Parity(Damaged(dir, "tokenize.safetensors", "out.input_ids", 1), {"--atol", "10"}).exit_code,
      1);
}

TEST(Parity, TakesTheToleranceThatItIsGiven) {
  const TempDir dir;
  const std::string fixture = Damaged(dir, "unet.safetensors", "out.sample", 0.01);
  EXPECT_EQ(Parity(fixture).exit_code, 1);
  EXPECT_EQ(Parity(fixture, {"--atol", "0.02"}).exit_code, 0);
}

TEST(Parity, ComparesOnlyTheTensorsThatAreAskedFor) {
  const TempDir dir;
  const std::string damaged = Damaged(dir, "vae_encode.safetensors", "out.mean", 0.5);
  EXPECT_EQ(Parity(damaged, {"--only", "mean"}).exit_code, 1);
  EXPECT_EQ(Parity(damaged, {"--only", "logvar"}).exit_code, 0);
  EXPECT_EQ(Parity(damaged, {"--only", "log*"}).exit_code, 0);
  EXPECT_EQ(Parity(damaged, {"--only", "log*", "--only", "me*"}).exit_code, 1);
  EXPECT_EQ(Parity(damaged, {"--only", "median"}).exit_code, 2);
}

TEST(Parity, RefusesAFileThatIsNoFixture) {
  const TempDir dir;
  const std::string path = dir / "plain.safetensors";
  ASSERT_TRUE(WriteSafetensors(path, {{"weight", at::zeros({2})}}).ok());
  const CommandResult result = Parity(path);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, AllOf(HasSubstr(path), HasSubstr("`kind`")));
}

TEST(Parity, RefusesAnUnknownKindAndNamesTheKnownOnes) {
  const TempDir dir;
  const std::string path = dir / "unknown.safetensors";
  ASSERT_TRUE(
      WriteSafetensors(path, {{"out.x", at::zeros({2})}}, {{"kind", "sorcery"}, {"params", "{}"}})
          .ok());
  const CommandResult result = Parity(path);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, AllOf(HasSubstr("sorcery"), HasSubstr("vae_decode")));
}

TEST(Parity, RefusesAFixtureWithoutAnInputThatItsKindNeeds) {
  SafetensorsContents contents = ReadSafetensors(Golden("unet.safetensors")).value();
  contents.tensors.erase("in.timestep");
  const TempDir dir;
  const std::string path = dir / "incomplete.safetensors";
  ASSERT_TRUE(WriteSafetensors(path, contents.tensors, contents.metadata).ok());
  const CommandResult result = Parity(path);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, HasSubstr("needs the tensor in.timestep"));
}

TEST(Parity, RefusesAMissingFixtureAndAMissingModel) {
  EXPECT_EQ(Parity("/nowhere/x.safetensors").exit_code, 2);
  const CommandResult result =
      RunDdpo({"parity", "--model", "/nowhere/model", "--fixture", Golden("unet.safetensors")});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, HasSubstr("/nowhere/model"));
}

TEST(Parity, ReportsAFixtureWhoseShapesTheModelCanNotTake) {
  SafetensorsContents contents = ReadSafetensors(Golden("unet.safetensors")).value();
  contents.tensors["in.sample"] = at::zeros({3, 7, 4, 4});
  const TempDir dir;
  const std::string path = dir / "odd.safetensors";
  ASSERT_TRUE(WriteSafetensors(path, contents.tensors, contents.metadata).ok());
  const CommandResult result = Parity(path);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, HasSubstr(path));
}

}  // namespace
}  // namespace ddpo
