#include "tools/run/metrics_log.h"

#include <fstream>
#include <sstream>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ddpo {

absl::StatusOr<std::vector<nlohmann::json>> ReadMetricsLog(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<nlohmann::json> lines;
  if (!file) return lines;
  std::stringstream contents;
  contents << file.rdbuf();
  const std::string text = contents.str();
  size_t start = 0;
  for (size_t end; (end = text.find('\n', start)) != std::string::npos; start = end + 1) {
    if (end == start) continue;
    nlohmann::json line = nlohmann::json::parse(text.begin() + static_cast<ptrdiff_t>(start),
                                                text.begin() + static_cast<ptrdiff_t>(end), nullptr,
                                                /*allow_exceptions=*/false);
    if (!line.is_object()) {
      return absl::DataLossError(
          absl::StrCat(path, ": line ", lines.size() + 1, " is not a JSON object"));
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

double MetricOr(const nlohmann::json& line, const std::string& key, double fallback) {
  auto found = line.find(key);
  return found != line.end() && found->is_number() ? found->get<double>() : fallback;
}

}  // namespace ddpo
