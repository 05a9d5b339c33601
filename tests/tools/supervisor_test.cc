#include "tools/up/supervisor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/time/clock.h"
#include "common/base/fake_clock.h"
#include "common/base/files.h"

namespace ddpo {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Real children: shells, whose $2 is the address file (they get `--address-file FILE`).
class SupervisorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    run_dir_ = ::testing::TempDir() + "/" +
               ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(run_dir_);
    std::filesystem::create_directories(run_dir_ + "/logs");
  }

  ChildSpec Shell(const std::string& name, const std::string& script) {
    return {name, /*serves=*/true, {kExitBadConfig}, [script](const ChildAddresses& last) {
              return std::optional(std::vector<std::string>{
                  "/bin/sh", "-c", script, last.service.empty() ? "first" : last.service});
            }};
  }

  std::unique_ptr<Supervisor> Make(absl::Duration group_patience = absl::Seconds(1),
                                   Clock* clock = Clock::Real()) {
    Supervisor::Options options;
    options.run_dir = run_dir_;
    options.group_patience = group_patience;
    options.restart = {.first_wait = absl::Milliseconds(1), .longest_wait = absl::Milliseconds(1)};
    options.clock = clock;
    options.note = [this](const std::string& line) { notes_.push_back(line); };
    return std::make_unique<Supervisor>(options);
  }

  // Ticks until `done` or an error; the bound only matters where a test fails.
  template <typename Done>
  absl::Status TickUntil(Supervisor& supervisor, Done done) {
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (!done()) {
      if (absl::Now() > deadline) return absl::DeadlineExceededError("nothing happened");
      absl::Status status = supervisor.Tick();
      if (!status.ok()) return status;
      absl::SleepFor(absl::Milliseconds(1));
    }
    return absl::OkStatus();
  }

  nlohmann::json Process(size_t index) {
    absl::StatusOr<std::string> text = ReadFile(run_dir_ + "/pids.json");
    if (!text.ok()) return nlohmann::json::object();
    return nlohmann::json::parse(*text)["processes"][index];
  }

  std::string run_dir_;
  std::vector<std::string> notes_;
};

TEST_F(SupervisorTest, StartsAKilledChildAgainAtItsOldAddress) {
  std::unique_ptr<Supervisor> supervisor = Make();
  // Says where it listens: at a place of its own first, at the one it was told after that.
  supervisor->Add(Shell(
      "learner-0", "[ $0 = first ] && echo host:1 > $2 || echo again-$0 > $2; exec sleep 1000"));
  ASSERT_TRUE(
      TickUntil(*supervisor, [&] { return Process(0).value("address", "") == "host:1"; }).ok());
  const nlohmann::json before = Process(0);
  EXPECT_EQ(before["name"], "learner-0");
  EXPECT_EQ(before["restarts"], 0);

  ASSERT_EQ(kill(before["pid"], SIGKILL), 0);
  ASSERT_TRUE(TickUntil(*supervisor, [&] {
                return Process(0).value("address", "") == "again-host:1";
              }).ok());
  EXPECT_EQ(Process(0)["restarts"], 1);
  EXPECT_NE(Process(0)["pid"], before["pid"]);
  ASSERT_EQ(notes_.size(), 1u);
  EXPECT_THAT(notes_[0], AllOf(HasSubstr("learner-0"), HasSubstr("signal 9")));
}

TEST_F(SupervisorTest, ABadConfigIsFinalAndItsMessageIsQuoted) {
  std::unique_ptr<Supervisor> supervisor = Make();
  supervisor->Add(Shell("learner-0", "echo epochs is out of range; exit 2"));
  const absl::Status status = TickUntil(*supervisor, [] { return false; });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("learner-0"), HasSubstr("epochs is out of range")));
}

TEST_F(SupervisorTest, GivesUpOnAChildThatDiesAgainAndAgain) {
  std::unique_ptr<Supervisor> supervisor = Make();
  supervisor->Add(Shell("actor-0", "echo no such model; exit 1"));
  const absl::Status status = TickUntil(*supervisor, [] { return false; });
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no such model"));
  EXPECT_GT(notes_.size(), 1u);
}

TEST_F(SupervisorTest, AChildThatEndsWellIsCompleteAndStaysEnded) {
  std::unique_ptr<Supervisor> supervisor = Make();
  supervisor->Add(Shell("learner-0", "echo started; exit 0"));
  ASSERT_TRUE(TickUntil(*supervisor, [&] { return supervisor->Completed("learner-0"); }).ok());
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(supervisor->Tick().ok());
  EXPECT_EQ(ReadFile(run_dir_ + "/logs/learner-0.log").value(), "started\n");
}

TEST_F(SupervisorTest, AChildThatHasNoEndOfItsOwnIsStartedAgainLater) {
  FakeClock clock;
  std::unique_ptr<Supervisor> supervisor = Make(absl::Seconds(1), &clock);
  ChildSpec spec = Shell("actor-0", "echo started; exit 0");
  spec.restart_when_done = absl::Seconds(15);
  supervisor->Add(spec);
  ASSERT_TRUE(TickUntil(*supervisor, [&] { return supervisor->Completed("actor-0"); }).ok());
  clock.Advance(absl::Seconds(14));
  ASSERT_TRUE(supervisor->Tick().ok());
  EXPECT_EQ(Process(0)["pid"], 0);
  EXPECT_THAT(notes_, ElementsAre());
  clock.Advance(absl::Seconds(1));
  ASSERT_TRUE(supervisor->Tick().ok());
  EXPECT_NE(Process(0)["pid"], 0);
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("actor-0 had ended, and the run goes on")));
  supervisor->Stop("", absl::InfiniteDuration(), [] { return false; });
  clock.Advance(absl::Hours(1));
  ASSERT_TRUE(supervisor->Tick().ok());
  EXPECT_EQ(Process(0)["pid"], 0);
}

TEST_F(SupervisorTest, AChildThatSomebodyElseStoppedIsNeitherCompleteNorStartedAgain) {
  std::unique_ptr<Supervisor> supervisor = Make();
  ChildSpec spec = Shell("learner-0", "echo started; exit 75");
  spec.stopped_exit_code = 75;
  supervisor->Add(spec);
  ASSERT_TRUE(TickUntil(*supervisor, [&] { return supervisor->Stopped("learner-0"); }).ok());
  EXPECT_FALSE(supervisor->Completed("learner-0"));
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(supervisor->Tick().ok());
  EXPECT_EQ(ReadFile(run_dir_ + "/logs/learner-0.log").value(), "started\n");
}

TEST_F(SupervisorTest, WaitsWithAChildWhoseNeedsAreNotThere) {
  std::unique_ptr<Supervisor> supervisor = Make();
  Supervisor* s = supervisor.get();
  supervisor->Add({"actor-0",
                   /*serves=*/false,
                   {},
                   [s](const ChildAddresses&) -> std::optional<std::vector<std::string>> {
                     if (!s->Addresses("learner-0")) return std::nullopt;
                     return std::vector<std::string>{"/bin/sh", "-c", "exit 0"};
                   }});
  supervisor->Add(Shell("learner-0", "echo host:1 > $2; exec sleep 1000"));
  ASSERT_TRUE(supervisor->Tick().ok());
  EXPECT_EQ(Process(0)["pid"], 0);
  EXPECT_TRUE(TickUntil(*supervisor, [&] { return supervisor->Completed("actor-0"); }).ok());
}

TEST_F(SupervisorTest, StopAsksFirstAndKillsWhatDoesNotListen) {
  std::unique_ptr<Supervisor> supervisor = Make();
  supervisor->Add(Shell("polite",
                        "trap 'echo saved; exit 0' TERM; echo host:1 > $2; "
                        "while :; do sleep 0.01; done"));
  supervisor->Add(Shell("deaf", "trap '' TERM; echo host:2 > $2; while :; do sleep 0.01; done"));
  ASSERT_TRUE(TickUntil(*supervisor, [&] {
                return supervisor->Addresses("polite") && supervisor->Addresses("deaf");
              }).ok());
  supervisor->Stop("polite", absl::Seconds(30), [] { return false; });
  EXPECT_EQ(ReadFile(run_dir_ + "/logs/polite.log").value(), "saved\n");
  EXPECT_EQ(Process(0)["pid"], 0);
  EXPECT_NE(Process(1)["pid"], 0);
  supervisor->Stop("", absl::InfiniteDuration(), [] { return true; });
  EXPECT_EQ(Process(1)["pid"], 0);
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("killing deaf")));
}

TEST_F(SupervisorTest, AGroupOfWhichOneDiesIsStartedAgainAsAWhole) {
  std::unique_ptr<Supervisor> supervisor = Make();
  const auto address = [&](size_t index) { return Process(index).value("address", ""); };
  for (const char* name : {"rank-0", "rank-1"}) {
    ChildSpec spec =
        Shell(name, "[ $0 = first ] && echo host:1 > $2 || echo again > $2; exec sleep 1000");
    spec.group = "ranks";
    supervisor->Add(spec);
  }
  supervisor->Add(Shell("other", "echo other:1 > $2; exec sleep 1000"));
  ASSERT_TRUE(TickUntil(*supervisor, [&] {
                return address(0) == "host:1" && address(1) == "host:1" && address(2) == "other:1";
              }).ok());
  const nlohmann::json rank_0 = Process(0);
  const nlohmann::json other = Process(2);
  ASSERT_EQ(kill(Process(1)["pid"], SIGKILL), 0);
  ASSERT_TRUE(
      TickUntil(*supervisor, [&] { return address(0) == "again" && address(1) == "again"; }).ok());
  EXPECT_NE(Process(0)["pid"], rank_0["pid"]);
  EXPECT_EQ(Process(0)["restarts"], 1);
  EXPECT_EQ(Process(1)["restarts"], 1);
  EXPECT_EQ(Process(2)["pid"], other["pid"]);
  ASSERT_EQ(notes_.size(), 1u);
  EXPECT_THAT(notes_[0], AllOf(HasSubstr("rank-1 ended with killed by signal 9"),
                               HasSubstr("starting all of the ranks again")));
}

// A rank that another one's end has ended says less than that one.
TEST_F(SupervisorTest, WaitsForTheMemberOfAGroupWhoseEndIsFinal) {
  std::unique_ptr<Supervisor> supervisor = Make(/*group_patience=*/absl::Seconds(30));
  ChildSpec first = Shell("rank-0", "exit 3");
  ChildSpec second = Shell("rank-1", "sleep 0.2; echo the disk is full; exit 2");
  first.group = second.group = "ranks";
  supervisor->Add(first);
  supervisor->Add(second);
  const absl::Status status = TickUntil(*supervisor, [] { return false; });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the disk is full"));
}

// The others could not go on without it.
TEST_F(SupervisorTest, AGroupOfWhichOneDiesWhileItStopsIsStartedAgainAsAWhole) {
  std::unique_ptr<Supervisor> supervisor = Make();
  ChildSpec killed = Shell("rank-0", "[ -e $2.again ] || { touch $2.again; kill -9 $$; }; exit 75");
  ChildSpec stopped = Shell("rank-1", "echo started; exit 75");
  killed.group = stopped.group = "ranks";
  killed.stopped_exit_code = stopped.stopped_exit_code = 75;
  supervisor->Add(killed);
  supervisor->Add(stopped);
  ASSERT_TRUE(TickUntil(*supervisor, [&] {
                return supervisor->Stopped("rank-0") && supervisor->Stopped("rank-1");
              }).ok());
  EXPECT_EQ(ReadFile(run_dir_ + "/logs/rank-1.log").value(), "started\nstarted\n");
}

}  // namespace
}  // namespace ddpo
