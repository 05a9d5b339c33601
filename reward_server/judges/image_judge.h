#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/tensors/image.h"

namespace ddpo {

struct ImageQuestion {
  const Image* image = nullptr;  // not owned; lives as long as the call
  std::string text;
  int max_new_tokens = 64;
};

// A vision-language model that answers questions about images: a LLaVA in this process, or a chat
// endpoint elsewhere. Thread-safe: scorers share a judge, and each has threads of its own.
class ImageJudge {
 public:
  virtual ~ImageJudge() = default;

  // Identifies the model and how it is asked: judges with equal digests answer alike.
  virtual std::string digest() const = 0;
  // Most questions of one Answer.
  virtual int max_batch_size() const = 0;

  // One reply for each question, in their order. A question that could not be answered is a
  // status; an empty reply is a reply.
  virtual std::vector<absl::StatusOr<std::string>> Answer(
      absl::Span<const ImageQuestion> questions) = 0;
};

}  // namespace ddpo
