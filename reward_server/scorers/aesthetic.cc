#include "reward_server/scorers/aesthetic.h"

#include <ATen/ATen.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "common/nn/aesthetic_head.h"
#include "common/nn/clip_image_encoder.h"
#include "common/nn/model_digest.h"
#include "common/nn/network_options.h"

namespace ddpo {
namespace {

class AestheticScorer : public Scorer {
 public:
  AestheticScorer(ScorerInfo info, ClipImageEncoder encoder, AestheticHead head)
      : info_(std::move(info)), encoder_(std::move(encoder)), head_(std::move(head)) {}

  const ScorerInfo& info() const override { return info_; }

  std::vector<absl::StatusOr<ScoreValue>> ScoreBatch(
      absl::Span<const ScoringInput> inputs) override {
    try {
      return Score(inputs);
    } catch (const std::exception& error) {  // LibTorch's own, as for memory that ran out
      return {inputs.size(), absl::InternalError(absl::StrCat("aesthetic: ", error.what()))};
    }
  }

 private:
  std::vector<absl::StatusOr<ScoreValue>> Score(absl::Span<const ScoringInput> inputs) const {
    const at::NoGradGuard no_grad;
    std::vector<absl::StatusOr<ScoreValue>> outcomes(inputs.size(), ScoreValue{});
    std::vector<size_t> indices;  // of those that could be processed
    std::vector<at::Tensor> pixels;
    for (size_t i = 0; i < inputs.size(); ++i) {
      absl::StatusOr<at::Tensor> processed = encoder_.processor().Process(inputs[i].image);
      if (!processed.ok()) {
        outcomes[i] = processed.status();
        continue;
      }
      indices.push_back(i);
      pixels.push_back(*std::move(processed));
    }
    const size_t together = info_.gains_from_batching ? indices.size() : 1;
    for (size_t first = 0; first < indices.size(); first += together) {
      const at::Tensor batch = at::stack(at::ArrayRef(pixels).slice(first, together));
      const at::Tensor scores = head_.Score(encoder_.Encode(batch)).to(at::kCPU);
      const auto values = scores.accessor<float, 1>();
      for (size_t i = 0; i < together; ++i) {
        outcomes[indices[first + i]]->value = values[static_cast<int64_t>(i)];
      }
    }
    return outcomes;
  }

  const ScorerInfo info_;
  const ClipImageEncoder encoder_;
  const AestheticHead head_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Scorer>> MakeAestheticScorer(const AestheticOptions& options) {
  DDPO_ASSIGN_OR_RETURN(const NetworkOptions network,
                        ParseNetworkOptions(options.dtype, options.device));
  DDPO_ASSIGN_OR_RETURN(const std::string dir, FindResource(options.clip));
  std::string head_path = JoinPath(dir, options.head);
  if (!FileSystem::Real()->Exists(head_path)) {
    absl::StatusOr<std::string> elsewhere = FindResource(options.head);
    if (!elsewhere.ok()) {
      return absl::NotFoundError(
          absl::StrCat("the aesthetic head ", elsewhere.status().message(), " and in ", dir));
    }
    head_path = *std::move(elsewhere);
  }
  DDPO_ASSIGN_OR_RETURN(ClipImageEncoder encoder, ClipImageEncoder::Load(dir, network));
  DDPO_ASSIGN_OR_RETURN(AestheticHead head,
                        AestheticHead::Load(head_path, encoder.projection_dim(), network.device));
  DDPO_ASSIGN_OR_RETURN(const std::string clip_digest,
                        ModelDigest(dir, {"config.json", "preprocessor_config.json"}));
  DDPO_ASSIGN_OR_RETURN(const std::string head_digest, Sha256HexOfFile(head_path));
  ScorerInfo info;
  info.name = "aesthetic";
  info.kind = "aesthetic";
  info.description =
      "How much people would like the image, as the LAION aesthetic predictor guesses from CLIP's "
      "features: about 1 … 10";
  // The CPU's kernels sum a row in another order where others stand beside it, and an image's
  // reward must be the same bits whatever else is scored.
  info.gains_from_batching = network.device.is_cuda();
  info.digest = Sha256Hex(
      absl::StrCat("aesthetic 1 dtype=", options.dtype, " ", clip_digest, " ", head_digest));
  return std::make_unique<AestheticScorer>(std::move(info), std::move(encoder), std::move(head));
}

}  // namespace ddpo
