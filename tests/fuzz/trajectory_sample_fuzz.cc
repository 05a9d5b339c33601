// TrajectorySample from an actor: what the learner takes over is what the task asked for, and
// becomes tensors; anything else is refused, and the ledger balances.

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "learner/epoch_tensors.h"
#include "learner/trajectory_buffer.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/message_list.h"

namespace ddpo::fuzz {
namespace {

using cluster::v1::SampleAck;
using cluster::v1::TrajectorySample;

constexpr uint64_t kGeneration = 3;
constexpr int kSteps = 2;
constexpr int kSamples = 2;

class TrajectorySampleTarget : public FuzzTarget {
 public:
  TrajectorySampleTarget() {
    // Not SourcePath, which GCC 12 here takes for an overflow.
    pipeline_ =
        Pipeline::Load(JoinPath(DDPO_SOURCE_DIR, "tests/goldens/pipelines/tiny"), NetworkOptions())
            .value();
  }

  std::vector<std::string> Corpus() override {
    std::vector<std::string> samples;
    for (int i = 0; i < kSamples; ++i) samples.push_back(GoodSample(i).SerializeAsString());
    return {JoinMessages(samples), JoinMessages({samples[0], samples[0], samples[1]})};
  }

  std::string Mutate(const std::string& input, Random& random) override {
    return MutateMessages(TrajectorySample::default_instance(), input, random);
  }

  bool Run(const std::string& input) override {
    TrajectoryBuffer buffer(kSteps, pipeline_->LatentShape(), 0);
    cluster::v1::RolloutTask task;
    task.set_task_id("task");
    for (int i = 0; i < kSamples; ++i) task.add_prompts("a cat");
    buffer.Expect(task);
    int taken = 0;
    int64_t received = 0;
    for (const std::string& message : SplitMessages(input)) {
      TrajectorySample sample;
      if (!sample.ParseFromString(message)) break;  // gRPC ends the stream
      const TrajectoryBuffer::Answer answer = buffer.Offer(sample, kGeneration);
      Require(answer.ack.outcome() != SampleAck::OUTCOME_UNSPECIFIED, "an ack without an outcome");
      Require(answer.ack.outcome() != SampleAck::REFUSED || !answer.ack.message().empty(),
              "a refusal that says nothing");
      if (answer.ack.outcome() == SampleAck::TAKEN) ++taken;
      CheckBalance(buffer, ++received);
    }
    if (taken < kSamples) return false;
    CheckTensors(buffer.TakeEpoch(0).value());
    return true;
  }

 private:
  TrajectorySample GoodSample(int index) const {
    const auto channels = static_cast<int32_t>(pipeline_->unet().in_channels());
    const auto size = static_cast<int32_t>(pipeline_->unet().sample_size());
    TrajectorySample sample;
    sample.set_generation(kGeneration);
    sample.set_actor_id("actor-0");
    sample.set_task_id("task");
    sample.set_sample_index(index);
    sample.set_num_steps(kSteps);
    sample.set_latent_channels(channels);
    sample.set_latent_height(size);
    sample.set_latent_width(size);
    sample.set_latents(std::string(sizeof(float) * (kSteps + 1) * channels * size * size, '\0'));
    sample.set_log_probs(std::string(sizeof(float) * kSteps, '\0'));
    sample.set_reward(0.5);
    (*sample.mutable_reward_details())["bytes"] = 500;
    (*sample.mutable_seconds())["denoise"] = 1.5;
    return sample;
  }

  static void CheckBalance(const TrajectoryBuffer& buffer, int64_t received) {
    const cluster::v1::Ledger ledger = buffer.ledger();
    int64_t dropped = 0;
    for (const auto& [reason, count] : ledger.dropped()) dropped += count;
    Require(
        ledger.received() == received && received == ledger.trained() + dropped + ledger.buffered(),
        ledger.ShortDebugString());
  }

  void CheckTensors(const std::vector<TrainingSample>& samples) const {
    Require(samples.size() == kSamples, "a complete task lacks samples");
    const std::vector<double> weights(samples.size(), 1);
    const auto tensors = EpochTensors::Create(*pipeline_, kSteps, {samples, weights, 0});
    if (!tensors.ok()) {
      Require(absl::IsInvalidArgument(tensors.status()), tensors.status().ToString());
      return;
    }
    Require(at::stack(tensors->latents).isfinite().all().item<bool>() &&
                tensors->log_probs.isfinite().all().item<bool>(),
            "what is not finite was taken");
    for (const TrainingSample& sample : samples) Require(std::isfinite(sample.reward), "reward");
  }

  std::unique_ptr<Pipeline> pipeline_;
};

}  // namespace

std::unique_ptr<FuzzTarget> MakeTarget() { return std::make_unique<TrajectorySampleTarget>(); }

}  // namespace ddpo::fuzz
