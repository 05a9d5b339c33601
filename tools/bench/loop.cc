#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/base/shutdown.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "tools/bench/bench.h"
#include "tools/bench/median.h"
#include "tools/run/metrics_log.h"
#include "tools/run/run_folder.h"
#include "tools/up/run_cluster.h"

namespace ddpo {

absl::StatusOr<double> BenchLoop(const BenchOptions& options) {
  DDPO_ASSIGN_OR_RETURN(
      config::v1::Config config,
      ParseConfig(absl::StrCat("model: ", options.model,
                               "\nreward: jpeg_compressibility\nprompts: {set: animals}\n"
                               "run: {name: bench, epochs: ",
                               options.repeats + 1, "}\ncluster: {actors: ", options.threads,
                               "}\nsampling: {num_steps: ", options.steps, ", batch_size: ",
                               options.batch, ", samples_per_epoch: ", options.samples,
                               "}\ntraining: {learning_rate: 3e-3, clip_range: 1e-3, "
                               "minibatch_size: ",
                               options.batch, ", parallel_backwards: ", options.threads, "}\n"),
                  "ddpo bench loop"));
  std::error_code error;
  const RunFolder run(
      absl::StrCat(std::filesystem::temp_directory_path(error).string(), "/ddpo-bench-", getpid()));
  absl::Cleanup remove = [&run] {
    std::error_code ignored;
    std::filesystem::remove_all(run.path(), ignored);
  };
  DDPO_RETURN_IF_ERROR(run.Prepare(config).status());
  ShutdownSignal shutdown;
  std::ofstream nowhere;
  DDPO_RETURN_IF_ERROR(
      RunCluster(run, {.config = config, .out = &nowhere, .columns = 0, .at_end = {}}, shutdown));
  DDPO_ASSIGN_OR_RETURN(std::vector<nlohmann::json> metrics, ReadMetricsLog(run.metrics_path()));
  std::vector<double> speeds;
  for (size_t i = 1; i < metrics.size(); ++i) {
    speeds.push_back(MetricOr(metrics[i], "samples_per_second", 0));
  }
  return Median(std::move(speeds));
}

}  // namespace ddpo
