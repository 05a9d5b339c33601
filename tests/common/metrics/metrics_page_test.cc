#include <prometheus/registry.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/files.h"
#include "common/metrics/actor_metrics.h"
#include "common/metrics/learner_metrics.h"
#include "common/metrics/metrics_server.h"
#include "common/metrics/reward_server_metrics.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/paths.h"

namespace ddpo {
namespace {

std::string TypeName(prometheus::MetricType type) {
  switch (type) {
    case prometheus::MetricType::Counter:
      return "counter";
    case prometheus::MetricType::Gauge:
      return "gauge";
    case prometheus::MetricType::Histogram:
      return "histogram";
    default:
      return "other";
  }
}

// Name → "type: label, label" of what the three programs expose.
std::map<std::string, std::string> Exposed() {
  auto registry = std::make_shared<prometheus::Registry>();
  const LearnerMetrics learner(*registry);
  const ActorMetrics actor(*registry);
  const RewardServerMetrics reward_server(*registry, {"jpeg_compressibility"});
  const auto server = MetricsServer::Start({.process = "ddpo-actor"}, registry);
  EXPECT_TRUE(server.ok()) << server.status();
  std::map<std::string, std::string> exposed;
  for (const auto& family : registry->Collect()) {
    std::set<std::string> labels;
    for (const auto& metric : family.metric) {
      for (const auto& label : metric.label) labels.insert(label.name);
    }
    exposed[family.name] = absl::StrCat(TypeName(family.type), ": ", absl::StrJoin(labels, ", "));
  }
  return exposed;
}

// The same from the page's tables: | `name` | type | unit | `label`, `label` | meaning |
std::map<std::string, std::string> Documented() {
  const auto page = ReadFile(testing::SourcePath("docs/metrics.md"));
  EXPECT_TRUE(page.ok()) << page.status();
  std::map<std::string, std::string> documented;
  for (const absl::string_view line : absl::StrSplit(page.value_or(""), '\n')) {
    if (!absl::StartsWith(line, "| `ddpo_")) continue;
    const std::vector<std::string> cells = absl::StrSplit(line, '|');
    EXPECT_EQ(cells.size(), 7u) << line;
    if (cells.size() != 7) continue;
    const auto bare = [](absl::string_view text) {
      return std::string(
          absl::StripSuffix(absl::StripPrefix(absl::StripAsciiWhitespace(text), "`"), "`"));
    };
    std::set<std::string> labels;
    for (const absl::string_view label : absl::StrSplit(cells[4], ',', absl::SkipWhitespace())) {
      labels.insert(bare(label));
    }
    const std::string name = bare(cells[1]);
    EXPECT_FALSE(documented.contains(name)) << name << " is there twice";
    EXPECT_FALSE(bare(cells[3]).empty()) << name << " has no unit";
    EXPECT_FALSE(bare(cells[5]).empty()) << name << " has no meaning";
    documented[name] = absl::StrCat(bare(cells[2]), ": ", absl::StrJoin(labels, ", "));
  }
  return documented;
}

TEST(MetricsPageTest, ThePageNamesEveryMetricThatIsExposedAndNoOther) {
  EXPECT_THAT(Documented(), ::testing::ContainerEq(Exposed()));
}

}  // namespace
}  // namespace ddpo
