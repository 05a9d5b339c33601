#include "common/nn/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "common/base/files.h"
#include "tests/testing/temp_dir.h"

namespace ddpo {
namespace {

using ::ddpo::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kFile[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";

class WeightLoaderTest : public ::testing::Test {
 protected:
  void Write(const std::string& file, const NamedTensors& tensors) const {
    ASSERT_TRUE(WriteSafetensors(dir_ / file, tensors).ok());
  }

  // Two shards with a tensor each, and what `weight_map` says about them.
  void WriteShards(const std::string& weight_map) const {
    Write("one.safetensors", {{"a", at::ones({2, 3})}, {"unlisted", at::zeros({1})}});
    Write("two.safetensors", {{"b", at::full({4}, 2.0)}});
    ASSERT_TRUE(WriteFileAtomically(dir_ / kIndex, "{\"weight_map\":{" + weight_map + "}}").ok());
  }

  WeightLoader Open(const NetworkOptions& options = {}) const {
    auto loader = WeightLoader::Open(dir_.path(), options);
    EXPECT_TRUE(loader.ok()) << loader.status();
    return *std::move(loader);
  }

  absl::Status OpenError() const { return WeightLoader::Open(dir_.path(), {}).status(); }

  const TempDir dir_;
};

TEST_F(WeightLoaderTest, SaysWhichFilesAFolderWithoutWeightsLacks) {
  EXPECT_EQ(OpenError().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(OpenError().message()),
              AllOf(HasSubstr(dir_.path()), HasSubstr("diffusion_pytorch_model.safetensors"),
                    HasSubstr("model.safetensors")));
}

TEST_F(WeightLoaderTest, GathersShardsByTheirIndex) {
  WriteShards(R"("a": "one.safetensors", "b": "two.safetensors")");
  WeightLoader loader = Open();
  EXPECT_TRUE(loader.Take("a", {2, 3})->equal(at::ones({2, 3})));
  EXPECT_TRUE(loader.Take("b", {4})->equal(at::full({4}, 2.0)));
  EXPECT_FALSE(loader.Contains("unlisted"));
  EXPECT_TRUE(loader.CheckAllTaken().ok()) << loader.CheckAllTaken();
}

TEST_F(WeightLoaderTest, TheWholeFileGoesBeforeShards) {
  WriteShards(R"("a": "one.safetensors")");
  Write(kFile, {{"a", at::zeros({2, 3})}});
  EXPECT_TRUE(Open().Take("a", {2, 3})->equal(at::zeros({2, 3})));
}

TEST_F(WeightLoaderTest, NamesAMissingShard) {
  WriteShards(R"("a": "one.safetensors", "b": "two.safetensors")");
  std::filesystem::remove(dir_ / "two.safetensors");
  EXPECT_EQ(OpenError().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(OpenError().message()), HasSubstr(dir_ / "two.safetensors"));
}

TEST_F(WeightLoaderTest, NamesAKeyThatItsShardLacks) {
  WriteShards(R"("a": "one.safetensors", "b": "one.safetensors")");
  EXPECT_EQ(OpenError().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(OpenError().message()),
              AllOf(HasSubstr(dir_ / "one.safetensors"), HasSubstr("tensor b is missing"),
                    HasSubstr(dir_ / kIndex)));
}

TEST_F(WeightLoaderTest, RefusesAnIndexThatIsNone) {
  ASSERT_TRUE(WriteFileAtomically(dir_ / kIndex, R"({"weights": {}})").ok());
  EXPECT_THAT(std::string(OpenError().message()),
              AllOf(HasSubstr(dir_ / kIndex), HasSubstr("weight_map")));
  WriteShards(R"("a": 1)");
  EXPECT_THAT(std::string(OpenError().message()),
              AllOf(HasSubstr(dir_ / kIndex), HasSubstr("weight_map.a: expected a file name")));
}

TEST_F(WeightLoaderTest, ConvertsEveryFloatingPointTypeToTheOneAskedFor) {
  // Values that all of the types hold exactly.
  const at::Tensor values = at::tensor({-2.0, 0.5, 0.0, 1.25, 96.0});
  NamedTensors tensors;
  for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16}) {
    tensors[c10::toString(type)] = values.to(type);
  }
  Write(kFile, tensors);
  for (const at::ScalarType asked : {at::kFloat, at::kHalf, at::kBFloat16}) {
    WeightLoader loader = Open({.dtype = asked});
    for (const auto& [key, tensor] : tensors) {
      const auto taken = loader.Take(key, {5});
      ASSERT_TRUE(taken.ok()) << taken.status();
      EXPECT_EQ(taken->scalar_type(), asked) << key;
      EXPECT_TRUE(taken->to(at::kFloat).equal(values.to(at::kFloat))) << key;
    }
  }
}

TEST_F(WeightLoaderTest, RoundsToTheNearestNumberOfASmallerType) {
  Write(kFile, {{"x", at::tensor({1.0f + 0x1p-9f, 1.0f + 0x1.8p-8f, 1.0f / 3.0f})}});
  const at::Tensor taken = Open({.dtype = at::kBFloat16}).Take("x", {3})->to(at::kFloat);
  EXPECT_TRUE(taken.equal(at::tensor({1.0f, 1.0f + 0x1p-7f, 0.333984375f}))) << taken;
}

TEST_F(WeightLoaderTest, RefusesWholeNumbers) {
  Write(kFile, {{"x", at::zeros({2}, at::kInt)}});
  EXPECT_THAT(std::string(Open().Take("x", {2}).status().message()),
              AllOf(HasSubstr(dir_ / kFile), HasSubstr("tensor x has type Int"),
                    HasSubstr("expected floating-point numbers")));
}

TEST_F(WeightLoaderTest, NamesAMissingKeyWithTheShapeThatWasExpected) {
  Write(kFile, {{"x", at::zeros({2})}});
  const absl::Status status = Open().Take("y", {3, 4}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(dir_ / kFile), HasSubstr("tensor y [3,4] is missing")));
}

TEST_F(WeightLoaderTest, NamesBothShapes) {
  Write(kFile, {{"x", at::zeros({2, 3, 1, 1})}, {"scalar", at::zeros({})}});
  WeightLoader loader = Open();
  const absl::Status status = loader.Take("x", {2, 3}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(
      std::string(status.message()),
      AllOf(HasSubstr(dir_ / kFile), HasSubstr("tensor x has shape [2,3,1,1], expected [2,3]")));
  EXPECT_THAT(std::string(loader.Take("scalar", {1}).status().message()),
              HasSubstr("has shape [], expected [1]"));
}

TEST_F(WeightLoaderTest, ListsTheFirstFewKeysThatNothingTook) {
  NamedTensors tensors;
  for (const char* key : {"a", "b", "c", "d", "e", "f", "g", "taken", "known.bias", "known.x"}) {
    tensors[key] = at::zeros({1});
  }
  Write(kFile, tensors);
  WeightLoader loader = Open();
  EXPECT_TRUE(loader.ContainsPrefix("known."));
  EXPECT_FALSE(loader.ContainsPrefix("unknown"));
  loader.Ignore("known.");
  ASSERT_TRUE(loader.Take("taken", {1}).ok());
  EXPECT_THAT(std::string(loader.CheckAllTaken().message()),
              AllOf(HasSubstr(dir_ / kFile), HasSubstr("a, b, c, d, e and 2 more"),
                    Not(HasSubstr("known"))));
  for (const char* key : {"a", "b", "c", "d", "e", "f"}) ASSERT_TRUE(loader.Take(key, {1}).ok());
  EXPECT_THAT(std::string(loader.CheckAllTaken().message()),
              AllOf(HasSubstr("no place for: g"), Not(HasSubstr("more"))));
  ASSERT_TRUE(loader.Take("g", {1}).ok());
  EXPECT_TRUE(loader.CheckAllTaken().ok());
}

}  // namespace
}  // namespace ddpo
