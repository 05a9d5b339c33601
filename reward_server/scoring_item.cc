#include "reward_server/scoring_item.h"

#include <string>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/base/status_macros.h"
#include "common/tensors/image_decode.h"

namespace ddpo {
namespace {

// Where a status carries its reason.
constexpr char kReasonUrl[] = "ddpo.reward.v1.ItemError.reason";

absl::Status Invalid(absl::string_view reason, absl::string_view message) {
  return ItemFailure(absl::StatusCode::kInvalidArgument, reason, message);
}

absl::StatusOr<Image> FromRaw(const reward::v1::RawImage& raw, int64_t max_pixels) {
  // Both are below 2^32, so that neither product overflows.
  const uint64_t pixels = uint64_t{raw.width()} * raw.height();
  if (pixels > static_cast<uint64_t>(max_pixels)) {
    return Invalid("IMAGE_TOO_LARGE", absl::StrCat("an image of ", raw.width(), " × ", raw.height(),
                                                   " pixels; at most ", max_pixels, " are scored"));
  }
  if (pixels == 0) return Invalid("IMAGE_MISSING", "the image has no pixels");
  if (raw.rgb().size() != pixels * 3) {
    return Invalid("IMAGE_SIZE_MISMATCH",
                   absl::StrCat("rgb has ", raw.rgb().size(), " bytes, ", raw.width(), " × ",
                                raw.height(), " × 3 are ", pixels * 3));
  }
  Image image;
  image.width = static_cast<int>(raw.width());
  image.height = static_cast<int>(raw.height());
  // From pointers of the same type: one memcpy instead of a loop over characters.
  const auto* rgb = reinterpret_cast<const uint8_t*>(raw.rgb().data());
  image.rgb.assign(rgb, rgb + raw.rgb().size());
  return image;
}

absl::StatusOr<Image> FromEncoded(const std::string& bytes, int64_t max_pixels) {
  if (bytes.empty()) return Invalid("IMAGE_MISSING", "the image has 0 bytes");
  const absl::Span<const uint8_t> span(reinterpret_cast<const uint8_t*>(bytes.data()),
                                       bytes.size());
  absl::StatusOr<Image> image = DecodeImage(span, ImageLimits{.max_pixels = max_pixels});
  if (image.ok()) return image;
  return Invalid(
      absl::IsResourceExhausted(image.status()) ? "IMAGE_TOO_LARGE" : "IMAGE_DECODE_FAILED",
      image.status().message());
}

}  // namespace

absl::Status ItemFailure(absl::StatusCode code, absl::string_view reason,
                         absl::string_view message) {
  absl::Status status(code, message);
  status.SetPayload(kReasonUrl, absl::Cord(reason));
  return status;
}

absl::StatusOr<ScoringInput> ToScoringInput(const reward::v1::ScoreItem& item,
                                            const ScorerInfo& scorer, int64_t max_pixels) {
  if (scorer.needs_prompt && item.prompt().empty()) {
    return Invalid("PROMPT_MISSING", absl::StrCat("scorer ", scorer.name, " needs a prompt"));
  }
  ScoringInput input;
  switch (item.image().source_case()) {
    case reward::v1::Image::kRaw: {
      DDPO_ASSIGN_OR_RETURN(input.image, FromRaw(item.image().raw(), max_pixels));
      break;
    }
    case reward::v1::Image::kEncoded: {
      DDPO_ASSIGN_OR_RETURN(input.image, FromEncoded(item.image().encoded(), max_pixels));
      break;
    }
    case reward::v1::Image::SOURCE_NOT_SET:
      return Invalid("IMAGE_MISSING", "the item has no image");
  }
  input.prompt = item.prompt();
  input.metadata.insert(item.metadata().begin(), item.metadata().end());
  return input;
}

void SetOutcome(const absl::StatusOr<ScoreValue>& outcome, reward::v1::ScoreResult* result) {
  if (outcome.ok()) {
    reward::v1::Score* score = result->mutable_score();
    score->set_value(outcome->value);
    score->mutable_details()->insert(outcome->details.begin(), outcome->details.end());
    score->set_text(outcome->text);
    return;
  }
  const absl::Status& status = outcome.status();
  reward::v1::ItemError* error = result->mutable_error();
  error->set_code(static_cast<int>(status.code()));
  const absl::optional<absl::Cord> reason = status.GetPayload(kReasonUrl);
  error->set_reason(reason.has_value() ? std::string(*reason)
                                       : absl::StatusCodeToString(status.code()));
  error->set_message(std::string(status.message()));
}

}  // namespace ddpo
