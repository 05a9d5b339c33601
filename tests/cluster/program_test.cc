// What the programs say and how they end, as their users and supervisors see it.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/free_port.h"
#include "common/base/subprocess.h"
#include "common/rpc/channel.h"
#include "tests/testing/grpc_probe.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_dir.h"

namespace ddpo {
namespace {

using ::testing::HasSubstr;

using testing::ProgramPath;
using testing::SourcePath;
using testing::TempDir;

constexpr absl::Duration kPatience = absl::Minutes(2);

class ProgramTest : public ::testing::Test {
 protected:
  std::unique_ptr<Subprocess> Start(std::vector<std::string> argv) {
    argv[0] = ProgramPath(argv[0]);
    auto process = Subprocess::Start(
        {.argv = std::move(argv), .log_file = dir_ / "log", .environment = {"OMP_NUM_THREADS=1"}});
    EXPECT_TRUE(process.ok()) << process.status();
    return *std::move(process);
  }
  int ExitCode(std::vector<std::string> argv) {
    const auto status = Start(std::move(argv))->Wait(kPatience);
    EXPECT_TRUE(status.has_value()) << "did not end";
    return status.has_value() ? status->code : -1;
  }
  std::string Log() { return ReadFile(dir_ / "log").value_or(""); }
  void WaitForLog(const std::string& text, Subprocess* process) {
    while (!absl::StrContains(Log(), text) && !process->Poll().has_value()) {
      absl::SleepFor(absl::Milliseconds(5));
    }
    ASSERT_THAT(Log(), HasSubstr(text));
  }
  std::string WriteConfig(const std::string& changes) {
    const std::string path = dir_ / "config.yaml";
    EXPECT_TRUE(WriteFileAtomically(
                    path, absl::StrCat("model: ", SourcePath("tests/goldens/pipelines/tiny"),
                                       "\nprompts: {list: [a cat]}\n", changes))
                    .ok());
    return path;
  }
  // The lines of the file, once it is there.
  std::vector<std::string> Addresses(const std::string& path, Subprocess* process) {
    while (!FileSystem::Real()->Exists(path) && !process->Poll().has_value()) {
      absl::SleepFor(absl::Milliseconds(5));
    }
    return absl::StrSplit(ReadFile(path).value_or(""), '\n', absl::SkipEmpty());
  }

  TempDir dir_;
};

TEST_F(ProgramTest, ABadConfigurationEndsTheLearnerWithCode2) {
  EXPECT_EQ(ExitCode({"ddpo-learner", "--config", WriteConfig("sampling: {num_step: 5}"),
                      "--run-dir", dir_ / "run"}),
            2);
  EXPECT_THAT(Log(), HasSubstr("sampling.num_step: unknown key"));
}

TEST_F(ProgramTest, AMissingModelEndsTheLearnerWithCode2) {
  EXPECT_TRUE(
      WriteFileAtomically(dir_ / "config.yaml", "model: no/such/folder\nprompts: {list: [a cat]}\n")
          .ok());
  EXPECT_EQ(ExitCode({"ddpo-learner", "--config", dir_ / "config.yaml", "--run-dir", dir_ / "run"}),
            2);
  EXPECT_THAT(Log(), HasSubstr("no/such/folder"));
}

TEST_F(ProgramTest, BadFlagsEndBothWithCode2) {
  EXPECT_EQ(ExitCode({"ddpo-learner"}), 2);
  EXPECT_EQ(ExitCode({"ddpo-actor", "--learner", "nowhere"}), 2);
  EXPECT_EQ(ExitCode({"ddpo-actor", "--learner", "no-port", "--reward", "127.0.0.1:1", "--actor-id",
                      "a"}),
            2);
}

TEST_F(ProgramTest, PlainTextBeyondLoopbackHasToBeAskedFor) {
  EXPECT_EQ(ExitCode({"ddpo-learner", "--config", WriteConfig(""), "--run-dir", dir_ / "run",
                      "--listen", "0.0.0.0:0"}),
            2);
  EXPECT_THAT(Log(), HasSubstr("not loopback"));
}

TEST_F(ProgramTest, AnActorWithoutALearnerGivesUpWithCode1) {
  // Port 1 is served by nobody.
  EXPECT_EQ(ExitCode({"ddpo-actor", "--learner", "127.0.0.1:1", "--reward", "127.0.0.1:1",
                      "--actor-id", "a", "--give-up-seconds", "0.3"}),
            1);
  EXPECT_THAT(Log(), HasSubstr("registering at 127.0.0.1:1"));
}

TEST_F(ProgramTest, AnActorThatWaitsForItsLearnerStopsWhenAsked) {
  const auto actor = Start({"ddpo-actor", "--learner", "127.0.0.1:1", "--reward", "127.0.0.1:1",
                            "--actor-id", "a", "--address-file", dir_ / "address"});
  ASSERT_EQ(Addresses(dir_ / "address", actor.get()).size(), 2);
  actor->Kill(SIGTERM);
  const auto status = actor->Wait(kPatience);
  ASSERT_TRUE(status.has_value());
  EXPECT_TRUE(status->ok()) << status->ToString();
}

TEST_F(ProgramTest, ALearnerThatWaitsForActorsIsHealthyAndStopsWhenAsked) {
  const auto learner = Start({"ddpo-learner", "--config", WriteConfig(""), "--run-dir",
                              dir_ / "run", "--address-file", dir_ / "address"});
  const std::vector<std::string> addresses = Addresses(dir_ / "address", learner.get());
  ASSERT_EQ(addresses.size(), 2) << Log();
  const auto channel = *CreateChannel(addresses[0]);
  for (const char* service : {"", "ddpo.cluster.v1.Coordinator", "ddpo.cluster.v1.TrajectoryIngest",
                              "ddpo.cluster.v1.PolicyPublisher"}) {
    EXPECT_EQ(testing::CheckHealth(channel, service), "SERVING") << service;
    EXPECT_THAT(testing::ListServices(channel), HasSubstr(service));
  }
  learner->Kill(SIGTERM);
  const auto status = learner->Wait(kPatience);
  ASSERT_TRUE(status.has_value());
  EXPECT_TRUE(status->ok()) << status->ToString();
  // Even before the first epoch there is a checkpoint to go on from.
  EXPECT_TRUE(FileSystem::Real()->Exists(dir_ / "run/checkpoints/epoch_00000/MANIFEST.json"));
}

TEST_F(ProgramTest, ALearnerThatIsAskedToStopCanSayThatTheRunIsNotComplete) {
  const auto learner =
      Start({"ddpo-learner", "--config", WriteConfig(""), "--run-dir", dir_ / "run",
             "--address-file", dir_ / "address", "--stopped-exit-code", "75"});
  ASSERT_EQ(Addresses(dir_ / "address", learner.get()).size(), 2) << Log();
  learner->Kill(SIGTERM);
  const auto status = learner->Wait(kPatience);
  ASSERT_TRUE(status.has_value());
  EXPECT_EQ(status->code, 75) << status->ToString();
}

// The others may take minutes to come.
TEST_F(ProgramTest, ALearnerRankThatWaitsForTheOthersStopsWhenAsked) {
  const auto learner =
      Start({"ddpo-learner", "--config", WriteConfig("cluster: {learner_ranks: 2}"), "--run-dir",
             dir_ / "run", "--store", absl::StrCat("127.0.0.1:", *FreePort()),
             "--stopped-exit-code", "75"});
  ASSERT_NO_FATAL_FAILURE(WaitForLog("rank 0 meets the other 1", learner.get()));
  learner->Kill(SIGTERM);
  const auto status = learner->Wait(kPatience);
  ASSERT_TRUE(status.has_value());
  EXPECT_EQ(status->code, 75) << status->ToString() << Log();
}

TEST_F(ProgramTest, ASecondLearnerInARunsFolderEndsAndNamesTheFirst) {
  const std::vector<std::string> argv = {"ddpo-learner",  "--config",   WriteConfig(""),
                                         "--run-dir",     dir_ / "run", "--address-file",
                                         dir_ / "address"};
  const auto first = Start(argv);
  ASSERT_EQ(Addresses(dir_ / "address", first.get()).size(), 2) << Log();
  EXPECT_EQ(ExitCode(argv), 1);
  EXPECT_THAT(Log(), HasSubstr(absl::StrCat(dir_ / "run", " is in use: process ", first->pid())));
  EXPECT_EQ(ReadFile(dir_ / "run/generation").value_or(""), "1\n");
  first->Kill(SIGKILL);
  EXPECT_TRUE(FileSystem::Real()->RemoveAll(dir_ / "address").ok());
  const auto third = Start(argv);
  EXPECT_EQ(Addresses(dir_ / "address", third.get()).size(), 2) << Log();
}

// Listens on a port of its own until it is destroyed.
class TakenPort {
 public:
  TakenPort() : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* any = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(bind(socket_, any, size), 0);
    EXPECT_EQ(listen(socket_, 1), 0);
    EXPECT_EQ(getsockname(socket_, any, &size), 0);
    address_ = absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
  }
  ~TakenPort() { close(socket_); }
  const std::string& address() const { return address_; }

 private:
  const int socket_;
  std::string address_;
};

TEST_F(ProgramTest, ALearnerWaitsForPortsThatAreTakenForAMoment) {
  auto rpc = std::make_unique<TakenPort>();
  auto metrics = std::make_unique<TakenPort>();
  const std::string rpc_address = rpc->address(), metrics_address = metrics->address();
  const auto learner = Start({"ddpo-learner", "--config", WriteConfig(""), "--run-dir",
                              dir_ / "run", "--address-file", dir_ / "address", "--listen",
                              rpc_address, "--metrics-listen", metrics_address});
  ASSERT_NO_FATAL_FAILURE(
      WaitForLog("cannot listen on " + rpc_address + "; trying again", learner.get()));
  rpc.reset();
  ASSERT_NO_FATAL_FAILURE(WaitForLog("cannot serve metrics on " + metrics_address, learner.get()));
  metrics.reset();
  EXPECT_THAT(Addresses(dir_ / "address", learner.get()),
              ::testing::ElementsAre(rpc_address, metrics_address))
      << Log();
  EXPECT_EQ(testing::CheckHealth(*CreateChannel(rpc_address), "ddpo.cluster.v1.Coordinator"),
            "SERVING");
}

}  // namespace
}  // namespace ddpo
