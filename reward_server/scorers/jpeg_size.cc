#include "reward_server/scorers/jpeg_size.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/sha256.h"
#include "common/base/status_macros.h"
#include "common/tensors/jpeg.h"

namespace ddpo {
namespace {

// Pillow's default subsampling at this quality is 4:2:0, as EncodeJpeg's.
constexpr int kQuality = 95;
constexpr double kBytesPerUnit = 1000.0;

class JpegSizeScorer : public Scorer {
 public:
  explicit JpegSizeScorer(ScorerInfo info, double sign) : info_(std::move(info)), sign_(sign) {}

  const ScorerInfo& info() const override { return info_; }

  std::vector<absl::StatusOr<ScoreValue>> ScoreBatch(
      absl::Span<const ScoringInput> inputs) override {
    std::vector<absl::StatusOr<ScoreValue>> outcomes;
    outcomes.reserve(inputs.size());
    for (const ScoringInput& input : inputs) outcomes.push_back(Score(input.image));
    return outcomes;
  }

 private:
  absl::StatusOr<ScoreValue> Score(const Image& image) const {
    DDPO_ASSIGN_OR_RETURN(const std::vector<uint8_t> jpeg, EncodeJpeg(image, kQuality));
    ScoreValue score;
    score.value = sign_ * static_cast<double>(jpeg.size()) / kBytesPerUnit;
    score.details["bytes"] = static_cast<double>(jpeg.size());
    return score;
  }

  const ScorerInfo info_;
  const double sign_;
};

absl::Status RegisterOne(const std::string& name, const std::string& description, double sign,
                         ScorerRegistry* registry) {
  ScorerInfo info;
  info.name = name;
  info.kind = "jpeg_size";
  info.description = description;
  info.digest =
      Sha256Hex(absl::StrCat("jpeg_size quality=", kQuality, " subsampling=4:2:0 dct=islow",
                             " sign=", sign, " unit=", kBytesPerUnit));
  if (sign < 0) {
    info.max_score = 0;
  } else {
    info.min_score = 0;
  }
  info.gains_from_batching = false;
  info.thread_safe = true;
  return registry->Register(name, [info, sign]() -> absl::StatusOr<std::unique_ptr<Scorer>> {
    return std::make_unique<JpegSizeScorer>(info, sign);
  });
}

}  // namespace

absl::Status RegisterJpegSizeScorers(ScorerRegistry* registry) {
  DDPO_RETURN_IF_ERROR(RegisterOne(
      "jpeg_compressibility",
      "How small the image is as a JPEG of quality 95: minus its kilobytes (1000 bytes).", -1,
      registry));
  return RegisterOne("jpeg_incompressibility",
                     "How large the image is as a JPEG of quality 95: its kilobytes (1000 bytes).",
                     1, registry);
}

}  // namespace ddpo
