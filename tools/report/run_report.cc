#include "tools/report/run_report.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/tensors/png.h"
#include "tools/report/html_escape.h"
#include "tools/report/report_style.h"
#include "tools/report/svg_chart.h"
#include "tools/run/metrics_log.h"

namespace ddpo {
namespace {

constexpr int kStripRows = 8;
constexpr int kStripColumns = 9;

// An <img>; pictures of the embedded model are small, so the page scales them up without blurring.
absl::StatusOr<std::string> ImageElement(const Image& image, const std::string& alt) {
  DDPO_ASSIGN_OR_RETURN(std::vector<uint8_t> png, EncodePng(image));
  const absl::string_view bytes(reinterpret_cast<const char*>(png.data()), png.size());
  return absl::StrCat("<img", image.width < 128 ? " class='pixels'" : "", " alt='", HtmlEscape(alt),
                      "' src='data:image/png;base64,", absl::Base64Escape(bytes), "'>");
}

std::string Card(const std::string& value, const std::string& label) {
  return absl::StrCat("<div class='card'><div class='value'>", value, "</div><div class='what'>",
                      label, "</div></div>");
}

// Values of p below what a double of the t distribution can tell from 0 are shown as a bound.
std::string PValue(double p) { return p < 1e-99 ? "&lt; 1e-99" : absl::StrFormat("%.2g", p); }

std::string SummarySection(const RunReport& report) {
  if (!report.summary) return "";
  const ComparisonSummary& s = *report.summary;
  std::string html = "<section><h2>Result</h2><div class='cards'>";
  absl::StrAppend(&html,
                  Card(absl::StrFormat("%+.2f σ", s.difference_in_base_stds),
                       "change of the reward, in standard deviations of the base model's images"));
  absl::StrAppend(&html, Card(absl::StrFormat("%.3f → %.3f", s.base_mean, s.final_mean),
                              "mean reward, base model → fine-tuned"));
  absl::StrAppend(&html, Card(absl::StrCat("p ", s.p < 1e-99 ? "" : "= ", PValue(s.p)),
                              absl::StrFormat("paired t-test, t = %.1f, n = %d pairs", s.t, s.n)));
  absl::StrAppendFormat(
      &html,
      "</div><p class='note'>%d prompt-and-seed pairs that training never used, "
      "each drawn by both models from the same noise. Base model %.4f ± %.4f (mean "
      "and standard deviation over images), fine-tuned %.4f ± %.4f, mean "
      "difference %+.4f.</p></section>",
      s.n, s.base_mean, s.base_std, s.final_mean, s.final_std, s.mean_difference);
  return html;
}

std::vector<ChartPoint> Series(const std::vector<nlohmann::json>& metrics, const std::string& key,
                               const std::string& spread_key = "") {
  // Charts leave out points that are not numbers.
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  std::vector<ChartPoint> points;
  for (const nlohmann::json& line : metrics) {
    points.push_back({MetricOr(line, "epoch", kNone), MetricOr(line, key, kNone),
                      spread_key.empty() ? 0.0 : MetricOr(line, spread_key, kNone)});
  }
  return points;
}

std::string ChartSection(const RunReport& report) {
  if (report.metrics.empty()) return "";
  std::string html = "<section><h2>Training</h2><div class='chart wide'>";
  absl::StrAppend(&html,
                  LineChart(Series(report.metrics, "reward_mean", "reward_std"),
                            {.title = "Mean reward of each epoch's samples (band: ± 1 standard "
                                      "deviation)",
                             .x_label = "epoch",
                             .y_label = report.reward,
                             .width = 980,
                             .height = 320}),
                  "</div><div class='charts'>");
  const struct {
    const char* key;
    const char* title;
    const char* y_label;
    bool from_zero;
  } charts[] = {
      {"approx_kl", "KL to the sampling policy", "½ · mean (Δ log p)²", true},
      {"clip_fraction", "Share of clipped ratios", "fraction", true},
      {"samples_per_second", "Speed of the whole loop", "samples / s", true},
      {"logprob_abs_diff_max", "Actor against learner, first pass", "max |Δ log p|", true},
      {"grad_norm", "Gradient norm before clipping", "norm", true},
      {"reward_std", "Spread of the rewards", "standard deviation", true},
  };
  for (const auto& chart : charts) {
    absl::StrAppend(&html, "<div class='chart'>",
                    LineChart(Series(report.metrics, chart.key), {.title = chart.title,
                                                                  .x_label = "epoch",
                                                                  .y_label = chart.y_label,
                                                                  .from_zero = chart.from_zero}),
                    "</div>");
  }
  absl::StrAppend(&html, "</div></section>");
  return html;
}

absl::StatusOr<std::string> PairsSection(const RunReport& report) {
  if (report.pairs.empty()) return std::string();
  std::string html =
      "<section><h2>Before and after</h2><p class='note'>Left the base model, right the fine-tuned "
      "one: same prompt, same noise. Numbers are rewards.</p><div class='pairs'>";
  for (const BeforeAfter& pair : report.pairs) {
    DDPO_ASSIGN_OR_RETURN(std::string before, ImageElement(pair.before, pair.prompt + ", before"));
    DDPO_ASSIGN_OR_RETURN(std::string after, ImageElement(pair.after, pair.prompt + ", after"));
    absl::StrAppendFormat(&html,
                          "<figure><div class='two'>%s%s</div><figcaption>%s<span>%.2f → %.2f"
                          "</span></figcaption></figure>",
                          before, after, HtmlEscape(pair.prompt), pair.reward_before,
                          pair.reward_after);
  }
  absl::StrAppend(&html, "</div></section>");
  return html;
}

absl::StatusOr<std::string> StripSection(const RunReport& report) {
  if (report.grids.size() < 2) return std::string();
  const int columns = std::min<int>(kStripColumns, static_cast<int>(report.grids.size()));
  std::vector<const GridOfEpoch*> shown;
  for (int i = 0; i < columns; ++i) {
    shown.push_back(&report.grids[i * (report.grids.size() - 1) / (columns - 1)]);
  }
  std::string html =
      "<section><h2>Over training</h2><p class='note'>Each row is one prompt and one seed; the "
      "columns are checkpoints.</p><div class='scroll'><table class='strip'><thead><tr><th></th>";
  for (const GridOfEpoch* grid : shown) {
    absl::StrAppend(&html, "<th>", grid->epoch == 0 ? "base" : absl::StrCat("epoch ", grid->epoch),
                    "</th>");
  }
  absl::StrAppend(&html, "</tr></thead><tbody>");
  const int rows = std::min<int>(kStripRows, static_cast<int>(report.pairs.size()));
  for (int row = 0; row < rows; ++row) {
    absl::StrAppend(&html, "<tr><th>", HtmlEscape(report.pairs[row].prompt), "</th>");
    for (const GridOfEpoch* grid : shown) {
      if (row >= static_cast<int>(grid->images.size())) continue;
      DDPO_ASSIGN_OR_RETURN(std::string image,
                            ImageElement(grid->images[row], absl::StrCat(report.pairs[row].prompt,
                                                                         ", epoch ", grid->epoch)));
      absl::StrAppend(&html, "<td>", image, "</td>");
    }
    absl::StrAppend(&html, "</tr>");
  }
  absl::StrAppend(&html, "</tbody></table></div></section>");
  return html;
}

}  // namespace

absl::StatusOr<std::string> RenderReport(const RunReport& report) {
  const std::string name = HtmlEscape(report.name);
  std::string html = absl::StrCat(
      "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
      "content='width=device-width, initial-scale=1'><title>",
      name, " – DDPO run</title><style>", kReportStyle, "</style></head><body><main><header><h1>",
      name, "</h1><p>", HtmlEscape(report.model), " fine-tuned with DDPO for the reward <b>",
      HtmlEscape(report.reward), "</b>");
  if (!report.metrics.empty()) {
    const nlohmann::json& last = report.metrics.back();
    absl::StrAppend(&html, " · ", report.metrics.size(), " epochs · ",
                    static_cast<int64_t>(MetricOr(last, "samples_total", 0)), " samples");
  }
  absl::StrAppend(&html, "</p></header>");
  absl::StrAppend(&html, SummarySection(report));
  DDPO_ASSIGN_OR_RETURN(std::string pairs, PairsSection(report));
  DDPO_ASSIGN_OR_RETURN(std::string strip, StripSection(report));
  absl::StrAppend(&html, ChartSection(report), pairs, strip);
  absl::StrAppend(
      &html, "<section><h2>Config</h2><details><summary>config.yaml as resolved</summary><pre>",
      HtmlEscape(report.config_yaml), "</pre></details></section></main></body></html>\n");
  return html;
}

}  // namespace ddpo
