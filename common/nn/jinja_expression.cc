#include "common/nn/jinja_expression.h"

#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

// Of parentheses in parentheses.
constexpr int kMaxDepth = 64;

bool IsSymbol(const JinjaToken& token, absl::string_view text) {
  return (token.kind == JinjaToken::kSymbol || token.kind == JinjaToken::kName) &&
         token.text == text;
}

absl::StatusOr<JinjaArguments> Evaluate(const std::vector<JinjaExpression>& expressions,
                                        const JinjaScope& scope) {
  JinjaArguments values;
  for (const JinjaExpression& expression : expressions) {
    DDPO_ASSIGN_OR_RETURN(values.emplace_back(), expression(scope));
  }
  return values;
}

template <typename Function>
JinjaExpression Binary(JinjaExpression left, JinjaExpression right, Function function) {
  return [left, right, function](const JinjaScope& scope) -> absl::StatusOr<JinjaValue> {
    DDPO_ASSIGN_OR_RETURN(const JinjaValue a, left(scope));
    DDPO_ASSIGN_OR_RETURN(const JinjaValue b, right(scope));
    return function(a, b);
  };
}

JinjaExpression Constant(JinjaValue value) {
  return [value](const JinjaScope&) -> absl::StatusOr<JinjaValue> { return value; };
}

}  // namespace

JinjaToken JinjaParser::Take() { return peek().kind == JinjaToken::kEnd ? peek() : tokens_[at_++]; }

bool JinjaParser::Next(absl::string_view text) const { return IsSymbol(peek(), text); }

bool JinjaParser::TakeIf(absl::string_view text) {
  if (!Next(text)) return false;
  ++at_;
  return true;
}

absl::Status JinjaParser::Expect(absl::string_view text) {
  if (TakeIf(text)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("`", peek().text, "` where `", text, "` was expected"));
}

absl::Status JinjaParser::ExpectEnd() {
  if (peek().kind == JinjaToken::kEnd) return absl::OkStatus();
  return JinjaUnsupported(absl::StrCat("`", peek().text, "` here"));
}

absl::StatusOr<JinjaExpression> JinjaParser::Expression() {
  if (++depth_ > kMaxDepth) return absl::InvalidArgumentError("too many parentheses");
  const absl::Cleanup leave = [this] { --depth_; };
  DDPO_ASSIGN_OR_RETURN(JinjaExpression value, Or());
  if (!TakeIf("if")) return value;
  DDPO_ASSIGN_OR_RETURN(const JinjaExpression condition, Or());
  JinjaExpression otherwise = Constant(JinjaUndefined());
  if (TakeIf("else")) {
    DDPO_ASSIGN_OR_RETURN(otherwise, Expression());
  }
  return JinjaExpression([=](const JinjaScope& scope) -> absl::StatusOr<JinjaValue> {
    DDPO_ASSIGN_OR_RETURN(const JinjaValue chosen, condition(scope));
    return JinjaTruth(chosen) ? value(scope) : otherwise(scope);
  });
}

absl::StatusOr<JinjaExpression> JinjaParser::Or() {
  DDPO_ASSIGN_OR_RETURN(JinjaExpression left, And());
  while (TakeIf("or")) {
    DDPO_ASSIGN_OR_RETURN(const JinjaExpression right, And());
    left = [left, right](const JinjaScope& scope) -> absl::StatusOr<JinjaValue> {
      DDPO_ASSIGN_OR_RETURN(JinjaValue value, left(scope));
      if (JinjaTruth(value)) return value;
      return right(scope);
    };
  }
  return left;
}

absl::StatusOr<JinjaExpression> JinjaParser::And() {
  DDPO_ASSIGN_OR_RETURN(JinjaExpression left, Not());
  while (TakeIf("and")) {
    DDPO_ASSIGN_OR_RETURN(const JinjaExpression right, Not());
    left = [left, right](const JinjaScope& scope) -> absl::StatusOr<JinjaValue> {
      DDPO_ASSIGN_OR_RETURN(JinjaValue value, left(scope));
      if (!JinjaTruth(value)) return value;
      return right(scope);
    };
  }
  return left;
}

absl::StatusOr<JinjaExpression> JinjaParser::Not() {
  bool negate = false;
  while (TakeIf("not")) negate = !negate;
  DDPO_ASSIGN_OR_RETURN(const JinjaExpression value, Comparison());
  if (!negate) return value;
  return JinjaExpression([value](const JinjaScope& scope) -> absl::StatusOr<JinjaValue> {
    DDPO_ASSIGN_OR_RETURN(const JinjaValue result, value(scope));
    return JinjaValue(!JinjaTruth(result));
  });
}

absl::StatusOr<JinjaExpression> JinjaParser::Comparison() {
  DDPO_ASSIGN_OR_RETURN(JinjaExpression left, Sum());
  if (TakeIf("is")) return Test(std::move(left));
  const bool negate = TakeIf("not");
  for (const char* symbol : {"==", "!=", "<=", ">=", "<", ">", "in"}) {
    if (!TakeIf(symbol)) continue;
    DDPO_ASSIGN_OR_RETURN(JinjaExpression right, Sum());
    return Binary(std::move(left), std::move(right),
                  [name = std::string(symbol), negate](
                      const JinjaValue& a, const JinjaValue& b) -> absl::StatusOr<JinjaValue> {
                    DDPO_ASSIGN_OR_RETURN(const JinjaValue result, JinjaCompare(name, a, b));
                    return JinjaValue(result.get<bool>() != negate);
                  });
  }
  if (negate) return JinjaUnsupported("`not` here");
  return left;
}

absl::StatusOr<JinjaExpression> JinjaParser::Test(JinjaExpression value) {
  const bool negate = TakeIf("not");
  const std::string name = Take().text;
  bool (*test)(const JinjaValue&) = nullptr;
  if (name == "defined") test = [](const JinjaValue& v) { return !v.is_discarded(); };
  if (name == "undefined") test = [](const JinjaValue& v) { return v.is_discarded(); };
  if (name == "none") test = [](const JinjaValue& v) { return v.is_null(); };
  if (name == "string") test = [](const JinjaValue& v) { return v.is_string(); };
  if (name == "mapping") test = [](const JinjaValue& v) { return v.is_object(); };
  if (name == "iterable" || name == "sequence") {
    test = [](const JinjaValue& v) { return v.is_array() || v.is_object() || v.is_string(); };
  }
  if (test == nullptr) return JinjaUnsupported(absl::StrCat("the test `is ", name, "`"));
  return JinjaExpression([=](const JinjaScope& scope) -> absl::StatusOr<JinjaValue> {
    DDPO_ASSIGN_OR_RETURN(const JinjaValue result, value(scope));
    return JinjaValue(test(result) != negate);
  });
}

absl::StatusOr<JinjaExpression> JinjaParser::Sum() {
  DDPO_ASSIGN_OR_RETURN(JinjaExpression left, Product());
  while (Next("+") || Next("-") || Next("~")) {
    const std::string symbol = Take().text;
    DDPO_ASSIGN_OR_RETURN(JinjaExpression right, Product());
    left = Binary(
        std::move(left), std::move(right),
        [symbol](const JinjaValue& a, const JinjaValue& b) { return JinjaOperate(symbol, a, b); });
  }
  return left;
}

absl::StatusOr<JinjaExpression> JinjaParser::Product() {
  DDPO_ASSIGN_OR_RETURN(JinjaExpression left, Postfix());
  while (Next("*") || Next("%")) {
    const std::string symbol = Take().text;
    DDPO_ASSIGN_OR_RETURN(JinjaExpression right, Postfix());
    left = Binary(
        std::move(left), std::move(right),
        [symbol](const JinjaValue& a, const JinjaValue& b) { return JinjaOperate(symbol, a, b); });
  }
  return left;
}

absl::StatusOr<JinjaExpression> JinjaParser::Postfix() {
  DDPO_ASSIGN_OR_RETURN(JinjaExpression value, Primary());
  while (true) {
    if (TakeIf(".")) {
      DDPO_ASSIGN_OR_RETURN(value, Attribute(std::move(value)));
    } else if (TakeIf("|")) {
      DDPO_ASSIGN_OR_RETURN(value, Filter(std::move(value)));
    } else if (TakeIf("[")) {
      DDPO_ASSIGN_OR_RETURN(JinjaExpression key, Expression());
      DDPO_RETURN_IF_ERROR(Expect("]"));
      value = Binary(std::move(value), std::move(key), JinjaItem);
    } else {
      return value;
    }
  }
}

absl::StatusOr<JinjaExpression> JinjaParser::Filter(JinjaExpression value) {
  const std::string name = Take().text;
  std::vector<JinjaExpression> arguments;
  if (TakeIf("(")) {
    DDPO_ASSIGN_OR_RETURN(arguments, Arguments(")"));
  }
  return JinjaExpression([=](const JinjaScope& scope) -> absl::StatusOr<JinjaValue> {
    DDPO_ASSIGN_OR_RETURN(const JinjaValue input, value(scope));
    DDPO_ASSIGN_OR_RETURN(const auto values, Evaluate(arguments, scope));
    return JinjaFilter(name, input, values);
  });
}

absl::StatusOr<JinjaExpression> JinjaParser::Attribute(JinjaExpression value) {
  const std::string name = Take().text;
  if (!TakeIf("(")) return Binary(std::move(value), Constant(name), JinjaItem);
  DDPO_ASSIGN_OR_RETURN(const auto arguments, Arguments(")"));
  return JinjaExpression([=](const JinjaScope& scope) -> absl::StatusOr<JinjaValue> {
    DDPO_ASSIGN_OR_RETURN(const JinjaValue text, value(scope));
    DDPO_ASSIGN_OR_RETURN(const auto values, Evaluate(arguments, scope));
    std::optional<JinjaValue> result;
    if (text.is_string()) result = JinjaTextMethod(name, text, values);
    if (!result.has_value()) return JinjaUnsupported(absl::StrCat("the method ", name, " here"));
    return *result;
  });
}

absl::StatusOr<std::vector<JinjaExpression>> JinjaParser::Arguments(const char* end) {
  std::vector<JinjaExpression> arguments;
  while (!TakeIf(end)) {
    if (!arguments.empty()) DDPO_RETURN_IF_ERROR(Expect(","));
    DDPO_ASSIGN_OR_RETURN(arguments.emplace_back(), Expression());
  }
  return arguments;
}

absl::StatusOr<JinjaExpression> JinjaParser::Primary() {
  if (TakeIf("(")) {
    DDPO_ASSIGN_OR_RETURN(JinjaExpression inner, Expression());
    DDPO_RETURN_IF_ERROR(Expect(")"));
    return inner;
  }
  if (TakeIf("[")) {
    DDPO_ASSIGN_OR_RETURN(const auto items, Arguments("]"));
    return JinjaExpression([items](const JinjaScope& scope) -> absl::StatusOr<JinjaValue> {
      DDPO_ASSIGN_OR_RETURN(const auto values, Evaluate(items, scope));
      return JinjaValue(values);
    });
  }
  const bool negative = TakeIf("-");
  const JinjaToken token = Take();
  int64_t number = 0;
  if (token.kind == JinjaToken::kNumber && absl::SimpleAtoi(token.text, &number)) {
    return Constant(negative ? -number : number);
  }
  if (negative) return JinjaUnsupported("`-` here");
  if (token.kind == JinjaToken::kString) return Constant(token.text);
  if (token.kind != JinjaToken::kName) {
    return JinjaUnsupported(token.text.empty() ? "an empty expression"
                                               : absl::StrCat("`", token.text, "` here"));
  }
  const std::string& name = token.text;
  if (name == "true" || name == "True") return Constant(true);
  if (name == "false" || name == "False") return Constant(false);
  if (name == "none" || name == "None") return Constant(nullptr);
  if (name == "raise_exception" && TakeIf("(")) {
    DDPO_ASSIGN_OR_RETURN(const auto arguments, Arguments(")"));
    return JinjaExpression([arguments](const JinjaScope& scope) -> absl::StatusOr<JinjaValue> {
      DDPO_ASSIGN_OR_RETURN(const auto values, Evaluate(arguments, scope));
      return absl::InvalidArgumentError(values.empty() || !values[0].is_string()
                                            ? std::string("the template refuses")
                                            : values[0].get<std::string>());
    });
  }
  return JinjaExpression([name](const JinjaScope& scope) -> absl::StatusOr<JinjaValue> {
    const auto found = scope.find(name);
    return found == scope.end() ? JinjaUndefined() : found->second;
  });
}

}  // namespace ddpo
