#include "tools/report/finish_run.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "actor/reward_client.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/config/prompts.h"
#include "common/diffusion/pipeline.h"
#include "common/nn/network_options.h"
#include "common/nn/policy.h"
#include "common/tensors/safetensors.h"
#include "tools/report/evaluation.h"
#include "tools/report/run_report.h"
#include "tools/run/metrics_log.h"
#include "tools/write_image.h"

namespace ddpo {
namespace {

constexpr int kGridColumns = 6;

absl::StatusOr<std::vector<double>> Rewards(RewardClient& client, const std::vector<Image>& images,
                                            const std::vector<EvaluationPair>& pairs,
                                            const FinishRunOptions& options) {
  std::vector<std::string> prompts;
  for (const EvaluationPair& pair : pairs) prompts.push_back(pair.prompt);
  DDPO_ASSIGN_OR_RETURN(std::vector<RewardResult> results,
                        client.Score(images, prompts, options.cancelled));
  std::vector<double> rewards;
  for (const RewardResult& result : results) rewards.push_back(result.value);
  return rewards;
}

// Draws the pairs with the policy in this file, which the pipeline then has.
absl::StatusOr<std::vector<Image>> DrawWithPolicy(const std::string& path, Pipeline& pipeline,
                                                  const std::vector<EvaluationPair>& pairs,
                                                  const FinishRunOptions& options) {
  DDPO_ASSIGN_OR_RETURN(const std::optional<LoraWeights> lora,
                        ApplyPolicyFile(pipeline.unet(), path));
  return DrawPairs(pipeline, pairs, options.config.sampling(), lora ? &*lora : nullptr,
                   options.cancelled);
}

// The grids of the base model and of every saved policy; the ends are parts of what the comparison
// drew anyway.
absl::StatusOr<std::vector<GridOfEpoch>> DrawGrids(const RunFolder& run, Pipeline& pipeline,
                                                   const std::vector<EvaluationPair>& pairs,
                                                   const std::vector<Image>& base,
                                                   const std::vector<Image>& last,
                                                   const FinishRunOptions& options) {
  const size_t count = std::min<size_t>(pairs.size(), options.config.evaluation().grid_images());
  const std::vector<EvaluationPair> shown(pairs.begin(), pairs.begin() + count);
  const std::vector<RunFolder::SavedPolicy> saved = run.SavedPolicies(options.config);
  std::vector<GridOfEpoch> grids;
  grids.push_back({0, {base.begin(), base.begin() + count}});
  for (size_t i = 0; i + 1 < saved.size(); ++i) {
    if (saved[i].epoch == 0) continue;
    options.note(absl::StrCat("drawing samples of epoch ", saved[i].epoch));
    GridOfEpoch grid{saved[i].epoch, {}};
    DDPO_ASSIGN_OR_RETURN(grid.images, DrawWithPolicy(saved[i].path, pipeline, shown, options));
    grids.push_back(std::move(grid));
  }
  const int64_t last_epoch = saved.empty() ? options.config.run().epochs() : saved.back().epoch;
  grids.push_back({last_epoch, {last.begin(), last.begin() + count}});
  for (const GridOfEpoch& grid : grids) {
    DDPO_RETURN_IF_ERROR(WriteGrid(run.SampleGrid(grid.epoch), grid.images, kGridColumns));
  }
  return grids;
}

nlohmann::ordered_json SummaryFile(const config::v1::Config& config,
                                   const ComparisonSummary& summary) {
  nlohmann::ordered_json json = SummaryToJson(summary);
  json["reward"] = config.reward();
  json["model"] = config.model();
  json["evaluation_seed"] = config.evaluation().seed();
  return json;
}

}  // namespace

absl::StatusOr<ComparisonSummary> FinishRun(const RunFolder& run, const FinishRunOptions& options) {
  const config::v1::Config& config = options.config;
  DDPO_RETURN_IF_ERROR(FileSystem::Real()->CreateDirectories(run.samples_dir()));
  DDPO_ASSIGN_OR_RETURN(NetworkOptions network_options,
                        ParseNetworkOptions(config.sampling().dtype(), config.sampling().device()));
  DDPO_ASSIGN_OR_RETURN(std::string model, FindResource(config.model()));
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<Pipeline> pipeline, Pipeline::Load(model, network_options));
  const std::string final_policy = run.FinalPolicy(config);
  // One that is missing or damaged is found before all the drawing.
  DDPO_RETURN_IF_ERROR(ReadSafetensors(final_policy).status());
  DDPO_ASSIGN_OR_RETURN(std::vector<std::string> prompts, LoadPrompts(config.prompts()));
  RewardClientOptions client_options;
  client_options.scorer = config.reward();
  client_options.security = config.security();
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<RewardClient> client,
                        RewardClient::Create(options.reward_addresses, client_options));

  const std::vector<EvaluationPair> pairs =
      EvaluationPairs(prompts, config.evaluation().pairs(), config.evaluation().seed());
  options.note(absl::StrCat("comparing with the base model on ", pairs.size(), " pairs"));
  // First the base model: a policy may replace its weights.
  DDPO_ASSIGN_OR_RETURN(std::vector<Image> base,
                        DrawPairs(*pipeline, pairs, config.sampling(), nullptr, options.cancelled));
  DDPO_ASSIGN_OR_RETURN(std::vector<Image> last,
                        DrawWithPolicy(final_policy, *pipeline, pairs, options));
  DDPO_ASSIGN_OR_RETURN(std::vector<double> base_rewards, Rewards(*client, base, pairs, options));
  DDPO_ASSIGN_OR_RETURN(std::vector<double> last_rewards, Rewards(*client, last, pairs, options));
  DDPO_ASSIGN_OR_RETURN(ComparisonSummary summary, Summarize(base_rewards, last_rewards));
  DDPO_RETURN_IF_ERROR(
      WriteFileAtomically(run.summary_path(), SummaryFile(config, summary).dump(2) + "\n"));

  RunReport report;
  report.name = config.run().name();
  report.model = std::filesystem::path(config.model()).filename().string();
  report.reward = config.reward();
  report.summary = summary;
  DDPO_ASSIGN_OR_RETURN(report.config_yaml, ReadFile(run.config_path()));
  DDPO_ASSIGN_OR_RETURN(report.metrics, ReadMetricsLog(run.metrics_path()));
  DDPO_ASSIGN_OR_RETURN(report.grids, DrawGrids(run, *pipeline, pairs, base, last, options));
  for (size_t i = 0; i < report.grids.front().images.size(); ++i) {
    report.pairs.push_back(
        {pairs[i].prompt, pairs[i].seed, base[i], last[i], base_rewards[i], last_rewards[i]});
  }
  DDPO_ASSIGN_OR_RETURN(std::string html, RenderReport(report));
  DDPO_RETURN_IF_ERROR(WriteFileAtomically(run.report_path(), html));
  return summary;
}

}  // namespace ddpo
