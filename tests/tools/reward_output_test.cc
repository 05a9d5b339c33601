#include "tools/reward/reward_output.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace ddpo {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

reward::v1::Job JobAt(int64_t succeeded, int64_t failed, reward::v1::JobState state) {
  reward::v1::Job job;
  job.set_name("jobs/1");
  job.set_state(state);
  job.set_items_total(40);
  job.set_items_succeeded(succeeded);
  job.set_items_failed(failed);
  return job;
}

std::string BarOf(int filled) {
  std::string bar;
  for (int i = 0; i < 30; ++i) bar += i < filled ? "█" : "░";
  return bar;
}

TEST(JobDisplayTest, DrawsABarOverTheLastOneOnATerminal) {
  std::ostringstream out;
  JobDisplay display(out, 80);
  display.Show(JobAt(0, 0, reward::v1::JOB_STATE_PENDING));
  EXPECT_EQ(out.str(), "\r\033[K" + BarOf(0) + " 0/40 pending");
  display.Show(JobAt(18, 2, reward::v1::JOB_STATE_RUNNING));
  EXPECT_THAT(out.str(), EndsWith("\r\033[K" + BarOf(15) + " 20/40, 2 failed running"));
  display.Show(JobAt(38, 2, reward::v1::JOB_STATE_SUCCEEDED));
  EXPECT_THAT(out.str(), EndsWith(BarOf(30) + " 40/40, 2 failed succeeded"));
  display.Finish();
  EXPECT_THAT(out.str(), EndsWith("succeeded\n"));
}

TEST(JobDisplayTest, ANarrowTerminalGetsTheNumbersAlone) {
  std::ostringstream out;
  JobDisplay display(out, 20);
  display.Show(JobAt(20, 0, reward::v1::JOB_STATE_RUNNING));
  EXPECT_EQ(out.str(), "\r\033[K20/40");
}

TEST(JobDisplayTest, ElsewhereThereIsALineForEachTenth) {
  std::ostringstream out;
  JobDisplay display(out, 0);
  for (int done = 0; done <= 8; ++done) {
    display.Show(JobAt(done, 0, reward::v1::JOB_STATE_RUNNING));
  }
  display.Finish();
  EXPECT_EQ(out.str(), "jobs/1 running 0/40\njobs/1 running 4/40\njobs/1 running 8/40\n");
}

ScoredImages TwoResults() {
  ScoredImages scored;
  scored.scorer = "alignment";
  reward::v1::ScoreResult& good = scored.results.emplace_back();
  good.set_item_id("a, b.png");
  good.mutable_score()->set_value(0.1);
  (*good.mutable_score()->mutable_details())["f1"] = 0.25;
  good.mutable_score()->set_text("a \"bear\"\033[2J\n");
  reward::v1::ScoreResult& bad = scored.results.emplace_back();
  bad.set_item_id("ä.png");
  bad.mutable_error()->set_reason("IMAGE_MISSING");
  bad.mutable_error()->set_message("the image has 0 bytes");
  return scored;
}

TEST(RewardOutputTest, TablesAlignWhatIsWiderInBytesThanOnTheScreen) {
  EXPECT_EQ(TableText({{"NAME", "N"}, {"ä", "1"}, {"longer", "2"}}),
            "NAME    N\nä       1\nlonger  2\n");
}

TEST(RewardOutputTest, AJudgesReplyCanNotSteerTheTerminal) {
  const std::string table = ResultsTable(TwoResults());
  EXPECT_THAT(table, HasSubstr("0.1    f1=0.25 “a \"bear\" [2J ”"));
  EXPECT_THAT(table, Not(HasSubstr("\033")));
  EXPECT_THAT(table, HasSubstr("ä.png     -      IMAGE_MISSING: the image has 0 bytes"));
}

TEST(RewardOutputTest, CsvQuotesAndLeavesNoNumberWhereThereIsNoScore) {
  EXPECT_EQ(ResultsCsv(TwoResults()),
            "item_id,value,error,text,f1\r\n"
            "\"a, b.png\",0.1,,\"a \"\"bear\"\"\033[2J\n\",0.25\r\n"
            "ä.png,,IMAGE_MISSING: the image has 0 bytes,,\r\n");
}

TEST(RewardOutputTest, JsonHasEitherAValueOrAnError) {
  const auto json = ResultsJson(TwoResults());
  EXPECT_EQ(json["results"][0]["value"], 0.1);
  EXPECT_FALSE(json["results"][0].contains("error"));
  EXPECT_EQ(json["results"][1]["error"]["reason"], "IMAGE_MISSING");
  EXPECT_FALSE(json["results"][1].contains("value"));
}

}  // namespace
}  // namespace ddpo
