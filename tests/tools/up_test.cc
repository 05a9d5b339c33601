// `ddpo up` with real processes on a tiny random model: from the config to the report.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/testing/temp_dir.h"
#include "tests/tools/run_ddpo.h"

namespace ddpo {
namespace {

using ::ddpo::testing::CommandResult;
using ::ddpo::testing::ProgramPath;
using ::ddpo::testing::RunDdpo;
using ::ddpo::testing::SourcePath;
using ::ddpo::testing::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

std::string Contents(const std::string& path) { return ReadFile(path).value_or(""); }

int Lines(const std::string& text) {
  return static_cast<int>(std::count(text.begin(), text.end(), '\n'));
}

// Writes the config of a short run and returns its file.
std::string WriteConfig(const std::string& dir, int epochs) {
  const std::string path = dir + "/tiny.yaml";
  EXPECT_TRUE(WriteFileAtomically(
                  path, "model: " + SourcePath("tests/goldens/pipelines/tiny") +
                            "\nreward: jpeg_compressibility\nprompts: {list: [a cat, an ant]}\n"
                            "run: {name: tiny, epochs: " +
                            std::to_string(epochs) +
                            ", save_every: 2}\n"
                            "sampling: {num_steps: 2, batch_size: 2, samples_per_epoch: 4}\n"
                            "training: {minibatch_size: 2}\n"
                            "evaluation: {pairs: 4, grid_images: 4}\n")
                  .ok());
  return path;
}

TEST(Up, RunsAClusterFromItsConfigToTheReport) {
  const TempDir dir;
  const std::string run = dir / "run";
  const CommandResult result =
      RunDdpo({"up", "--config", WriteConfig(dir.path(), 3), "--run-dir", run});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output,
              AllOf(HasSubstr("epoch 3/3"), HasSubstr("p = "), HasSubstr(run + "/report.html")));
  EXPECT_EQ(Lines(Contents(run + "/metrics.jsonl")), 3);
  EXPECT_TRUE(std::filesystem::exists(run + "/lora/final.safetensors"));
  EXPECT_TRUE(std::filesystem::exists(run + "/samples/epoch_0000.png"));
  EXPECT_TRUE(std::filesystem::exists(run + "/samples/epoch_0003.png"));
  const nlohmann::json summary = nlohmann::json::parse(Contents(run + "/summary.json"));
  EXPECT_EQ(summary["n"], 4);
  for (const char* key : {"base_mean", "base_std", "mean_difference", "p"}) {
    EXPECT_TRUE(summary[key].is_number()) << key;
  }
  EXPECT_THAT(Contents(run + "/report.html"), HasSubstr("Before and after"));

  const std::string lora = Contents(run + "/lora/final.safetensors");
  const CommandResult exported = RunDdpo({"export", run, "--out", dir / "lora.safetensors"});
  EXPECT_EQ(exported.exit_code, 0) << exported.output;
  EXPECT_EQ(Contents(dir / "lora.safetensors"), lora);

  std::filesystem::remove(run + "/report.html");
  const CommandResult report = RunDdpo({"report", run});
  EXPECT_EQ(report.exit_code, 0) << report.output;
  EXPECT_EQ(nlohmann::json::parse(Contents(run + "/summary.json")), summary);
}

// The shapes of a safetensors file's tensors, by key.
std::map<std::string, nlohmann::json> Shapes(const std::string& path) {
  const std::string contents = Contents(path);
  uint64_t size = 0;
  if (contents.size() < sizeof(size)) return {};
  std::memcpy(&size, contents.data(), sizeof(size));
  const nlohmann::json header = nlohmann::json::parse(contents.substr(sizeof(size), size));
  std::map<std::string, nlohmann::json> shapes;
  for (const auto& [key, tensor] : header.items()) {
    if (key != "__metadata__") shapes[key] = tensor["shape"];
  }
  return shapes;
}

TEST(Up, FineTunesAWholeUNetUpToTheReportAndAFolderForDiffusers) {
  const TempDir dir;
  const std::string run = dir / "run";
  const CommandResult first = RunDdpo({"up", "--config", WriteConfig(dir.path(), 1), "--run-dir",
                                       run, "--set", "training.full_finetuning=true", "--set",
                                       "training.learning_rate=0.01", "--set", "run.save_every=1"});
  ASSERT_EQ(first.exit_code, 0) << first.output;
  EXPECT_THAT(first.output, HasSubstr(run + "/report.html"));
  const CommandResult second = RunDdpo({"up", "--resume", run, "--set", "run.epochs=2"});
  ASSERT_EQ(second.exit_code, 0) << second.output;
  EXPECT_EQ(Lines(Contents(run + "/metrics.jsonl")), 2);
  EXPECT_THAT(FileSystem::Real()->List(run + "/unet").value(),
              ElementsAre("epoch_0000.safetensors", "epoch_0001.safetensors",
                          "epoch_0002.safetensors", "final.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(run + "/lora"));
  // Every policy has drawn its own pictures.
  EXPECT_THAT((std::set<std::string>{Contents(run + "/samples/epoch_0000.png"),
                                     Contents(run + "/samples/epoch_0001.png"),
                                     Contents(run + "/samples/epoch_0002.png")}),
              SizeIs(3));

  const std::string summary = Contents(run + "/summary.json");
  const std::string grid = Contents(run + "/samples/epoch_0000.png");
  std::filesystem::remove(run + "/report.html");
  const CommandResult report = RunDdpo({"report", run});
  EXPECT_EQ(report.exit_code, 0) << report.output;
  EXPECT_EQ(Contents(run + "/summary.json"), summary);
  EXPECT_EQ(Contents(run + "/samples/epoch_0000.png"), grid);
  EXPECT_TRUE(std::filesystem::exists(run + "/report.html"));

  const std::string base = SourcePath("tests/goldens/pipelines/tiny");
  const std::string weights = "/diffusion_pytorch_model.safetensors";
  const CommandResult exported = RunDdpo({"export", run, "--out", dir / "unet"});
  ASSERT_EQ(exported.exit_code, 0) << exported.output;
  EXPECT_EQ(Contents(dir / "unet" + weights), Contents(run + "/unet/final.safetensors"));
  EXPECT_EQ(Shapes(dir / "unet" + weights), Shapes(base + "/unet" + weights));
  EXPECT_EQ(Contents(dir / "unet/config.json"), Contents(base + "/unet/config.json"));

  // The run's file draws as a model whose unet/ is the exported folder.
  std::filesystem::copy(base, dir / "tuned", std::filesystem::copy_options::recursive);
  std::filesystem::remove_all(dir / "tuned/unet");
  std::filesystem::rename(dir / "unet", dir / "tuned/unet");
  const auto sample = [&](const std::string& model, const std::string& out,
                          const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"sample",  "--model", model,   "--prompt", "a cat",
                                          "--steps", "2",       "--out", dir / out};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const CommandResult result = RunDdpo(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    return Contents(dir / out + "/sample_0000.png");
  };
  const std::string tuned = sample(base, "a", {"--unet", run + "/unet/final.safetensors"});
  EXPECT_EQ(tuned, sample(base, "d", {"--unet", dir / "tuned/unet"}));
  EXPECT_EQ(tuned, sample(dir / "tuned", "b"));
  EXPECT_NE(tuned, sample(base, "c"));
}

// Starts a run of 12 epochs, stops it in the middle by `stop`, which gets the process `ddpo up`,
// and checks that it ended as stopped.
void StopInTheMiddle(const TempDir& dir, const std::string& run,
                     const std::function<void(Subprocess&)>& stop) {
  Subprocess::Options options;
  options.argv = {ProgramPath("ddpo"),         "up",        "--config",
                  WriteConfig(dir.path(), 12), "--run-dir", run};
  options.log_file = dir / "first.log";
  auto process = Subprocess::Start(options);
  ASSERT_TRUE(process.ok());
  const absl::Time deadline = absl::Now() + absl::Minutes(2);
  while (Lines(Contents(run + "/metrics.jsonl")) < 2 && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  stop(**process);
  const std::optional<ExitStatus> exit = (*process)->Wait(absl::Minutes(2));
  ASSERT_TRUE(exit.has_value()) << Contents(options.log_file);
  EXPECT_EQ(exit->code, 130) << Contents(options.log_file);
  EXPECT_THAT(Contents(options.log_file), HasSubstr("go on with: ddpo up --resume " + run));
  EXPECT_LT(Lines(Contents(run + "/metrics.jsonl")), 12);
  EXPECT_FALSE(std::filesystem::exists(run + "/lora/final.safetensors"));
}

TEST(Up, StopsOnASignalAndGoesOnInItsFolder) {
  const TempDir dir;
  const std::string run = dir / "run";
  ASSERT_NO_FATAL_FAILURE(
      StopInTheMiddle(dir, run, [](Subprocess& process) { process.Kill(SIGINT); }));
  const CommandResult result = RunDdpo({"up", "--resume", run});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  // Every epoch once: the second start went on where the first had stopped.
  EXPECT_EQ(Lines(Contents(run + "/metrics.jsonl")), 12);
  EXPECT_TRUE(std::filesystem::exists(run + "/lora/final.safetensors"));
}

// Two learner ranks: each gets one of an epoch's two tasks.
TEST(Up, StartsAllLearnerRanksAgainWhenOneDies) {
  const TempDir dir;
  const std::string run = dir / "run";
  Subprocess::Options options;
  options.argv = {ProgramPath("ddpo"), "up", "--config", WriteConfig(dir.path(), 12),
                  "--run-dir",         run,  "--set",    "cluster.learner_ranks=2"};
  options.log_file = dir / "log";
  auto process = Subprocess::Start(options);
  ASSERT_TRUE(process.ok()) << process.status();
  const absl::Time deadline = absl::Now() + absl::Minutes(2);
  while (Lines(Contents(run + "/metrics.jsonl")) < 2 && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  const nlohmann::json pids = nlohmann::json::parse(Contents(run + "/pids.json"));
  for (const nlohmann::json& child : pids["processes"]) {
    if (child["name"] == "learner-1") kill(child["pid"].get<pid_t>(), SIGKILL);
  }
  const std::optional<ExitStatus> exit = (*process)->Wait(absl::Minutes(3));
  const std::string log = Contents(options.log_file);
  ASSERT_TRUE(exit.has_value()) << log;
  EXPECT_EQ(exit->code, 0) << log;
  EXPECT_THAT(log,
              HasSubstr("learner-1 ended with killed by signal 9 (Killed); starting all of the "
                        "learner's ranks again"));
  EXPECT_EQ(Lines(Contents(run + "/metrics.jsonl")), 12);
  EXPECT_EQ(Contents(run + "/generation"), "2\n");
}

TEST(Up, GoesOnWithAnotherNumberOfLearnerRanksAndSaysWhatThatChanges) {
  const TempDir dir;
  const std::string run = dir / "run";
  ASSERT_NO_FATAL_FAILURE(
      StopInTheMiddle(dir, run, [](Subprocess& process) { process.Kill(SIGINT); }));
  const CommandResult refused =
      RunDdpo({"up", "--resume", run, "--set", "training.learning_rate=0.5"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.output, HasSubstr("training.learning_rate: 0.0003 → 0.5"));
  const CommandResult result = RunDdpo({"up", "--resume", run, "--set", "cluster.learner_ranks=2"});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output,
              HasSubstr("cluster.learner_ranks: 1 → 2: an optimizer step takes 4 samples"));
  EXPECT_EQ(Lines(Contents(run + "/metrics.jsonl")), 12);
}

// Makes certificates and a token, and returns the settings that name them.
std::vector<std::string> SecuritySettings(const TempDir& dir) {
  const auto authority =
      Subprocess::Start({.argv = {SourcePath("deploy/tls/make-local-ca"), dir / "tls"}});
  EXPECT_TRUE(authority.ok() && (*authority)->Wait()->ok());
  EXPECT_TRUE(WriteFileAtomically(dir / "tokens", "0123456789abcdef actors\n").ok());
  std::vector<std::string> settings;
  for (const auto& [key, file] :
       {std::pair("tls.certificate", "tls/server/tls.crt"),
        std::pair("tls.private_key", "tls/server/tls.key"),
        std::pair("tls.client_ca", "tls/ca.crt"), std::pair("tls.server_ca", "tls/ca.crt"),
        std::pair("tokens_file", "tokens"), std::pair("token_file", "tokens")}) {
    settings.insert(settings.end(), {"--set", absl::StrCat("security.", key, "=", dir / file)});
  }
  return settings;
}

TEST(Up, SpeaksMutualTlsAndShowsTokensFromTheConfigToTheReport) {
  const TempDir dir;
  const std::string run = dir / "run";
  std::vector<std::string> arguments = {"up", "--config", WriteConfig(dir.path(), 3), "--run-dir",
                                        run};
  const std::vector<std::string> security = SecuritySettings(dir);
  arguments.insert(arguments.end(), security.begin(), security.end());
  const CommandResult result = RunDdpo(arguments);
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_TRUE(std::filesystem::exists(run + "/report.html"));
  // Its own reward server takes the run's certificates as well.
  EXPECT_EQ(RunDdpo({"report", run}).exit_code, 0);
}

TEST(Status, TakesTheCertificatesOfTheRunsConfig) {
  const TempDir dir;
  const std::string run = dir / "run";
  Subprocess::Options options;
  options.argv = {ProgramPath("ddpo"), "up", "--config", WriteConfig(dir.path(), 100000),
                  "--run-dir",         run};
  const std::vector<std::string> security = SecuritySettings(dir);
  options.argv.insert(options.argv.end(), security.begin(), security.end());
  options.log_file = dir / "log";
  auto process = Subprocess::Start(options);
  ASSERT_TRUE(process.ok()) << process.status();
  const absl::Time deadline = absl::Now() + absl::Minutes(2);
  while (Contents(run + "/metrics.jsonl").empty() && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  const CommandResult status = RunDdpo({"status", run});
  EXPECT_EQ(status.exit_code, 0) << status.output;
  EXPECT_THAT(status.output, HasSubstr("actor-0"));
  std::string learner;
  const nlohmann::json pids = nlohmann::json::parse(Contents(run + "/pids.json"));
  for (const nlohmann::json& child : pids["processes"]) {
    if (child["name"] == "learner-0") learner = child["address"];
  }
  const CommandResult refused = RunDdpo({"status", "--learner", learner});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.output, HasSubstr("speaks TLS, this client plain text"));
  (*process)->Kill(SIGINT);
  EXPECT_EQ((*process)->Wait()->code, 130) << Contents(options.log_file);
}

TEST(Up, SaysThatALearnerWasStoppedFromOutside) {
  const TempDir dir;
  const std::string run = dir / "run";
  StopInTheMiddle(dir, run, [&](Subprocess&) {
    const nlohmann::json pids = nlohmann::json::parse(Contents(run + "/pids.json"));
    for (const nlohmann::json& process : pids["processes"]) {
      if (process["name"] != "learner-0") continue;
      const pid_t learner = process["pid"];
      ASSERT_GT(learner, 0);
      kill(learner, SIGTERM);
    }
  });
}

// Starts `ddpo up` and waits until its run has at least as many epochs.
std::unique_ptr<Subprocess> StartUp(const std::vector<std::string>& arguments,
                                    const std::string& log, const std::string& run, int epochs,
                                    std::vector<std::string> environment = {}) {
  Subprocess::Options options;
  options.environment = std::move(environment);
  options.argv = {ProgramPath("ddpo"), "up"};
  options.argv.insert(options.argv.end(), arguments.begin(), arguments.end());
  options.log_file = log;
  auto process = Subprocess::Start(options);
  EXPECT_TRUE(process.ok()) << process.status();
  while (Lines(Contents(run + "/metrics.jsonl")) < epochs && !(*process)->Poll()) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  return *std::move(process);
}

// An entry of pids.json; 0 for a process that does not run, or before there is such a file.
pid_t Pid(const std::string& run, const std::string& name) {
  const std::string text = Contents(run + "/pids.json");
  if (text.empty()) return 0;
  const nlohmann::json pids = nlohmann::json::parse(text);
  for (const nlohmann::json& process : pids["processes"]) {
    if (process["name"] == name) return process["pid"];
  }
  return 0;
}

// Runs one epoch to the report.
void RunOneEpoch(const TempDir& dir, const std::string& run) {
  const CommandResult result =
      RunDdpo({"up", "--config", WriteConfig(dir.path(), 1), "--run-dir", run});
  ASSERT_EQ(result.exit_code, 0) << result.output;
}

TEST(Up, DoesNotTakeALongerRunForCompleteWhenItsLearnerIsStoppedFromOutside) {
  const TempDir dir;
  const std::string run = dir / "run";
  ASSERT_NO_FATAL_FAILURE(RunOneEpoch(dir, run));
  const auto process =
      StartUp({"--resume", run, "--set", "run.epochs=100000"}, dir / "log", run, 2);
  const pid_t learner = Pid(run, "learner-0");
  ASSERT_GT(learner, 0) << Contents(dir / "log");
  kill(learner, SIGTERM);
  const std::optional<ExitStatus> exit = process->Wait(absl::Minutes(2));
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->code, 130) << Contents(dir / "log");
  EXPECT_THAT(Contents(dir / "log"), HasSubstr("go on with: ddpo up --resume " + run));
}

TEST(Up, EvaluatesACompleteRunOnceItsRewardServerHasLoaded) {
  const TempDir dir;
  const std::string run = dir / "run";
  ASSERT_NO_FATAL_FAILURE(RunOneEpoch(dir, run));
  std::filesystem::remove(run + "/report.html");
  std::filesystem::remove(run + "/pids.json");
  // Programs of which the reward server starts only once there is a file `gate`.
  std::filesystem::create_directory(dir / "bin");
  std::filesystem::copy(ProgramPath("ddpo"), dir / "bin/ddpo");
  for (const char* program : {"ddpo-learner", "ddpo-actor"}) {
    std::filesystem::create_symlink(ProgramPath(program), dir / "bin/" + program);
  }
  const std::string script = dir / "bin/ddpo-reward-server";
  ASSERT_TRUE(
      WriteFileAtomically(script, absl::StrCat("#!/bin/sh\nwhile [ ! -e ", dir / "gate",
                                               " ]; do sleep 0.01; done\nexec ",
                                               ProgramPath("ddpo-reward-server"), " \"$@\"\n"))
          .ok());
  std::filesystem::permissions(script, std::filesystem::perms::owner_all);
  auto process = Subprocess::Start(
      {.argv = {dir / "bin/ddpo", "up", "--resume", run}, .log_file = dir / "log"});
  ASSERT_TRUE(process.ok()) << process.status();
  // Until the learner runs, and then until it has ended.
  for (const bool runs : {true, false}) {
    while ((Pid(run, "learner-0") != 0) != runs && !(*process)->Poll()) {
      absl::SleepFor(absl::Milliseconds(5));
    }
  }
  ASSERT_TRUE(WriteFileAtomically(dir / "gate", "").ok());
  const std::optional<ExitStatus> exit = (*process)->Wait(absl::Minutes(2));
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->code, 0) << Contents(dir / "log");
  EXPECT_TRUE(std::filesystem::exists(run + "/report.html"));
}

// The other rank ends at once; rank 0 waits for its actor, which hangs, to hear of the end.
TEST(Up, EndsWithTheReasonOfARankThatTakesItsTimeToEnd) {
  const TempDir dir;
  const std::string run = dir / "run";
  // The policy of the second epoch cannot be written. Its four batches are sampled then, and the
  // actor hangs over the fifth.
  std::filesystem::create_directories(run + "/lora/epoch_0002.safetensors");
  const auto process = StartUp(
      {"--config", WriteConfig(dir.path(), 12), "--run-dir", run, "--set",
       "cluster.learner_ranks=2", "--set", "cluster.actors=1", "--set", "training.max_staleness=1"},
      dir / "log", run, 1, {"DDPO_HANG_AT=actor.sampling:5"});
  while (Pid(run, "learner-0") != 0 && !process->Poll()) absl::SleepFor(absl::Milliseconds(5));
  // One that had not come so far ends by itself.
  if (const pid_t actor = Pid(run, "actor-0"); actor > 0) kill(actor, SIGKILL);
  const std::optional<ExitStatus> exit = process->Wait(absl::Minutes(2));
  ASSERT_TRUE(exit.has_value()) << Contents(dir / "log");
  EXPECT_EQ(exit->code, 1) << Contents(dir / "log");
  EXPECT_THAT(Contents(dir / "log"), AllOf(HasSubstr("learner-0 ended with exit code 1"),
                                           HasSubstr("epoch_0002.safetensors")));
  EXPECT_EQ(Contents(run + "/generation"), "1\n");
}

TEST(Up, KeepsASecondOneOutOfItsFolder) {
  const TempDir dir;
  const std::string run = dir / "run";
  const auto process =
      StartUp({"--config", WriteConfig(dir.path(), 100000), "--run-dir", run}, dir / "log", run, 1);
  const std::string config = Contents(run + "/config.yaml");
  const pid_t learner = Pid(run, "learner-0");
  const CommandResult second = RunDdpo({"up", "--resume", run, "--set", "run.epochs=100001"});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.output, HasSubstr(absl::StrCat(run, " is in use: process ", process->pid())));
  EXPECT_EQ(Contents(run + "/config.yaml"), config);
  EXPECT_EQ(Pid(run, "learner-0"), learner);
  process->Kill(SIGINT);
  const std::optional<ExitStatus> exit = process->Wait(absl::Minutes(2));
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->code, 130) << Contents(dir / "log");
}

TEST(Up, ResumeWantsARunsFolder) {
  const TempDir dir;
  const CommandResult result = RunDdpo({"up", "--resume", dir.path()});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr(dir.path() + " is no run's folder: it has no config.yaml"));
}

TEST(Up, EndsWithTheLearnersReasonWhenItCanNotWork) {
  const TempDir dir;
  const std::string config = WriteConfig(dir.path(), 2);
  const CommandResult result = RunDdpo(
      {"up", "--config", config, "--set", "model=/nowhere/model", "--run-dir", dir / "run"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("/nowhere/model"));
}

}  // namespace
}  // namespace ddpo
