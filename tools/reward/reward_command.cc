#include <openssl/rand.h>
#include <unistd.h>

#include <array>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/rpc/security_flags.h"
#include "tools/command.h"
#include "tools/reward/image_files.h"
#include "tools/reward/reward_output.h"
#include "tools/reward/reward_session.h"
#include "tools/up/progress.h"

namespace ddpo {
namespace {

// Exit code of a command that did its job, where images have no score or the job did not succeed.
constexpr int kSomeFailed = 2;

struct RewardFlags {
  std::string server = "127.0.0.1:50061";
  config::v1::SecurityConfig security;
  double timeout_seconds = 300;
  bool json = false;
  bool csv = false;
  std::vector<std::string> images;
  std::string scorer;
  std::string prompt;
  std::string prompts_file;
  std::string request_id;
  std::string job;
  int limit = 50;
  double wait_seconds = 0;
};

absl::StatusOr<std::unique_ptr<RewardSession>> Connect(const RewardFlags& flags) {
  return RewardSession::Connect({.address = flags.server,
                                 .security = flags.security,
                                 .timeout = absl::Seconds(flags.timeout_seconds)});
}

absl::StatusOr<std::vector<ImageToScore>> Images(const RewardFlags& flags) {
  DDPO_ASSIGN_OR_RETURN(const std::vector<std::string> paths, FindImages(flags.images));
  std::vector<std::string> prompts(paths.size(), flags.prompt);
  if (!flags.prompts_file.empty()) {
    DDPO_ASSIGN_OR_RETURN(prompts, ReadPrompts(flags.prompts_file, paths));
  }
  std::vector<ImageToScore> images;
  for (size_t i = 0; i < paths.size(); ++i) images.push_back({paths[i], prompts[i]});
  return images;
}

std::string RandomId() {
  std::array<unsigned char, 16> bytes;
  RAND_bytes(bytes.data(), bytes.size());
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

int PrintResults(const ScoredImages& scored, const RewardFlags& flags) {
  if (flags.json) {
    std::cout << ResultsJson(scored).dump(2) << std::endl;
  } else {
    std::cout << (flags.csv ? ResultsCsv(scored) : ResultsTable(scored));
  }
  for (const reward::v1::ScoreResult& result : scored.results) {
    if (!result.has_score()) return kSomeFailed;
  }
  return 0;
}

absl::StatusOr<int> Models(const RewardFlags& flags) {
  DDPO_ASSIGN_OR_RETURN(const auto session, Connect(flags));
  if (flags.json) {
    std::cout << ScorersJson(session->scorers()).dump(2) << std::endl;
  } else {
    std::cout << ScorersTable(session->scorers());
  }
  return 0;
}

absl::StatusOr<int> Score(const RewardFlags& flags) {
  DDPO_ASSIGN_OR_RETURN(const auto images, Images(flags));
  DDPO_ASSIGN_OR_RETURN(const auto session, Connect(flags));
  DDPO_ASSIGN_OR_RETURN(const ScoredImages scored, session->Score(flags.scorer, images));
  return PrintResults(scored, flags);
}

absl::StatusOr<int> Submit(const RewardFlags& flags) {
  DDPO_ASSIGN_OR_RETURN(const auto images, Images(flags));
  DDPO_ASSIGN_OR_RETURN(const auto session, Connect(flags));
  const std::string request_id = flags.request_id.empty() ? RandomId() : flags.request_id;
  DDPO_ASSIGN_OR_RETURN(const reward::v1::Job job,
                        session->Submit(flags.scorer, request_id, images));
  // The name alone is what a script wants.
  std::cerr << images.size() << " images submitted; go on with: ddpo reward wait " << job.name()
            << std::endl;
  std::cout << job.name() << std::endl;
  return 0;
}

absl::StatusOr<int> Wait(const RewardFlags& flags) {
  const absl::Duration patience =
      flags.wait_seconds > 0 ? absl::Seconds(flags.wait_seconds) : absl::InfiniteDuration();
  const absl::Time deadline = absl::Now() + patience;
  const int columns = TerminalColumns(STDOUT_FILENO);
  // Between two looks; the call returns at once when the job ends.
  const absl::Duration look = columns > 0 ? absl::Milliseconds(500) : absl::Seconds(2);
  DDPO_ASSIGN_OR_RETURN(const auto session, Connect(flags));
  JobDisplay display(std::cout, columns);
  while (true) {
    const auto job = session->WaitJob(
        flags.job, std::max(absl::ZeroDuration(), std::min(look, deadline - absl::Now())));
    if (!job.ok()) {
      display.Finish();
      return job.status();
    }
    display.Show(*job);
    if (HasEnded(*job)) {
      display.Finish();
      if (job->has_error()) std::cerr << job->error().message() << std::endl;
      const bool all = job->state() == reward::v1::JOB_STATE_SUCCEEDED && job->items_failed() == 0;
      return all ? 0 : kSomeFailed;
    }
    if (absl::Now() >= deadline) {
      display.Finish();
      return absl::DeadlineExceededError(absl::StrCat(job->name(), " is still ",
                                                      JobStateText(job->state()), " after ",
                                                      absl::FormatDuration(patience)));
    }
  }
}

absl::StatusOr<int> List(const RewardFlags& flags) {
  DDPO_ASSIGN_OR_RETURN(const auto session, Connect(flags));
  DDPO_ASSIGN_OR_RETURN(const std::vector<reward::v1::Job> jobs, session->ListJobs(flags.limit));
  if (!flags.json) {
    std::cout << JobsTable(jobs);
    return 0;
  }
  auto json = nlohmann::ordered_json::array();
  for (const reward::v1::Job& job : jobs) json.push_back(JobJson(job));
  std::cout << json.dump(2) << std::endl;
  return 0;
}

absl::StatusOr<int> Results(const RewardFlags& flags) {
  DDPO_ASSIGN_OR_RETURN(const auto session, Connect(flags));
  // First: the results of a job that has ended are all there.
  DDPO_ASSIGN_OR_RETURN(const reward::v1::Job job,
                        session->WaitJob(flags.job, absl::ZeroDuration()));
  DDPO_ASSIGN_OR_RETURN(const ScoredImages scored, session->JobResults(flags.job));
  const int exit_code = PrintResults(scored, flags);
  if (job.state() == reward::v1::JOB_STATE_SUCCEEDED) return exit_code;
  std::cerr << job.name() << " is " << JobStateText(job.state()) << ": " << scored.results.size()
            << " of " << job.items_total() << " images have results"
            << (job.has_error() ? "; " + job.error().message() : "") << std::endl;
  return kSomeFailed;
}

absl::StatusOr<int> Cancel(const RewardFlags& flags) {
  DDPO_ASSIGN_OR_RETURN(const auto session, Connect(flags));
  DDPO_ASSIGN_OR_RETURN(const reward::v1::Job job, session->CancelJob(flags.job));
  std::cout << JobsTable({job});
  return 0;
}

// Adds what the images to score are given by.
void AddImageFlags(CLI::App* command, RewardFlags* flags, const std::string& what) {
  command->add_option("images", flags->images, what)->required();
  command->add_option("--scorer", flags->scorer, "The scorer's name, as `models` lists it")
      ->required();
  CLI::Option* prompt =
      command->add_option("--prompt", flags->prompt, "The text that all images were made from");
  command
      ->add_option("--prompts", flags->prompts_file,
                   "Text file with a prompt a line, in the images' order, or lines "
                   "FILE NAME<tab>PROMPT")
      ->excludes(prompt);
  command
      ->add_option("--timeout-seconds", flags->timeout_seconds,
                   "Longest time for one call that sends images")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
}

void AddOutputFlags(CLI::App* command, RewardFlags* flags, bool with_csv) {
  CLI::Option* json = command->add_flag("--json", flags->json, "Print JSON");
  if (with_csv) command->add_flag("--csv", flags->csv, "Print CSV")->excludes(json);
}

}  // namespace

void AddRewardCommand(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<RewardFlags>();
  CLI::App* command =
      app.add_subcommand("reward",
                         "Ask a reward server to score images. Exit codes: 0 every image has a "
                         "score; 1 it could not be done; 2 done, but some images have no score or "
                         "the job has not succeeded");
  command->require_subcommand(1);
  const auto add = [&](const char* name, const char* what,
                       absl::StatusOr<int> (*run)(const RewardFlags&)) {
    CLI::App* sub = command->add_subcommand(name, what);
    sub->add_option("--server", flags->server, "HOST:PORT of the reward server")
        ->capture_default_str();
    AddTlsClientFlags(sub, &flags->security);
    AddCertificateFlags(sub, &flags->security);
    AddTokenFlag(sub, &flags->security);
    sub->callback([flags, &exit_code, run] {
      const absl::StatusOr<int> result = run(*flags);
      exit_code = result.ok() ? *result : ExitCode("reward", result.status());
    });
    return sub;
  };
  const auto add_for_job = [&](const char* name, const char* what,
                               absl::StatusOr<int> (*run)(const RewardFlags&)) {
    CLI::App* sub = add(name, what, run);
    sub->add_option("job", flags->job, "The job's name, as `submit` printed it")->required();
    return sub;
  };
  AddOutputFlags(add("models", "List the server's scorers", Models), flags.get(), false);
  CLI::App* score = add("score", "Score images and wait for the scores", Score);
  AddImageFlags(score, flags.get(), "JPEG and PNG files, and folders of them");
  AddOutputFlags(score, flags.get(), true);
  CLI::App* submit =
      add("submit", "Have images scored in the background; prints the job's name", Submit);
  AddImageFlags(submit, flags.get(), "JPEG and PNG files, and folders of them");
  submit->add_option("--request-id", flags->request_id,
                     "The same one with the same images gives the same job (default: random)");
  add_for_job("wait", "Wait for a job's end and show its progress", Wait)
      ->add_option("--timeout", flags->wait_seconds, "Longest wait in seconds; 0: no limit")
      ->check(CLI::NonNegativeNumber);
  CLI::App* list = add("list", "List the jobs, newest first", List);
  list->add_option("--limit", flags->limit, "Most jobs")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  AddOutputFlags(list, flags.get(), false);
  AddOutputFlags(add_for_job("results", "Print a job's scores", Results), flags.get(), true);
  add_for_job("cancel", "End a job; results so far stay", Cancel);
}

}  // namespace ddpo
