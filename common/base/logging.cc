#include "common/base/logging.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <utility>

namespace ddpo {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

std::shared_ptr<spdlog::logger> MakeLogger(const std::string& program) {
  auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  auto logger = std::make_shared<spdlog::logger>(program, std::move(sink));
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %^%-7l%$ %n: %v", spdlog::pattern_time_type::utc);
  logger->flush_on(spdlog::level::info);
  return logger;
}

// spdlog's own default logger writes to stdout.
std::shared_ptr<spdlog::logger>& Logger() {
  static std::shared_ptr<spdlog::logger>& logger =
      *new std::shared_ptr<spdlog::logger>(MakeLogger(""));
  return logger;
}

}  // namespace

void InitLogging(const std::string& program, const std::string& level) {
  Logger() = MakeLogger(program);
  // spdlog takes any word that it does not know for `off`.
  const spdlog::level::level_enum parsed = spdlog::level::from_str(level);
  if (parsed != spdlog::level::off) return Logger()->set_level(parsed);
  LogWarning("unknown log level `", level,
             "`: expected trace, debug, info, warning or error; logging at info");
}

void LogMessage(LogLevel level, const std::string& message) {
  Logger()->log(ToSpdlog(level), message);
}

}  // namespace ddpo
