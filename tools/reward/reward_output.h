#pragma once

#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "ddpo/reward/v1/jobs.pb.h"
#include "ddpo/reward/v1/reward.pb.h"
#include "tools/reward/reward_session.h"

namespace ddpo {

// Rows of equally many cells as lines with aligned columns, the first row being the headings.
// Control characters, which a judge's reply may hold, become spaces.
std::string TableText(const std::vector<std::vector<std::string>>& rows);

std::string ScorersTable(const std::vector<reward::v1::Scorer>& scorers);
nlohmann::ordered_json ScorersJson(const std::vector<reward::v1::Scorer>& scorers);

// Each image's score with its details and text, or its error.
std::string ResultsTable(const ScoredImages& scored);
nlohmann::ordered_json ResultsJson(const ScoredImages& scored);
// RFC 4180, with a column for each detail that one of the scores has.
std::string ResultsCsv(const ScoredImages& scored);

// running, succeeded, …
std::string JobStateText(reward::v1::JobState state);
bool HasEnded(const reward::v1::Job& job);
std::string JobsTable(const std::vector<reward::v1::Job>& jobs);
nlohmann::ordered_json JobJson(const reward::v1::Job& job);

// Shows a job's progress on a terminal as one line with a bar, elsewhere as a line for each tenth
// and each new state.
class JobDisplay {
 public:
  // `columns`: the terminal's width; 0 where the stream is not a terminal.
  JobDisplay(std::ostream& out, int columns) : out_(out), columns_(columns) {}

  void Show(const reward::v1::Job& job);
  // Leaves the last line standing.
  void Finish();

 private:
  std::ostream& out_;
  const int columns_;
  std::string last_line_;
  int64_t last_tenth_ = -1;
  reward::v1::JobState last_state_ = reward::v1::JOB_STATE_UNSPECIFIED;
};

}  // namespace ddpo
