#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status_macros.h"
#include "common/nn/llava.h"
#include "tools/parity/kinds.h"

namespace ddpo {
namespace {

// Written where a reply is shorter than the longest.
constexpr int64_t kNoToken = -1;

// Replies to the right of which the rows are filled. At least as wide as what is expected: a
// fixture may be as wide as max_new_tokens.
at::Tensor PadRight(const std::vector<std::vector<int64_t>>& replies, int64_t width) {
  for (const auto& reply : replies) width = std::max(width, static_cast<int64_t>(reply.size()));
  at::Tensor ids = at::full({static_cast<int64_t>(replies.size()), width}, kNoToken, at::kLong);
  for (size_t i = 0; i < replies.size(); ++i) {
    const auto size = static_cast<int64_t>(replies[i].size());
    ids[static_cast<int64_t>(i)].narrow(0, 0, size).copy_(at::tensor(replies[i], at::kLong));
  }
  return ids;
}

absl::StatusOr<NamedTensors> GreedyReplies(const Fixture& fixture, ParityModel& model) {
  DDPO_ASSIGN_OR_RETURN(const Llava* llava, model.llava());
  DDPO_ASSIGN_OR_RETURN(const std::vector<std::string> texts, fixture.Strings("questions"));
  DDPO_ASSIGN_OR_RETURN(const int64_t max_new_tokens, fixture.Integer("max_new_tokens"));
  DDPO_ASSIGN_OR_RETURN(const at::Tensor images, fixture.Images("images"));
  const std::vector<Image> pictures = ToImages(images);
  if (pictures.size() != texts.size()) {
    return fixture.Error("params.questions: expected one for each of in.images");
  }
  std::vector<LlavaQuestion> questions;
  for (size_t i = 0; i < texts.size(); ++i) {
    questions.push_back({&pictures[i], texts[i], static_cast<int>(max_new_tokens)});
  }
  std::vector<std::vector<int64_t>> replies;
  for (absl::StatusOr<LlavaReply>& reply : llava->Answer(questions)) {
    DDPO_RETURN_IF_ERROR(reply.status());
    replies.push_back(std::move(reply->token_ids));
  }
  const auto expected = fixture.expected().find("token_ids");
  const bool known = expected != fixture.expected().end() && expected->second.dim() == 2;
  return NamedTensors{{"token_ids", PadRight(replies, known ? expected->second.size(1) : 0)}};
}

}  // namespace

std::string ParityModel::dtype() const {
  if (options_.dtype == at::kFloat) return "float32";
  return options_.dtype == at::kHalf ? "float16" : "bfloat16";
}

std::string ParityModel::device() const { return options_.device.is_cuda() ? "cuda" : "cpu"; }

absl::StatusOr<const Llava*> ParityModel::llava() {
  if (llava_ == nullptr) {
    LlavaOptions options;
    options.dtype = dtype();
    options.device = device();
    DDPO_ASSIGN_OR_RETURN(llava_, Llava::Load(dir_, options));
  }
  return llava_.get();
}

void AddLlavaKinds(ParityKinds& kinds) { kinds["llava"] = GreedyReplies; }

}  // namespace ddpo
