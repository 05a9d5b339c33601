#include "common/diffusion/ddim_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/testing/paths.h"

namespace ddpo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class DdimConfigTest : public ::testing::Test {
 protected:
  DdimConfigTest()
      : path_(::testing::TempDir() + "ddim_config_" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name() + ".json") {}
  ~DdimConfigTest() override { std::filesystem::remove(path_); }

  absl::StatusOr<DdimConfig> Read(const std::string& json) {
    std::ofstream(path_) << json;
    return ReadDdimConfig(path_);
  }

  // The message for a DDIMScheduler with one more entry.
  std::string MessageFor(const std::string& entry) {
    const absl::StatusOr<DdimConfig> config =
        Read("{\"_class_name\": \"DDIMScheduler\", " + entry + "}");
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << entry;
    return std::string(config.status().message());
  }

  const std::string path_;
};

TEST_F(DdimConfigTest, AbsentKeysHaveDiffusersDefaults) {
  const DdimConfig config = Read("{\"_class_name\": \"DDIMScheduler\"}").value();
  EXPECT_EQ(config.num_train_timesteps, 1000);
  EXPECT_EQ(config.beta_schedule, "linear");
  EXPECT_EQ(config.beta_end, 0.02);
  EXPECT_TRUE(config.set_alpha_to_one);
  EXPECT_EQ(config.steps_offset, 0);
  EXPECT_EQ(config.timestep_spacing, "leading");
}

// Stable Diffusion 1.4 and 1.5 come with PNDMScheduler.
TEST_F(DdimConfigTest, ReadsTheSchedulerThatStableDiffusionComesWith) {
  const DdimConfig config = Read(R"({"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0",
               "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
               "num_train_timesteps": 1000, "set_alpha_to_one": false, "skip_prk_steps": true,
               "steps_offset": 1, "trained_betas": null, "clip_sample": false})")
                                .value();
  EXPECT_EQ(config.beta_schedule, "scaled_linear");
  EXPECT_EQ(config.beta_start, 0.00085);
  EXPECT_FALSE(config.set_alpha_to_one);
  EXPECT_EQ(config.steps_offset, 1);
}

TEST_F(DdimConfigTest, RefusesWhatItDoesNotComputeAndSaysWhere) {
  EXPECT_THAT(MessageFor("\"clip_sample\": true"),
              AllOf(HasSubstr(path_), HasSubstr("clip_sample is true, expected false")));
  EXPECT_THAT(MessageFor("\"thresholding\": true"), HasSubstr("thresholding is true"));
  EXPECT_THAT(MessageFor("\"rescale_betas_zero_snr\": true"),
              HasSubstr("rescale_betas_zero_snr is true, expected false"));
  EXPECT_THAT(MessageFor("\"trained_betas\": [0.1]"),
              HasSubstr("trained_betas is [0.1], expected null"));
  EXPECT_THAT(MessageFor("\"beta_schedule\": \"sigmoid\""),
              HasSubstr("beta_schedule is \"sigmoid\", expected one of linear, scaled_linear"));
  EXPECT_THAT(MessageFor("\"prediction_type\": \"flow\""), HasSubstr("prediction_type is"));
  EXPECT_THAT(MessageFor("\"timestep_spacing\": 3"), HasSubstr("timestep_spacing is 3"));
  EXPECT_THAT(MessageFor("\"num_train_timesteps\": 0"), HasSubstr("num_train_timesteps is 0"));
  EXPECT_THAT(MessageFor("\"beta_start\": \"x\""), HasSubstr("beta_start is \"x\""));
  EXPECT_THAT(MessageFor("\"steps_offset\": 1000"), HasSubstr("steps_offset is 1000"));
  EXPECT_THAT(MessageFor("\"set_alpha_to_one\": 1"), HasSubstr("set_alpha_to_one is 1"));
}

TEST_F(DdimConfigTest, RefusesOtherFamiliesOfSchedulers) {
  const auto config = Read("{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\"}");
  EXPECT_THAT(std::string(config.status().message()),
              HasSubstr("_class_name is \"FlowMatchEulerDiscreteScheduler\", expected one of"));
  EXPECT_THAT(std::string(Read("{}").status().message()), HasSubstr("_class_name is missing"));
}

TEST_F(DdimConfigTest, RefusesFilesThatAreMissingOrNotJson) {
  EXPECT_EQ(ReadDdimConfig(path_ + ".none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Read("{\"a\":").status().message()), HasSubstr("not a JSON object"));
}

}  // namespace
}  // namespace ddpo
