#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/nn/jinja_expression.h"

namespace ddpo {

// The part of Jinja that chat templates are written in: {{ }}, {# #}, `if`, `for`, `set` and
// transformers' own `generation`, with the white-space rules that transformers sets (trim_blocks
// and lstrip_blocks). What is not known is an error and never left out.
class JinjaTemplate {
 public:
  // INVALID_ARGUMENT begins with the line that is damaged or not supported.
  static absl::StatusOr<JinjaTemplate> Parse(const std::string& source);

  // INVALID_ARGUMENT where the template itself refuses (raise_exception) or a value does not fit.
  absl::StatusOr<std::string> Render(const JinjaScope& variables) const;

  using Statement = std::function<absl::Status(JinjaScope& scope, std::string* out)>;

 private:
  std::vector<Statement> statements_;
};

}  // namespace ddpo
