#pragma once

#include <string>
#include <vector>

namespace ddpo {

struct ChartPoint {
  double x = 0;
  double y = 0;
  // Half the height of a band around the line, in units of y; 0 for none.
  double spread = 0;
};

struct ChartOptions {
  std::string title{};
  std::string x_label{};
  std::string y_label{};
  int width = 400;
  int height = 240;
  // Makes the y axis start at 0, for quantities where distance from nothing matters.
  bool from_zero = false;
};

// A line chart as an <svg> element for HTML. It has no colours of its own: the page's style sheet
// styles the classes grid, axis, label, band, line, dot and mean. Points that are not finite are
// left out; without any finite point the chart says so. A line through more than 20 points gets its
// running mean (over a tenth of them) drawn over it.
std::string LineChart(const std::vector<ChartPoint>& points, const ChartOptions& options);

// Tick positions at 1, 2 or 5 times a power of ten that cover [low, high] in about `count` steps;
// the first is ≤ low and the last ≥ high. `whole` keeps them whole numbers, as for epochs.
std::vector<double> NiceTicks(double low, double high, int count, bool whole = false);

// `value` with as many digits as ticks `step` apart need, as in 0.15, 1e-05, 2,400.
std::string TickText(double value, double step);

}  // namespace ddpo
