#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ddpo {

// What Jinja's expressions compute with, and what they may do with it. Errors are INVALID_ARGUMENT.

// Values are JSON; what is not defined is a discarded one.
using JinjaValue = nlohmann::json;
using JinjaArguments = std::vector<JinjaValue>;

JinjaValue JinjaUndefined();
bool JinjaTruth(const JinjaValue& value);
// As {{ value }} writes it; lists and objects, which Python writes its own way, are an error.
absl::StatusOr<std::string> JinjaText(const JinjaValue& value);

// The error for a part of Jinja that is not among those here.
absl::Status JinjaUnsupported(absl::string_view what);

// value[key], as of a list or an object.
absl::StatusOr<JinjaValue> JinjaItem(const JinjaValue& value, const JinjaValue& key);
// + − * % ~
absl::StatusOr<JinjaValue> JinjaOperate(const std::string& symbol, const JinjaValue& a,
                                        const JinjaValue& b);
// == != < > <= >= in; a boolean.
absl::StatusOr<JinjaValue> JinjaCompare(const std::string& symbol, const JinjaValue& a,
                                        const JinjaValue& b);
// value | name(arguments)
absl::StatusOr<JinjaValue> JinjaFilter(const std::string& name, const JinjaValue& value,
                                       const JinjaArguments& arguments);
// text.name(arguments); nothing where that is not among the methods here.
std::optional<JinjaValue> JinjaTextMethod(const std::string& name, const std::string& text,
                                          const JinjaArguments& arguments);

}  // namespace ddpo
