#include "common/nn/aesthetic_head.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "common/base/files.h"
#include "common/tensors/safetensors.h"
#include "tests/testing/golden_fixture.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_dir.h"

namespace ddpo {
namespace {

using ::ddpo::testing::SourcePath;
using ::ddpo::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kFeatures = 24;

std::string GoldenHead(const std::string& ending) {
  return SourcePath("tests/goldens/clip_vision/both_towers/aesthetic_head" + ending);
}

// The error for a head that `change` has damaged.
template <typename Change>
absl::Status ErrorOf(const TempDir& dir, Change change) {
  NamedTensors tensors = ReadSafetensors(GoldenHead(".safetensors")).value().tensors;
  change(tensors);
  EXPECT_TRUE(WriteSafetensors(dir / "head.safetensors", tensors).ok());
  return AestheticHead::Load(dir / "head.safetensors", kFeatures, at::kCPU).status();
}

TEST(AestheticHeadTest, ReadsSafetensorsAndTheOriginalsArchive) {
  const auto safetensors = AestheticHead::Load(GoldenHead(".safetensors"), kFeatures, at::kCPU);
  const auto archive = AestheticHead::Load(GoldenHead(".pth"), kFeatures, at::kCPU);
  ASSERT_TRUE(safetensors.ok()) << safetensors.status();
  ASSERT_TRUE(archive.ok()) << archive.status();
  const at::Tensor embeds = at::linspace(-1, 2, 3 * kFeatures).view({3, kFeatures});
  // The golden head's numbers lie on the archive's float16 grid.
  EXPECT_TRUE(at::equal(safetensors->Score(embeds), archive->Score(embeds)));
}

TEST(AestheticHeadTest, DoesNotMindTheLengthOfTheFeatures) {
  const auto head = AestheticHead::Load(GoldenHead(".safetensors"), kFeatures, at::kCPU);
  ASSERT_TRUE(head.ok()) << head.status();
  const at::Tensor embeds = at::linspace(-1, 2, 2 * kFeatures).view({2, kFeatures});
  // Of float32, whose division rounds.
  EXPECT_LT(testing::MaxAbsDiff(head->Score(embeds), head->Score(embeds * 100)), 1e-6);
}

TEST(AestheticHeadTest, RefusesAHeadForOtherFeatures) {
  EXPECT_THAT(
      std::string(AestheticHead::Load(GoldenHead(".pth"), 768, at::kCPU).status().message()),
      AllOf(HasSubstr("aesthetic_head.pth"), HasSubstr("layers.0.weight"), HasSubstr("[32,24]"),
            HasSubstr("[any,768]")));
}

TEST(AestheticHeadTest, NamesWhatIsMissingUnfitOrTooMuch) {
  const TempDir dir;
  EXPECT_THAT(
      std::string(ErrorOf(dir, [](NamedTensors& t) { t.erase("layers.4.bias"); }).message()),
      AllOf(HasSubstr(dir / "head.safetensors"), HasSubstr("layers.4.bias [8] is missing")));
  EXPECT_THAT(std::string(ErrorOf(dir,
                                  [](NamedTensors& t) {
                                    t["layers.4.weight"] = at::zeros({8, 15});
                                  })
                              .message()),
              AllOf(HasSubstr("layers.4.weight"), HasSubstr("[8,15]"), HasSubstr("[any,16]")));
  EXPECT_THAT(std::string(ErrorOf(dir,
                                  [](NamedTensors& t) {
                                    t["layers.7.weight"] = at::zeros({2, 4});
                                  })
                              .message()),
              AllOf(HasSubstr("layers.7.weight"), HasSubstr("[2,4]"), HasSubstr("[1,4]")));
  EXPECT_THAT(
      std::string(
          ErrorOf(dir, [](NamedTensors& t) { t["layers.6.bias"] = at::zeros({4}, at::kLong); })
              .message()),
      AllOf(HasSubstr("layers.6.bias"), HasSubstr("Long")));
  EXPECT_THAT(
      std::string(
          ErrorOf(dir, [](NamedTensors& t) { t["layers.8.bias"] = at::zeros({1}); }).message()),
      HasSubstr("layers.8.bias"));
}

TEST(AestheticHeadTest, RefusesWhatIsNoHead) {
  const TempDir dir;
  ASSERT_TRUE(WriteFileAtomically(dir / "empty", "").ok());
  EXPECT_FALSE(AestheticHead::Load(dir / "empty", kFeatures, at::kCPU).ok());
  // How torch.save began its files before 1.6.
  ASSERT_TRUE(WriteFileAtomically(dir / "old.pth", "\x80\x02\x8a\x0al\xfc\x9c").ok());
  EXPECT_THAT(
      std::string(AestheticHead::Load(dir / "old.pth", kFeatures, at::kCPU).status().message()),
      AllOf(HasSubstr("old.pth"), HasSubstr("before 1.6")));
  EXPECT_EQ(AestheticHead::Load(dir / "missing", kFeatures, at::kCPU).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace ddpo
