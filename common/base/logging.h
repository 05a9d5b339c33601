#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace ddpo {

// Sends the program's log to stderr, one line an event: time (UTC), level, program, message.
// `level`: trace, debug, info, warning, error. Call first in main. Log with spdlog::info(…) and so
// on.
void InitLogging(const std::string& program, const std::string& level = "info");

}  // namespace ddpo
