#include "tools/up/reward_child.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "tools/up/local_cluster.h"

namespace ddpo {

absl::StatusOr<std::unique_ptr<RewardChild>> RewardChild::Start(
    const config::v1::Config& config, const RunFolder& run,
    const std::function<bool()>& cancelled) {
  constexpr absl::Duration kPoll = absl::Milliseconds(20);
  const std::string log = run.path() + "/logs/report-reward-server.log";
  const std::string address_file = run.path() + "/logs/report-reward-server.address";
  const std::string listen = config.cluster().listen_host() + ":0";
  FileSystem* files = FileSystem::Real();
  DDPO_RETURN_IF_ERROR(files->CreateDirectories(run.path() + "/logs"));
  DDPO_RETURN_IF_ERROR(files->RemoveAll(address_file));
  DDPO_ASSIGN_OR_RETURN(std::string program_dir, ProgramDir());
  std::unique_ptr<RewardChild> child(new RewardChild);
  DDPO_ASSIGN_OR_RETURN(
      child->process_,
      Subprocess::Start(
          {.argv = {program_dir + "/ddpo-reward-server", "--run-config", run.config_path(),
                    "--scorers", ScorersFor(config), "--listen", listen, "--metrics-listen", listen,
                    "--address-file", address_file},
           .log_file = log,
           .environment = {}}));
  while (!files->Exists(address_file)) {
    if (cancelled()) return absl::CancelledError("stopped while the reward server started");
    if (const auto exit = child->process_->Poll()) {
      return absl::InternalError(
          absl::StrCat("the reward server ended with ", exit->ToString(), "; see ", log));
    }
    absl::SleepFor(kPoll);
  }
  DDPO_ASSIGN_OR_RETURN(std::string text, ReadFile(address_file));
  child->address_ = text.substr(0, text.find('\n'));
  return child;
}

}  // namespace ddpo
