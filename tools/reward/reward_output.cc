#include "tools/reward/reward_output.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace ddpo {
namespace {

using reward::v1::Job;
using reward::v1::Scorer;
using reward::v1::ScoreResult;

constexpr int64_t kBarWidth = 30;

// The shortest text that reads back as the same number.
std::string NumberText(double value) {
  for (int digits = 6; digits < 17; ++digits) {
    std::string text = absl::StrFormat("%.*g", digits, value);
    if (std::stod(text) == value) return text;
  }
  return absl::StrFormat("%.17g", value);
}

size_t Width(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::string Printable(std::string text) {
  for (char& c : text) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) c = ' ';
  }
  return text;
}

// With its keys in order: a map's own order is another each time.
std::vector<std::pair<std::string, double>> Details(const reward::v1::Score& score) {
  std::vector<std::pair<std::string, double>> details(score.details().begin(),
                                                      score.details().end());
  std::sort(details.begin(), details.end());
  return details;
}

std::string CsvCell(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\"", "\"\""}}), "\"");
}

std::string TimeText(const google::protobuf::Timestamp& time) {
  return google::protobuf::util::TimeUtil::ToString(time);
}

int64_t ItemsDone(const Job& job) { return job.items_succeeded() + job.items_failed(); }

std::string RangeText(const Scorer& scorer) {
  return absl::StrCat(scorer.has_min_score() ? NumberText(scorer.min_score()) : "", "…",
                      scorer.has_max_score() ? NumberText(scorer.max_score()) : "");
}

std::string ErrorText(const reward::v1::ItemError& error) {
  return absl::StrCat(error.reason(), ": ", error.message());
}

nlohmann::ordered_json ErrorJson(const reward::v1::ItemError& error) {
  return {{"code", error.code()}, {"reason", error.reason()}, {"message", error.message()}};
}

}  // namespace

std::string TableText(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      absl::StrAppend(&line, Printable(row[i]), std::string(widths[i] - Width(row[i]) + 2, ' '));
    }
    absl::StrAppend(&text, absl::StripTrailingAsciiWhitespace(line), "\n");
  }
  return text;
}

std::string ScorersTable(const std::vector<Scorer>& scorers) {
  std::vector<std::vector<std::string>> rows = {
      {"NAME", "KIND", "RANGE", "BETTER", "PROMPT", "BATCH", "DESCRIPTION"}};
  for (const Scorer& scorer : scorers) {
    rows.push_back({scorer.name(), scorer.kind(), RangeText(scorer),
                    scorer.higher_is_better() ? "higher" : "lower",
                    scorer.needs_prompt() ? "needed" : "-", absl::StrCat(scorer.max_batch_size()),
                    scorer.description()});
  }
  return TableText(rows);
}

nlohmann::ordered_json ScorersJson(const std::vector<Scorer>& scorers) {
  auto json = nlohmann::ordered_json::array();
  for (const Scorer& scorer : scorers) {
    nlohmann::ordered_json one = {{"name", scorer.name()},
                                  {"kind", scorer.kind()},
                                  {"description", scorer.description()},
                                  {"digest", scorer.digest()}};
    if (scorer.has_min_score()) one["min_score"] = scorer.min_score();
    if (scorer.has_max_score()) one["max_score"] = scorer.max_score();
    one["higher_is_better"] = scorer.higher_is_better();
    one["needs_prompt"] = scorer.needs_prompt();
    one["max_batch_size"] = scorer.max_batch_size();
    json.push_back(std::move(one));
  }
  return json;
}

std::string ResultsTable(const ScoredImages& scored) {
  std::vector<std::vector<std::string>> rows = {{"IMAGE", "SCORE", "DETAILS"}};
  for (const ScoreResult& result : scored.results) {
    if (!result.has_score()) {
      rows.push_back({result.item_id(), "-", ErrorText(result.error())});
      continue;
    }
    std::string details =
        absl::StrJoin(Details(result.score()), " ", [](std::string* out, const auto& detail) {
          absl::StrAppend(out, detail.first, "=", NumberText(detail.second));
        });
    if (!result.score().text().empty()) {
      absl::StrAppend(&details, details.empty() ? "" : " ", "“", result.score().text(), "”");
    }
    rows.push_back({result.item_id(), NumberText(result.score().value()), details});
  }
  return TableText(rows);
}

nlohmann::ordered_json ResultsJson(const ScoredImages& scored) {
  auto results = nlohmann::ordered_json::array();
  for (const ScoreResult& result : scored.results) {
    nlohmann::ordered_json one = {{"item_id", result.item_id()}};
    if (result.has_score()) {
      one["value"] = result.score().value();
      one["details"] = nlohmann::ordered_json::object();
      for (const auto& [name, value] : Details(result.score())) one["details"][name] = value;
      one["text"] = result.score().text();
    } else {
      one["error"] = ErrorJson(result.error());
    }
    results.push_back(std::move(one));
  }
  return {{"scorer", scored.scorer}, {"scorer_digest", scored.scorer_digest}, {"results", results}};
}

std::string ResultsCsv(const ScoredImages& scored) {
  std::set<std::string> names;
  for (const ScoreResult& result : scored.results) {
    for (const auto& [name, value] : result.score().details()) names.insert(name);
  }
  std::string text = "item_id,value,error,text";
  for (const std::string& name : names) absl::StrAppend(&text, ",", CsvCell(name));
  absl::StrAppend(&text, "\r\n");
  for (const ScoreResult& result : scored.results) {
    absl::StrAppend(&text, CsvCell(result.item_id()), ",",
                    result.has_score() ? NumberText(result.score().value()) : "", ",",
                    result.has_score() ? "" : CsvCell(ErrorText(result.error())), ",",
                    CsvCell(result.score().text()));
    for (const std::string& name : names) {
      const auto found = result.score().details().find(name);
      absl::StrAppend(&text, ",",
                      found == result.score().details().end() ? "" : NumberText(found->second));
    }
    absl::StrAppend(&text, "\r\n");
  }
  return text;
}

std::string JobStateText(reward::v1::JobState state) {
  std::string name = reward::v1::JobState_Name(state);
  absl::string_view word = name;
  absl::ConsumePrefix(&word, "JOB_STATE_");
  return absl::AsciiStrToLower(word);
}

bool HasEnded(const Job& job) {
  return job.state() == reward::v1::JOB_STATE_SUCCEEDED ||
         job.state() == reward::v1::JOB_STATE_FAILED ||
         job.state() == reward::v1::JOB_STATE_CANCELLED;
}

std::string JobsTable(const std::vector<Job>& jobs) {
  std::vector<std::vector<std::string>> rows = {
      {"JOB", "STATE", "SCORER", "DONE", "FAILED", "CREATED", "ERROR"}};
  for (const Job& job : jobs) {
    rows.push_back({job.name(), JobStateText(job.state()), job.scorer(),
                    absl::StrCat(ItemsDone(job), "/", job.items_total()),
                    absl::StrCat(job.items_failed()), TimeText(job.create_time()),
                    job.has_error() ? ErrorText(job.error()) : ""});
  }
  return TableText(rows);
}

nlohmann::ordered_json JobJson(const Job& job) {
  nlohmann::ordered_json json = {{"name", job.name()},
                                 {"state", JobStateText(job.state())},
                                 {"scorer", job.scorer()},
                                 {"items_total", job.items_total()},
                                 {"items_succeeded", job.items_succeeded()},
                                 {"items_failed", job.items_failed()},
                                 {"create_time", TimeText(job.create_time())}};
  if (job.has_end_time()) json["end_time"] = TimeText(job.end_time());
  if (job.has_error()) json["error"] = ErrorJson(job.error());
  return json;
}

void JobDisplay::Show(const Job& job) {
  const int64_t total = std::max<int64_t>(1, job.items_total());
  const std::string counts =
      absl::StrCat(ItemsDone(job), "/", job.items_total(),
                   job.items_failed() > 0 ? absl::StrCat(", ", job.items_failed(), " failed") : "");
  if (columns_ == 0) {
    const int64_t tenth = 10 * ItemsDone(job) / total;
    if (tenth == last_tenth_ && job.state() == last_state_) return;
    last_tenth_ = tenth;
    last_state_ = job.state();
    out_ << job.name() << " " << JobStateText(job.state()) << " " << counts << std::endl;
    return;
  }
  const int64_t filled = kBarWidth * ItemsDone(job) / total;
  std::string bar;
  for (int64_t i = 0; i < kBarWidth; ++i) absl::StrAppend(&bar, i < filled ? "█" : "░");
  last_line_ = absl::StrCat(bar, " ", counts, " ", JobStateText(job.state()));
  // A line that wraps could not be drawn over.
  if (Width(last_line_) >= static_cast<size_t>(columns_)) last_line_ = counts;
  out_ << "\r\033[K" << last_line_ << std::flush;
}

void JobDisplay::Finish() {
  if (!last_line_.empty()) out_ << std::endl;
  last_line_.clear();
}

}  // namespace ddpo
