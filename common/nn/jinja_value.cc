#include "common/nn/jinja_value.h"

#include <unicode/locid.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/status_macros.h"
#include "common/nn/tokenizer_config.h"

namespace ddpo {
namespace {

bool IsAscii(const std::string& text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return absl::ascii_isascii(static_cast<unsigned char>(c)); });
}

// White space, or the characters of the argument.
std::optional<JinjaValue> Strip(const std::string& text, const JinjaArguments& arguments, bool left,
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

// selectattr(name[, test[, value]]) over a list of objects.
absl::StatusOr<JinjaValue> SelectAttribute(const JinjaValue& list, const JinjaArguments& arguments,
                                           bool keep) {
  if (!list.is_array() || arguments.empty() || arguments.size() == 2 || !arguments[0].is_string()) {
    return JinjaUnsupported("this use of selectattr or rejectattr");
  }
  const std::string attribute = arguments[0];
  if (arguments.size() > 1 && arguments[1] != "equalto" && arguments[1] != "==" &&
      arguments[1] != "eq") {
    return JinjaUnsupported("a test of selectattr other than equalto");
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

}  // namespace

absl::Status JinjaUnsupported(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(what, " is not supported"));
}

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
  return JinjaUnsupported("writing out a list, an object or a fraction");
}

std::optional<JinjaValue> JinjaTextMethod(const std::string& name, const std::string& text,
                                          const JinjaArguments& arguments) {
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

absl::StatusOr<JinjaValue> JinjaFilter(const std::string& name, const JinjaValue& value,
                                       const JinjaArguments& arguments) {
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
    const auto result = JinjaTextMethod(name, value, arguments);
    if (result.has_value()) return *result;
  }
  return JinjaUnsupported(absl::StrCat("the filter ", name, " here"));
}

absl::StatusOr<JinjaValue> JinjaItem(const JinjaValue& value, const JinjaValue& key) {
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
  return JinjaUnsupported("this subscript");
}

absl::StatusOr<JinjaValue> JinjaOperate(const std::string& symbol, const JinjaValue& a,
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
  return JinjaUnsupported(absl::StrCat("`", symbol, "` between these values"));
}

absl::StatusOr<JinjaValue> JinjaCompare(const std::string& symbol, const JinjaValue& a,
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
    return JinjaUnsupported("`in` with these values");
  }
  if (!(a.is_number() && b.is_number()) && !(a.is_string() && b.is_string())) {
    return JinjaUnsupported(absl::StrCat("`", symbol, "` between these values"));
  }
  return JinjaValue(symbol == "<"    ? a < b
                    : symbol == ">"  ? a > b
                    : symbol == "<=" ? a <= b
                                     : a >= b);
}

}  // namespace ddpo
