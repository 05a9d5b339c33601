#include "common/nn/jinja_expression.h"

#include <unicode/locid.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/status_macros.h"
#include "common/nn/tokenizer_config.h"

namespace ddpo {
namespace {

// Of parentheses in parentheses.
constexpr int kMaxDepth = 64;

using Arguments = std::vector<JinjaValue>;

absl::Status Unsupported(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(what, " is not supported"));
}

bool IsSymbol(const JinjaToken& token, absl::string_view text) {
  return (token.kind == JinjaToken::kSymbol || token.kind == JinjaToken::kName) &&
         token.text == text;
}

bool IsAscii(const std::string& text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return absl::ascii_isascii(static_cast<unsigned char>(c)); });
}

// White space, or the characters of the argument.
std::optional<JinjaValue> Strip(const std::string& text, const Arguments& arguments, bool left,
                                bool right) {
  if (arguments.empty()) {
    const std::string begun = left ? StripLeftAsPython(text) : text;
    return right ? StripRightAsPython(begun) : begun;
  }
  if (!arguments[0].is_string() || !IsAscii(arguments[0])) return std::nullopt;
  const std::string set = arguments[0];
  const size_t begin = left ? std::min(text.find_first_not_of(set), text.size()) : 0;
  const size_t end = right ? text.find_last_not_of(set) + 1 : text.size();
  return begin < end ? text.substr(begin, end - begin) : "";
}

std::string Lower(const std::string& text) {
  std::string result;
  return icu::UnicodeString::fromUTF8(text).toLower(icu::Locale::getRoot()).toUTF8String(result);
}

std::string Upper(const std::string& text) {
  std::string result;
  return icu::UnicodeString::fromUTF8(text).toUpper(icu::Locale::getRoot()).toUTF8String(result);
}

// Beyond ASCII a capital is not always the upper case.
std::optional<JinjaValue> Capitalize(const std::string& text) {
  if (!IsAscii(text.substr(0, 1))) return std::nullopt;
  return Upper(text.substr(0, 1)) + Lower(text.substr(std::min<size_t>(text.size(), 1)));
}

// A method of texts, or a filter of the same meaning.
std::optional<JinjaValue> TextFunction(const std::string& name, const std::string& text,
                                       const Arguments& arguments) {
  if (name == "strip" || name == "trim") return Strip(text, arguments, true, true);
  if (name == "lstrip") return Strip(text, arguments, true, false);
  if (name == "rstrip") return Strip(text, arguments, false, true);
  if (name == "upper") return Upper(text);
  if (name == "lower") return Lower(text);
  if (name == "capitalize") return Capitalize(text);
  if (arguments.empty() || !arguments[0].is_string()) return std::nullopt;
  const std::string first = arguments[0];
  if (name == "startswith") return absl::StartsWith(text, first);
  if (name == "endswith") return absl::EndsWith(text, first);
  if (name == "replace" && arguments.size() == 2 && arguments[1].is_string() && !first.empty()) {
    return absl::StrReplaceAll(text, {{first, arguments[1].get<std::string>()}});
  }
  return std::nullopt;
}

// selectattr(name[, test[, value]]) over a list of objects.
absl::StatusOr<JinjaValue> SelectAttribute(const JinjaValue& list, const Arguments& arguments,
                                           bool keep) {
  if (!list.is_array() || arguments.empty() || arguments.size() == 2 || !arguments[0].is_string()) {
    return Unsupported("this use of selectattr or rejectattr");
  }
  const std::string attribute = arguments[0];
  if (arguments.size() > 1 && arguments[1] != "equalto" && arguments[1] != "==" &&
      arguments[1] != "eq") {
    return Unsupported("a test of selectattr other than equalto");
  }
  JinjaValue result = JinjaValue::array();
  for (const JinjaValue& item : list) {
    const JinjaValue value =
        item.is_object() && item.contains(attribute) ? item[attribute] : JinjaUndefined();
    const bool matches = arguments.size() == 1 ? JinjaTruth(value) : value == arguments[2];
    if (matches == keep) result.push_back(item);
  }
  return result;
}

absl::StatusOr<JinjaValue> ApplyFilter(const std::string& name, const JinjaValue& value,
                                       const Arguments& arguments) {
  if (name == "selectattr") return SelectAttribute(value, arguments, true);
  if (name == "rejectattr") return SelectAttribute(value, arguments, false);
  if (name == "length" || name == "count") {
    if (value.is_array() || value.is_object()) return JinjaValue(value.size());
    if (value.is_string()) {
      const std::string text = value;
      return JinjaValue(std::count_if(text.begin(), text.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xc0) != 0x80;  // one for each code point
      }));
    }
  }
  if (name == "list" && value.is_array()) return value;
  if ((name == "first" || name == "last") && value.is_array()) {
    if (value.empty()) return JinjaUndefined();
    return name == "first" ? value.front() : value.back();
  }
  if (name == "default") {
    if (!value.is_discarded()) return value;
    return arguments.empty() ? JinjaValue("") : arguments[0];
  }
  if (name == "join" && value.is_array()) {
    std::string joined;
    for (const JinjaValue& item : value) {
      DDPO_ASSIGN_OR_RETURN(const std::string text, JinjaText(item));
      if (&item != &value.front() && !arguments.empty() && arguments[0].is_string()) {
        joined += arguments[0].get<std::string>();
      }
      joined += text;
    }
    return JinjaValue(joined);
  }
  if (name == "string") {
    DDPO_ASSIGN_OR_RETURN(std::string text, JinjaText(value));
    return JinjaValue(std::move(text));
  }
  if (value.is_string()) {
    const auto result = TextFunction(name, value, arguments);
    if (result.has_value()) return *result;
  }
  return Unsupported(absl::StrCat("the filter ", name, " here"));
}

absl::StatusOr<JinjaValue> GetItem(const JinjaValue& value, const JinjaValue& key) {
  if (value.is_discarded()) return absl::InvalidArgumentError("a part of what is not defined");
  if (value.is_object() && key.is_string()) {
    const auto found = value.find(key.get<std::string>());
    return found == value.end() ? JinjaUndefined() : *found;
  }
  if (value.is_array() && key.is_number_integer()) {
    const auto size = static_cast<int64_t>(value.size());
    const int64_t index = key.get<int64_t>() < 0 ? key.get<int64_t>() + size : key.get<int64_t>();
    return index >= 0 && index < size ? value[static_cast<size_t>(index)] : JinjaUndefined();
  }
  // Python looks a text up by number; templates that ask a text for a key get nothing.
  if (key.is_string()) return JinjaUndefined();
  return Unsupported("this subscript");
}

absl::StatusOr<JinjaValue> Operate(const std::string& symbol, const JinjaValue& a,
                                   const JinjaValue& b) {
  if (symbol == "~" || (symbol == "+" && a.is_string() && b.is_string())) {
    DDPO_ASSIGN_OR_RETURN(const std::string left, JinjaText(a));
    DDPO_ASSIGN_OR_RETURN(const std::string right, JinjaText(b));
    return JinjaValue(left + right);
  }
  if (a.is_number_integer() && b.is_number_integer()) {
    const auto left = a.get<int64_t>(), right = b.get<int64_t>();
    int64_t result = 0;
    if (symbol == "%") {
      if (right == 0) return absl::InvalidArgumentError("a division by 0");
      result = right == -1 ? 0 : left % right;
      if (result != 0 && (result < 0) != (right < 0)) result += right;
      return JinjaValue(result);
    }
    const bool overflow = symbol == "+"   ? __builtin_add_overflow(left, right, &result)
                          : symbol == "-" ? __builtin_sub_overflow(left, right, &result)
                                          : __builtin_mul_overflow(left, right, &result);
    if (overflow) return absl::InvalidArgumentError("a number over 64 bits");
    return JinjaValue(result);
  }
  return Unsupported(absl::StrCat("`", symbol, "` between these values"));
}

absl::StatusOr<JinjaValue> Compare(const std::string& symbol, const JinjaValue& a,
                                   const JinjaValue& b) {
  const bool undefined = a.is_discarded() || b.is_discarded();
  if (symbol == "==") return JinjaValue(undefined ? a.type() == b.type() : a == b);
  if (symbol == "!=") return JinjaValue(undefined ? a.type() != b.type() : a != b);
  if (symbol == "in") {
    if (b.is_string() && a.is_string()) {
      return JinjaValue(absl::StrContains(b.get<std::string>(), a.get<std::string>()));
    }
    if (b.is_object() && a.is_string()) return JinjaValue(b.contains(a.get<std::string>()));
    if (b.is_array()) return JinjaValue(std::find(b.begin(), b.end(), a) != b.end());
    return Unsupported("`in` with these values");
  }
  if (!(a.is_number() && b.is_number()) && !(a.is_string() && b.is_string())) {
    return Unsupported(absl::StrCat("`", symbol, "` between these values"));
  }
  return JinjaValue(symbol == "<"    ? a < b
                    : symbol == ">"  ? a > b
                    : symbol == "<=" ? a <= b
                                     : a >= b);
}

absl::StatusOr<Arguments> Evaluate(const std::vector<JinjaExpression>& expressions,
                                   const JinjaScope& scope) {
  Arguments values;
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

absl::StatusOr<std::string> ReadString(absl::string_view source, size_t* at) {
  const char quote = source[(*at)++];
  std::string text;
  for (; *at < source.size(); ++*at) {
    const char c = source[*at];
    if (c == quote) {
      ++*at;
      return text;
    }
    if (c != '\\' || *at + 1 == source.size()) {
      text.push_back(c);
      continue;
    }
    switch (const char escaped = source[++*at]) {
      case 'n':
        text.push_back('\n');
        break;
      case 't':
        text.push_back('\t');
        break;
      case 'r':
        text.push_back('\r');
        break;
      case '\\':
      case '\'':
      case '"':
        text.push_back(escaped);
        break;
      default:
        return Unsupported(absl::StrCat("the escape \\", std::string(1, escaped)));
    }
  }
  return absl::InvalidArgumentError("a text without its closing quotation mark");
}

}  // namespace

JinjaValue JinjaUndefined() { return JinjaValue(JinjaValue::value_t::discarded); }

bool JinjaTruth(const JinjaValue& value) {
  if (value.is_discarded() || value.is_null()) return false;
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value != 0;
  if (value.is_string()) return !value.get_ref<const std::string&>().empty();
  return !value.empty();
}

absl::StatusOr<std::string> JinjaText(const JinjaValue& value) {
  if (value.is_discarded()) return "";
  if (value.is_null()) return "None";
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer()) return absl::StrCat(value.get<int64_t>());
  return Unsupported("writing out a list, an object or a fraction");
}

absl::StatusOr<std::vector<JinjaToken>> JinjaTokens(absl::string_view source) {
  static constexpr absl::string_view kLong[] = {"==", "!=", "<=", ">="};
  std::vector<JinjaToken> tokens;
  for (size_t at = 0; at < source.size();) {
    const char c = source[at];
    if (absl::ascii_isspace(static_cast<unsigned char>(c))) {
      ++at;
    } else if (c == '\'' || c == '"') {
      DDPO_ASSIGN_OR_RETURN(std::string text, ReadString(source, &at));
      tokens.push_back({JinjaToken::kString, std::move(text)});
    } else if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_') {
      size_t end = at;
      while (end < source.size() &&
             (absl::ascii_isalnum(static_cast<unsigned char>(source[end])) || source[end] == '_')) {
        ++end;
      }
      tokens.push_back({absl::ascii_isdigit(static_cast<unsigned char>(c)) ? JinjaToken::kNumber
                                                                           : JinjaToken::kName,
                        std::string(source.substr(at, end - at))});
      at = end;
    } else {
      const auto longer = std::find(std::begin(kLong), std::end(kLong), source.substr(at, 2));
      const size_t size = longer == std::end(kLong) ? 1 : 2;
      tokens.push_back({JinjaToken::kSymbol, std::string(source.substr(at, size))});
      at += size;
    }
  }
  tokens.emplace_back();
  return tokens;
}

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
  return Unsupported(absl::StrCat("`", peek().text, "` here"));
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
                    DDPO_ASSIGN_OR_RETURN(const JinjaValue result, Compare(name, a, b));
                    return JinjaValue(result.get<bool>() != negate);
                  });
  }
  if (negate) return Unsupported("`not` here");
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
  if (test == nullptr) return Unsupported(absl::StrCat("the test `is ", name, "`"));
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
        [symbol](const JinjaValue& a, const JinjaValue& b) { return Operate(symbol, a, b); });
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
        [symbol](const JinjaValue& a, const JinjaValue& b) { return Operate(symbol, a, b); });
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
      value = Binary(std::move(value), std::move(key), GetItem);
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
    return ApplyFilter(name, input, values);
  });
}

absl::StatusOr<JinjaExpression> JinjaParser::Attribute(JinjaExpression value) {
  const std::string name = Take().text;
  if (!TakeIf("(")) return Binary(std::move(value), Constant(name), GetItem);
  DDPO_ASSIGN_OR_RETURN(const auto arguments, Arguments(")"));
  return JinjaExpression([=](const JinjaScope& scope) -> absl::StatusOr<JinjaValue> {
    DDPO_ASSIGN_OR_RETURN(const JinjaValue text, value(scope));
    DDPO_ASSIGN_OR_RETURN(const auto values, Evaluate(arguments, scope));
    std::optional<JinjaValue> result;
    if (text.is_string()) result = TextFunction(name, text, values);
    if (!result.has_value()) return Unsupported(absl::StrCat("the method ", name, " here"));
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
  if (negative) return Unsupported("`-` here");
  if (token.kind == JinjaToken::kString) return Constant(token.text);
  if (token.kind != JinjaToken::kName) {
    return Unsupported(token.text.empty() ? "an empty expression"
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
