#include "tools/status/status_output.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "tools/run/metrics_log.h"

namespace ddpo {
namespace {

using cluster::v1::ActorStatus;
using cluster::v1::GetStatusResponse;

// "0.4 s ago", "12 min ago", "3.5 h ago".
std::string Age(double seconds) {
  if (seconds < 100) return absl::StrFormat("%.1f s ago", seconds);
  if (seconds < 6000) return absl::StrFormat("%.0f min ago", seconds / 60);
  return absl::StrFormat("%.1f h ago", seconds / 3600);
}

template <typename Counts>
std::string CountsText(const Counts& counts) {
  // A protobuf map has no order of its own.
  std::vector<std::string> parts;
  for (const auto& [name, count] : counts) parts.push_back(absl::StrCat(count, " ", name));
  std::sort(parts.begin(), parts.end());
  return absl::StrJoin(parts, ", ");
}

template <typename Counts>
nlohmann::json CountsJson(const Counts& counts) {
  nlohmann::json json = nlohmann::json::object();
  for (const auto& [name, count] : counts) json[name] = count;
  return json;
}

void AppendLine(std::string* text, const char* name, const std::string& value) {
  absl::StrAppendFormat(text, "%-11s%s\n", name, value);
}

std::string PhaseText(const GetStatusResponse& status) {
  std::string text = status.phase();
  if (status.phase_total() > 0) {
    absl::StrAppend(&text, ", ", status.phase_done(), " of ", status.phase_total(), " samples");
  }
  return absl::StrCat(text, "; last progress ", Age(status.progress_age_seconds()));
}

// The newest line of metrics.jsonl; null before the first epoch's end.
nlohmann::json LastMetrics(const GetStatusResponse& status) {
  nlohmann::json line =
      nlohmann::json::parse(status.last_metrics_json(), nullptr, /*allow_exceptions=*/false);
  return line.is_object() ? line : nlohmann::json();
}

std::string RewardText(const GetStatusResponse& status) {
  const nlohmann::json line = LastMetrics(status);
  if (line.is_null()) return "none yet";
  return absl::StrFormat("%.4f in epoch %.0f, %.1f images/s", MetricOr(line, "reward_mean", 0),
                         MetricOr(line, "epoch", 0), MetricOr(line, "samples_per_second", 0));
}

std::string CheckpointText(const GetStatusResponse& status) {
  if (status.checkpoint_epochs() < 0) return "none";
  const std::string epochs = absl::StrCat("after ", status.checkpoint_epochs(), " epochs, ");
  return epochs + (status.checkpoint_age_seconds() < 0 ? "of an earlier start"
                                                       : Age(status.checkpoint_age_seconds()));
}

std::string SamplesText(const cluster::v1::Ledger& ledger) {
  std::string text = absl::StrFormat("%d received = %d trained + %d buffered", ledger.received(),
                                     ledger.trained(), ledger.buffered());
  int64_t dropped = 0;
  for (const auto& [reason, count] : ledger.dropped()) dropped += count;
  absl::StrAppend(&text, " + ", dropped, " dropped");
  if (dropped > 0) absl::StrAppend(&text, " (", CountsText(ledger.dropped()), ")");
  return text;
}

// How many actors sample with which version, the newest first.
std::string VersionsText(const GetStatusResponse& status) {
  std::map<int64_t, int, std::greater<>> actors;
  for (const ActorStatus& actor : status.actors()) ++actors[actor.policy_version()];
  std::vector<std::string> parts;
  for (const auto& [version, count] : actors) {
    parts.push_back(version < 0 ? absl::StrCat(count, " without one")
                                : absl::StrCat(count, " at ", version));
  }
  std::string text = absl::StrCat("version ", status.policy_version());
  if (!parts.empty()) absl::StrAppend(&text, "; actors: ", absl::StrJoin(parts, ", "));
  return text;
}

void AppendActors(std::string* text, const GetStatusResponse& status) {
  if (status.actors().empty()) {
    absl::StrAppend(text, "\nthere are no actors\n");
    return;
  }
  size_t width = 5;
  for (const ActorStatus& actor : status.actors()) {
    width = std::max(width, actor.actor_id().size());
  }
  const int columns = static_cast<int>(width);
  absl::StrAppendFormat(text, "\n%-*s  version  samples  heard of      lost  holds\n", columns,
                        "actor");
  for (const ActorStatus& actor : status.actors()) {
    absl::StrAppendFormat(text, "%-*s  %7d  %7d  %-12s  %4d  %s\n", columns, actor.actor_id(),
                          actor.policy_version(), actor.samples_delivered(),
                          Age(actor.last_seen_seconds()), actor.tasks_lost(),
                          actor.task_ids().empty() ? "-" : absl::StrJoin(actor.task_ids(), " "));
  }
  for (const ActorStatus& actor : status.actors()) {
    if (actor.last_error().empty()) continue;
    absl::StrAppendFormat(text, "%s lost a task %s: %s\n", actor.actor_id(),
                          Age(actor.last_error_age_seconds()),
                          absl::StrReplaceAll(actor.last_error(), {{"\n", " "}}));
  }
}

}  // namespace

std::string ClusterStatusText(const GetStatusResponse& status) {
  std::string text;
  AppendLine(&text, "run", absl::StrCat(status.run_id(), ", start ", status.generation()));
  AppendLine(&text, "epoch", absl::StrCat(status.epoch(), " of ", status.epochs_total()));
  AppendLine(&text, "phase", PhaseText(status));
  AppendLine(&text, "reward", RewardText(status));
  AppendLine(&text, "policy", VersionsText(status));
  AppendLine(&text, "checkpoint", CheckpointText(status));
  AppendLine(&text, "tasks",
             absl::StrFormat("%d wait, %d with actors; %d leases expired, %d given back",
                             status.tasks_waiting(), status.tasks_leased(), status.leases_expired(),
                             status.tasks_failed()));
  AppendLine(&text, "samples", SamplesText(status.ledger()));
  if (!status.failures().empty()) {
    AppendLine(&text, "failures", CountsText(status.failures()) + " (starts, by reason)");
  }
  if (!status.error().empty()) AppendLine(&text, "error", status.error());
  AppendActors(&text, status);
  return text;
}

nlohmann::json ClusterStatusJson(const GetStatusResponse& status) {
  using Json = nlohmann::json;
  Json checkpoint;
  if (status.checkpoint_epochs() >= 0) {
    const double age = status.checkpoint_age_seconds();
    checkpoint = {{"epochs", status.checkpoint_epochs()},
                  {"age_seconds", age < 0 ? Json() : Json(age)}};
  }
  Json actors = Json::array();
  for (const ActorStatus& actor : status.actors()) {
    Json error;
    if (!actor.last_error().empty()) {
      error = {{"message", actor.last_error()}, {"age_seconds", actor.last_error_age_seconds()}};
    }
    actors.push_back(
        {{"id", actor.actor_id()},
         {"policy_version", actor.policy_version()},
         {"samples_delivered", actor.samples_delivered()},
         {"last_seen_seconds", actor.last_seen_seconds()},
         {"tasks_held", std::vector<std::string>(actor.task_ids().begin(), actor.task_ids().end())},
         {"tasks_lost", actor.tasks_lost()},
         {"last_error", error}});
  }
  const cluster::v1::Ledger& ledger = status.ledger();
  return {{"run_id", status.run_id()},
          {"generation", status.generation()},
          {"epoch", status.epoch()},
          {"epochs_total", status.epochs_total()},
          {"policy_version", status.policy_version()},
          {"phase", status.phase()},
          {"phase_done", status.phase_done()},
          {"phase_total", status.phase_total()},
          {"progress_age_seconds", status.progress_age_seconds()},
          {"checkpoint", checkpoint},
          {"tasks",
           {{"waiting", status.tasks_waiting()},
            {"leased", status.tasks_leased()},
            {"leases_expired", status.leases_expired()},
            {"failed", status.tasks_failed()}}},
          {"ledger",
           {{"received", ledger.received()},
            {"trained", ledger.trained()},
            {"buffered", ledger.buffered()},
            {"dropped", CountsJson(ledger.dropped())}}},
          {"failures", CountsJson(status.failures())},
          {"error", status.error().empty() ? Json() : Json(status.error())},
          {"last_metrics", LastMetrics(status)},
          {"actors", actors}};
}

}  // namespace ddpo
