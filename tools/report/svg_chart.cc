#include "tools/report/svg_chart.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/report/html_escape.h"

namespace ddpo {
namespace {

constexpr double kLeft = 72, kRight = 14, kTop = 34, kBottom = 44;

// Maps data to the drawing's coordinates.
struct Frame {
  double x_low, x_high, y_low, y_high;
  double width, height;

  double X(double x) const {
    return kLeft + (x - x_low) / (x_high - x_low) * (width - kLeft - kRight);
  }
  double Y(double y) const {
    return height - kBottom - (y - y_low) / (y_high - y_low) * (height - kTop - kBottom);
  }
};

std::string Coordinates(const Frame& frame, const std::vector<ChartPoint>& points) {
  std::string text;
  for (const ChartPoint& p : points) {
    absl::StrAppendFormat(&text, "%.1f,%.1f ", frame.X(p.x), frame.Y(p.y));
  }
  return text;
}

std::string Band(const Frame& frame, const std::vector<ChartPoint>& points) {
  std::vector<ChartPoint> outline;
  for (const ChartPoint& p : points) outline.push_back({p.x, p.y + p.spread});
  for (auto p = points.rbegin(); p != points.rend(); ++p) {
    outline.push_back({p->x, p->y - p->spread});
  }
  return absl::StrCat("<polygon class='band' points='", Coordinates(frame, outline), "'/>");
}

std::vector<ChartPoint> RunningMean(const std::vector<ChartPoint>& points) {
  const int reach = std::max<int>(1, static_cast<int>(points.size()) / 20);
  const int size = static_cast<int>(points.size());
  std::vector<ChartPoint> means;
  for (int i = 0; i < size; ++i) {
    // The window shrinks alike on both sides at the ends, so that the mean does not lean inwards.
    const int r = std::min({reach, i, size - 1 - i});
    double sum = 0;
    for (int j = i - r; j <= i + r; ++j) sum += points[j].y;
    means.push_back({points[i].x, sum / (2 * r + 1)});
  }
  return means;
}

std::string Axes(const Frame& frame, const ChartOptions& options,
                 const std::vector<double>& x_ticks, const std::vector<double>& y_ticks) {
  std::string svg;
  const double x_step = x_ticks.size() > 1 ? x_ticks[1] - x_ticks[0] : 1;
  const double y_step = y_ticks.size() > 1 ? y_ticks[1] - y_ticks[0] : 1;
  for (double tick : y_ticks) {
    absl::StrAppendFormat(&svg, "<line class='grid' x1='%.1f' x2='%.1f' y1='%.1f' y2='%.1f'/>",
                          kLeft, frame.width - kRight, frame.Y(tick), frame.Y(tick));
    absl::StrAppendFormat(&svg, "<text class='label' x='%.1f' y='%.1f' text-anchor='end'>%s</text>",
                          kLeft - 6, frame.Y(tick) + 3.5, TickText(tick, y_step));
  }
  for (double tick : x_ticks) {
    if (tick < frame.x_low || tick > frame.x_high) continue;
    absl::StrAppendFormat(&svg,
                          "<text class='label' x='%.1f' y='%.1f' text-anchor='middle'>%s</text>",
                          frame.X(tick), frame.height - kBottom + 16, TickText(tick, x_step));
  }
  absl::StrAppendFormat(&svg, "<line class='axis' x1='%.1f' x2='%.1f' y1='%.1f' y2='%.1f'/>", kLeft,
                        frame.width - kRight, frame.height - kBottom, frame.height - kBottom);
  absl::StrAppendFormat(
      &svg, "<text class='label' x='%.1f' y='%.1f' text-anchor='middle'>%s</text>",
      (kLeft + frame.width - kRight) / 2, frame.height - 8, HtmlEscape(options.x_label));
  absl::StrAppendFormat(
      &svg,
      "<text class='label' transform='translate(14,%.1f) rotate(-90)' text-anchor='middle'>%s"
      "</text>",
      (kTop + frame.height - kBottom) / 2, HtmlEscape(options.y_label));
  return svg;
}

}  // namespace

std::vector<double> NiceTicks(double low, double high, int count, bool whole) {
  if (!(high > low)) {
    const double margin = low == 0 ? 1 : std::abs(low) * 0.1;
    low -= margin;
    high += margin;
  }
  const double raw = (high - low) / count;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  const double factor = raw / power;
  double step = power * (factor <= 1 ? 1 : factor <= 2 ? 2 : factor <= 5 ? 5 : 10);
  if (whole) step = std::max(step, 1.0);
  std::vector<double> ticks;
  // Slack of a millionth of a step, so that an end that is a tick itself does not gain another.
  const auto first = static_cast<int64_t>(std::floor(low / step + 1e-6));
  const auto last = static_cast<int64_t>(std::ceil(high / step - 1e-6));
  for (int64_t i = first; i <= last; ++i) ticks.push_back(static_cast<double>(i) * step);
  return ticks;
}

std::string TickText(double value, double step) {
  if (value == 0) return "0";
  const double magnitude = std::max(std::abs(value), step);
  if (magnitude < 1e-3 || magnitude >= 1e6) return absl::StrFormat("%.2g", value);
  const int digits = std::max(0, static_cast<int>(std::ceil(-std::log10(step) - 1e-9)));
  return absl::StrFormat("%.*f", digits, value);
}

std::string LineChart(const std::vector<ChartPoint>& points, const ChartOptions& options) {
  std::vector<ChartPoint> finite;
  for (const ChartPoint& p : points) {
    if (std::isfinite(p.x) && std::isfinite(p.y) && std::isfinite(p.spread)) finite.push_back(p);
  }
  std::string svg = absl::StrFormat(
      "<svg viewBox='0 0 %d %d' role='img' aria-label='%s'>"
      "<text class='title' x='%.0f' y='18'>%s</text>",
      options.width, options.height, HtmlEscape(options.title), 8.0, HtmlEscape(options.title));
  if (finite.empty()) {
    absl::StrAppendFormat(&svg,
                          "<text class='label' x='%d' y='%d' text-anchor='middle'>no data</text>"
                          "</svg>",
                          options.width / 2, options.height / 2);
    return svg;
  }

  double x_low = finite[0].x, x_high = finite[0].x;
  double y_low = finite[0].y - finite[0].spread, y_high = finite[0].y + finite[0].spread;
  for (const ChartPoint& p : finite) {
    x_low = std::min(x_low, p.x);
    x_high = std::max(x_high, p.x);
    y_low = std::min(y_low, p.y - p.spread);
    y_high = std::max(y_high, p.y + p.spread);
  }
  if (options.from_zero) {
    y_low = std::min(y_low, 0.0);
    if (y_high == 0) y_high = 1;
  }
  const std::vector<double> x_ticks = NiceTicks(x_low, x_high, options.width / 70, /*whole=*/true);
  const std::vector<double> y_ticks = NiceTicks(y_low, y_high, options.height / 48);
  if (x_high == x_low) {
    x_low -= 1;
    x_high += 1;
  }
  const Frame frame{x_low,
                    x_high,
                    y_ticks.front(),
                    y_ticks.back(),
                    static_cast<double>(options.width),
                    static_cast<double>(options.height)};
  absl::StrAppend(&svg, Axes(frame, options, x_ticks, y_ticks));
  if (std::any_of(finite.begin(), finite.end(), [](auto& p) { return p.spread > 0; })) {
    absl::StrAppend(&svg, Band(frame, finite));
  }
  const bool smoothed = finite.size() > 20;
  absl::StrAppend(&svg, "<polyline class='line", smoothed ? " raw" : "", "' points='",
                  Coordinates(frame, finite), "'/>");
  if (smoothed) {
    absl::StrAppend(&svg, "<polyline class='mean' points='",
                    Coordinates(frame, RunningMean(finite)), "'/>");
  }
  for (const ChartPoint& p : finite) {
    absl::StrAppendFormat(
        &svg, "<circle class='dot' cx='%.1f' cy='%.1f' r='%s'><title>%s %g: %.5g</title></circle>",
        frame.X(p.x), frame.Y(p.y), smoothed ? "2" : "3", HtmlEscape(options.x_label), p.x, p.y);
  }
  absl::StrAppend(&svg, "</svg>");
  return svg;
}

}  // namespace ddpo
