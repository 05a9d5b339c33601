#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/nn/jinja_lexer.h"
#include "common/nn/jinja_value.h"

namespace ddpo {

// The part of Jinja's expressions that chat templates are written in: literals, names, attributes
// and subscripts, + − * % ~, comparisons, `in`, `and`, `or`, `not`, `x if y else z`, tests (`is
// defined`, `is none`, `is string`, `is mapping`, `is iterable`), the filters and text methods of a
// list, and raise_exception. Anything else is INVALID_ARGUMENT when it is parsed or evaluated.

using JinjaScope = std::map<std::string, JinjaValue>;
using JinjaExpression = std::function<absl::StatusOr<JinjaValue>(const JinjaScope&)>;

// Reads tokens of one tag, one after the other; the last is a kEnd.
class JinjaParser {
 public:
  explicit JinjaParser(std::vector<JinjaToken> tokens) : tokens_(std::move(tokens)) {}

  absl::StatusOr<JinjaExpression> Expression();
  // An expression that ends before `x if …`, as that of a loop.
  absl::StatusOr<JinjaExpression> Or();

  const JinjaToken& peek() const { return tokens_[at_]; }
  JinjaToken Take();
  // Takes the next token if it is this name or symbol.
  bool TakeIf(absl::string_view text);
  absl::Status Expect(absl::string_view text);
  absl::Status ExpectEnd();

 private:
  bool Next(absl::string_view text) const;
  absl::StatusOr<JinjaExpression> And();
  absl::StatusOr<JinjaExpression> Not();
  absl::StatusOr<JinjaExpression> Comparison();
  absl::StatusOr<JinjaExpression> Test(JinjaExpression value);
  absl::StatusOr<JinjaExpression> Sum();
  absl::StatusOr<JinjaExpression> Product();
  absl::StatusOr<JinjaExpression> Postfix();
  absl::StatusOr<JinjaExpression> Primary();
  absl::StatusOr<JinjaExpression> Filter(JinjaExpression value);
  absl::StatusOr<JinjaExpression> Attribute(JinjaExpression value);
  absl::StatusOr<std::vector<JinjaExpression>> Arguments(const char* end);

  std::vector<JinjaToken> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace ddpo
