#include "reward_server/judges/llava_judge.h"

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/synchronization/mutex.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/nn/llava.h"

namespace ddpo {
namespace {

class LlavaJudge : public ImageJudge {
 public:
  explicit LlavaJudge(std::unique_ptr<const Llava> llava)
      : digest_(llava->digest()),
        max_batch_size_(llava->max_batch_size()),
        llava_(std::move(llava)) {}

  std::string digest() const override { return digest_; }
  int max_batch_size() const override { return max_batch_size_; }

  std::vector<absl::StatusOr<std::string>> Answer(
      absl::Span<const ImageQuestion> questions) override {
    std::vector<LlavaQuestion> asked;
    asked.reserve(questions.size());
    for (const ImageQuestion& question : questions) {
      asked.push_back({question.image, question.text, question.max_new_tokens});
    }
    std::vector<absl::StatusOr<std::string>> replies;
    replies.reserve(questions.size());
    absl::MutexLock lock(&mu_);
    for (const absl::StatusOr<LlavaReply>& reply : llava_->Answer(asked)) {
      if (reply.ok()) {
        replies.emplace_back(std::string(absl::StripAsciiWhitespace(reply->text)));
      } else {
        replies.emplace_back(reply.status());
      }
    }
    return replies;
  }

 private:
  const std::string digest_;
  const int max_batch_size_;
  absl::Mutex mu_;
  const std::unique_ptr<const Llava> llava_ ABSL_PT_GUARDED_BY(mu_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<ImageJudge>> CreateLlavaJudge(const LlavaJudgeOptions& options) {
  DDPO_ASSIGN_OR_RETURN(const std::string dir, FindResource(options.model));
  LlavaOptions llava_options;
  llava_options.dtype = options.dtype;
  llava_options.device = options.device;
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<const Llava> llava, Llava::Load(dir, llava_options));
  return std::make_unique<LlavaJudge>(std::move(llava));
}

}  // namespace ddpo
