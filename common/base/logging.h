#pragma once

#include <string>

#include "absl/strings/str_cat.h"

namespace ddpo {

// The program's log on stderr, one line an event: time (UTC), level, program, message. spdlog does
// the work; its headers stay out of here, as they and LibTorch's bring different versions of fmt.

// `level`: trace, debug, info, warning, error; any other word is warned of and stands for info.
// Call first in main, before other threads log; without it the log has no program's name.
void InitLogging(const std::string& program, const std::string& level = "info");

enum class LogLevel { kDebug, kInfo, kWarning, kError };
void LogMessage(LogLevel level, const std::string& message);

// The arguments are joined as by absl::StrCat.
template <typename... Parts>
void LogDebug(const Parts&... parts) {
  LogMessage(LogLevel::kDebug, absl::StrCat(parts...));
}
template <typename... Parts>
void LogInfo(const Parts&... parts) {
  LogMessage(LogLevel::kInfo, absl::StrCat(parts...));
}
template <typename... Parts>
void LogWarning(const Parts&... parts) {
  LogMessage(LogLevel::kWarning, absl::StrCat(parts...));
}
template <typename... Parts>
void LogError(const Parts&... parts) {
  LogMessage(LogLevel::kError, absl::StrCat(parts...));
}

}  // namespace ddpo
