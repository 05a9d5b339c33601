// `ddpo reward` and a real reward server.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/files.h"
#include "common/base/subprocess.h"
#include "common/tensors/jpeg.h"
#include "common/tensors/png.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_certificates.h"
#include "tests/tools/run_ddpo.h"

namespace ddpo {
namespace {

using ::testing::AllOf;
using testing::CommandResult;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::RunDdpo;

class RewardCommandTest : public ::testing::Test {
 protected:
  void StartServer(std::vector<std::string> flags = {}) {
    std::vector<std::string> argv = {testing::ProgramPath("ddpo-reward-server"),
                                     "--listen",
                                     "127.0.0.1:0",
                                     "--scorers",
                                     "jpeg_compressibility,jpeg_incompressibility",
                                     "--address-file",
                                     dir_ / "address"};
    argv.insert(argv.end(), flags.begin(), flags.end());
    auto process = Subprocess::Start({.argv = argv, .log_file = dir_ / "server.log"});
    ASSERT_TRUE(process.ok()) << process.status();
    server_ = *std::move(process);
    while (!std::filesystem::exists(dir_ / "address")) {
      ASSERT_FALSE(server_->Poll().has_value()) << *ReadFile(dir_ / "server.log");
      std::this_thread::yield();
    }
    address_ = std::string(absl::StripAsciiWhitespace(*ReadFile(dir_ / "address")));
  }
  void StartServerWithJobs() { StartServer({"--jobs-database", dir_ / "jobs.db"}); }

  // `ddpo reward SUBCOMMAND … --server ADDRESS`.
  CommandResult Reward(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "reward");
    arguments.insert(arguments.end(), {"--server", address_});
    return RunDdpo(arguments);
  }
  // A JPEG in the folder `images`; the next one has more in it. Returns what it scores as JPEG.
  double WriteImage(const std::string& name, int size) {
    std::filesystem::create_directories(dir_ / "images");
    Image image{size, size, {}};
    for (int i = 0; i < size * size * 3; ++i) {
      image.rgb.push_back(static_cast<uint8_t>((i * 2654435761u >> 13) % (i / size + 1)));
    }
    const std::vector<uint8_t> bytes = *EncodePng(image);
    EXPECT_TRUE(WriteFileAtomically(
                    dir_ / ("images/" + name),
                    absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()))
                    .ok());
    return static_cast<double>(EncodeJpeg(image, 95)->size()) / 1000;
  }
  std::string ImagePath(const std::string& name) { return dir_ / ("images/" + name); }
  // Submits the folder and returns the job's name.
  std::string SubmitImages() {
    const CommandResult result =
        Reward({"submit", dir_ / "images", "--scorer", "jpeg_incompressibility"});
    EXPECT_EQ(result.exit_code, 0) << result.output;
    for (const absl::string_view line : absl::StrSplit(result.output, '\n')) {
      if (absl::StartsWith(line, "jobs/")) return std::string(line);
    }
    return "";
  }

  testing::TempDir dir_;
  std::unique_ptr<Subprocess> server_;
  std::string address_;
};

TEST_F(RewardCommandTest, ListsTheScorers) {
  StartServer();
  const CommandResult table = Reward({"models"});
  EXPECT_EQ(table.exit_code, 0) << table.output;
  EXPECT_THAT(table.output,
              AllOf(HasSubstr("NAME"), HasSubstr("jpeg_compressibility    jpeg_size")));
  const auto json = nlohmann::json::parse(Reward({"models", "--json"}).output);
  ASSERT_EQ(json.size(), 2u);
  EXPECT_EQ(json[1]["name"], "jpeg_incompressibility");
  EXPECT_EQ(json[1]["needs_prompt"], false);
}

TEST_F(RewardCommandTest, ScoresFilesAndFolders) {
  StartServer();
  const double small = WriteImage("a.png", 16);
  const double large = WriteImage("b.png", 64);
  ASSERT_TRUE(WriteFileAtomically(ImagePath("notes.txt"), "not an image").ok());
  const CommandResult result = Reward({"score", ImagePath("b.png"), dir_ / "images", "--scorer",
                                       "jpeg_incompressibility", "--json"});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  const auto results = nlohmann::json::parse(result.output)["results"];
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[0]["value"], large);
  EXPECT_EQ(results[1]["item_id"], ImagePath("a.png"));
  EXPECT_EQ(results[1]["value"], small);
  EXPECT_EQ(results[2]["value"], large);
  EXPECT_THAT(Reward({"score", ImagePath("a.png"), "--scorer", "jpeg_incompressibility"}).output,
              AllOf(HasSubstr("IMAGE"), HasSubstr("bytes=")));
}

TEST_F(RewardCommandTest, AnImageThatCanNotBeDecodedIsAnErrorAndNoScore) {
  StartServer();
  WriteImage("good.png", 16);
  const std::string png = *ReadFile(ImagePath("good.png"));
  ASSERT_TRUE(WriteFileAtomically(ImagePath("cut.png"), png.substr(0, png.size() / 2)).ok());
  const CommandResult result =
      Reward({"score", dir_ / "images", "--scorer", "jpeg_compressibility", "--csv"});
  EXPECT_EQ(result.exit_code, 2) << result.output;
  const std::vector<std::string> lines = absl::StrSplit(result.output, "\r\n");
  EXPECT_THAT(lines[0], HasSubstr("item_id,value,error,text,bytes"));
  EXPECT_THAT(lines[1], HasSubstr("cut.png,,"));
  EXPECT_THAT(lines[1], HasSubstr("IMAGE_DECODE_FAILED"));
  EXPECT_THAT(lines[2], HasSubstr("good.png,-"));
}

TEST_F(RewardCommandTest, SaysWhatIsWrongWithTheArguments) {
  StartServer();
  WriteImage("a.png", 16);
  ASSERT_TRUE(WriteFileAtomically(dir_ / "notes.txt", "not an image").ok());
  ASSERT_TRUE(WriteFileAtomically(dir_ / "prompts", "a cat\na dog\n").ok());
  ASSERT_TRUE(WriteFileAtomically(dir_ / "named", "b.png\ta dog\n").ok());
  std::filesystem::create_directory(dir_ / "empty");
  const std::string scorer = "jpeg_compressibility";
  ASSERT_TRUE(WriteFileAtomically(ImagePath("empty.png"), "").ok());
  const std::pair<std::vector<std::string>, std::string> cases[] = {
      {{"score", ImagePath("a.png"), "--scorer", "beauty"},
       "no scorer is called beauty; the reward server " + address_ + " has jpeg_compressibility"},
      {{"score", dir_ / "absent.png", "--scorer", scorer}, "there is no " + (dir_ / "absent.png")},
      {{"score", dir_ / "notes.txt", "--scorer", scorer}, "notes.txt is neither a JPEG nor a PNG"},
      {{"score", ImagePath("empty.png"), "--scorer", scorer}, "empty.png is neither"},
      {{"score", dir_ / "empty", "--scorer", scorer}, "holds no .jpg, .jpeg or .png file"},
      {{"score", ImagePath("a.png"), "--scorer", scorer, "--prompts", dir_ / "prompts"},
       "holds 2 prompts for 1 images"},
      {{"score", ImagePath("a.png"), "--scorer", scorer, "--prompts", dir_ / "named"},
       "holds no prompt for a.png"},
      {{"score", ImagePath("a.png"), "--scorer", scorer, "--prompts", dir_ / "absent"},
       dir_ / "absent"},
      {{"submit", ImagePath("a.png"), "--scorer", scorer},
       "it takes jobs only with --jobs-database"},
  };
  for (const auto& [arguments, message] : cases) {
    const CommandResult result = Reward(arguments);
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.output, AllOf(HasSubstr("ddpo reward: "), HasSubstr(message)));
  }
}

TEST_F(RewardCommandTest, AServerThatIsNotThereIsNamed) {
  address_ = "127.0.0.1:1";
  const CommandResult result = Reward({"models"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, AllOf(HasSubstr("reward server 127.0.0.1:1"),
                                   HasSubstr("is the server running there? see --server")));
}

TEST_F(RewardCommandTest, AJobIsSubmittedAwaitedListedAndRead) {
  StartServerWithJobs();
  double last = 0;
  for (int i = 0; i < 70; ++i) last = WriteImage(absl::StrCat(100 + i, ".png"), 16 + i);
  const std::string job = SubmitImages();
  ASSERT_NE(job, "");
  const CommandResult waited = Reward({"wait", job});
  EXPECT_EQ(waited.exit_code, 0) << waited.output;
  EXPECT_THAT(waited.output, HasSubstr(job + " succeeded 70/70"));
  EXPECT_THAT(Reward({"list"}).output,
              HasSubstr(job + "  succeeded  jpeg_incompressibility  70/70"));
  const auto list = nlohmann::json::parse(Reward({"list", "--json"}).output);
  EXPECT_EQ(list[0]["items_succeeded"], 70);
  // The name without its first part will do.
  const auto results = nlohmann::json::parse(
      Reward({"results", job.substr(std::string("jobs/").size()), "--json"}).output);
  ASSERT_EQ(results["results"].size(), 70u);
  EXPECT_EQ(results["results"][69]["item_id"], ImagePath("169.png"));
  EXPECT_EQ(results["results"][69]["value"], last);
}

TEST_F(RewardCommandTest, AJobWithoutAnyScoreSaysSoEverywhere) {
  StartServerWithJobs();
  WriteImage("cut.png", 32);
  const std::string png = *ReadFile(ImagePath("cut.png"));
  ASSERT_TRUE(WriteFileAtomically(ImagePath("cut.png"), png.substr(0, png.size() / 2)).ok());
  const std::string job = SubmitImages();
  const CommandResult waited = Reward({"wait", job});
  EXPECT_EQ(waited.exit_code, 2);
  EXPECT_THAT(waited.output, AllOf(HasSubstr("failed 1/1, 1 failed"), HasSubstr("no item has")));
  const CommandResult results = Reward({"results", job});
  EXPECT_EQ(results.exit_code, 2);
  EXPECT_THAT(results.output, AllOf(HasSubstr("IMAGE_DECODE_FAILED"),
                                    HasSubstr(job + " is failed: 1 of 1 images have results")));
  EXPECT_THAT(Reward({"list"}).output, HasSubstr("ALL_ITEMS_FAILED"));
}

TEST_F(RewardCommandTest, TheSameRequestIsTheSameJob) {
  StartServerWithJobs();
  WriteImage("a.png", 16);
  const std::vector<std::string> submit = {
      "submit", ImagePath("a.png"), "--scorer", "jpeg_compressibility", "--request-id", "once"};
  EXPECT_EQ(Reward(submit).output, Reward(submit).output);
  WriteImage("a.png", 17);
  const CommandResult other = Reward(submit);
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_THAT(other.output, HasSubstr("request_id 'once' was used for jobs/"));
}

TEST_F(RewardCommandTest, AnUnknownJobIsNamed) {
  StartServerWithJobs();
  for (const char* command : {"wait", "results", "cancel"}) {
    const CommandResult result = Reward({command, "nothing"});
    EXPECT_EQ(result.exit_code, 1) << command;
    EXPECT_THAT(result.output, HasSubstr("jobs/nothing")) << command;
  }
}

TEST_F(RewardCommandTest, CancelLeavesAJobThatHasEndedAsItIs) {
  StartServerWithJobs();
  WriteImage("a.png", 16);
  const std::string job = SubmitImages();
  EXPECT_EQ(Reward({"wait", job}).exit_code, 0);
  const CommandResult cancelled = Reward({"cancel", job});
  EXPECT_EQ(cancelled.exit_code, 0) << cancelled.output;
  EXPECT_THAT(cancelled.output, HasSubstr("succeeded"));
}

TEST_F(RewardCommandTest, SpeaksMutualTlsAndShowsItsToken) {
  testing::TestAuthority authority(dir_.path(), "ca");
  authority.Issue("server");
  authority.Issue("client");
  ASSERT_TRUE(WriteFileAtomically(dir_ / "token", "0123456789abcdef\n").ok());
  StartServer({"--tls-cert", dir_ / "server.crt", "--tls-key", dir_ / "server.key",
               "--tls-client-ca", authority.file(), "--tokens-file", dir_ / "token"});
  std::vector<std::string> arguments = {"models"};
  EXPECT_THAT(Reward(arguments).output, HasSubstr("speaks TLS, this client plain text"));
  arguments.insert(arguments.end(), {"--tls-ca", authority.file()});
  EXPECT_THAT(Reward(arguments).output, HasSubstr("it may ask for a client's certificate"));
  arguments.insert(arguments.end(),
                   {"--tls-cert", dir_ / "client.crt", "--tls-key", dir_ / "client.key"});
  EXPECT_THAT(Reward(arguments).output, AllOf(HasSubstr("this server needs a bearer token"),
                                              HasSubstr("give the token with --token-file")));
  arguments.insert(arguments.end(), {"--token-file", dir_ / "token"});
  const CommandResult result = Reward(arguments);
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("jpeg_compressibility"));
  ASSERT_TRUE(WriteFileAtomically(dir_ / "wrong", "0123456789abcdeg\n").ok());
  arguments.back() = dir_ / "wrong";
  EXPECT_THAT(Reward(arguments).output, HasSubstr("give the token with --token-file"));
}

}  // namespace
}  // namespace ddpo
