#include "tools/up/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/run/metrics_log.h"

namespace ddpo {
namespace {

// "3:10", "1:02:45".
std::string DurationText(double seconds) {
  const auto total = static_cast<int64_t>(std::max(0.0, seconds) + 0.5);
  if (total >= 3600) {
    return absl::StrFormat("%d:%02d:%02d", total / 3600, total / 60 % 60, total % 60);
  }
  return absl::StrFormat("%d:%02d", total / 60, total % 60);
}

// The first `columns` characters of UTF-8 text.
std::string Clip(const std::string& text, int columns) {
  int count = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool starts_character = (static_cast<unsigned char>(text[i]) & 0xC0) != 0x80;
    if (starts_character && ++count > columns) return text.substr(0, i);
  }
  return text;
}

}  // namespace

Progress ProgressFromMetrics(const std::vector<nlohmann::json>& metrics, int64_t epochs_total,
                             int64_t samples_per_epoch) {
  Progress progress;
  progress.epochs_total = epochs_total;
  if (metrics.empty()) return progress;
  const nlohmann::json& last = metrics.back();
  progress.epochs_done = static_cast<int64_t>(metrics.size());
  Progress::Epoch epoch;
  epoch.reward_mean = MetricOr(last, "reward_mean", 0);
  epoch.reward_change = epoch.reward_mean - MetricOr(metrics.front(), "reward_mean", 0);
  epoch.samples_per_second = MetricOr(last, "samples_per_second", 0);
  epoch.approx_kl = MetricOr(last, "approx_kl", 0);
  epoch.clip_fraction = MetricOr(last, "clip_fraction", 0);
  const size_t recent = std::min<size_t>(10, metrics.size());
  double seconds_per_epoch = 0;
  for (size_t i = metrics.size() - recent; i < metrics.size(); ++i) {
    const double speed = MetricOr(metrics[i], "samples_per_second", 0);
    if (speed > 0) seconds_per_epoch += static_cast<double>(samples_per_epoch) / speed;
  }
  seconds_per_epoch /= static_cast<double>(recent);
  epoch.seconds_left = seconds_per_epoch * static_cast<double>(epochs_total - progress.epochs_done);
  progress.epoch = epoch;
  return progress;
}

std::string ProgressText(const Progress& progress) {
  std::string text = absl::StrFormat("epoch %d/%d", progress.epochs_done, progress.epochs_total);
  if (progress.epoch) {
    const Progress::Epoch& e = *progress.epoch;
    absl::StrAppendFormat(&text,
                          " │ reward %.3f (%+.3f) │ %.1f images/s │ KL %.1e │ clipped %.0f%% │ %s "
                          "left",
                          e.reward_mean, e.reward_change, e.samples_per_second, e.approx_kl,
                          100 * e.clip_fraction, DurationText(e.seconds_left));
  }
  if (!progress.phase.empty()) {
    absl::StrAppend(&text, " │ ", progress.phase);
    if (progress.phase_total > 0) {
      absl::StrAppend(&text, " ", progress.phase_done, "/", progress.phase_total);
    }
  }
  return text;
}

void ProgressDisplay::Show(const Progress& progress) {
  if (columns_ == 0) {
    if (progress.epochs_done == last_epoch_shown_) return;
    last_epoch_shown_ = progress.epochs_done;
    Progress without_phase = progress;
    without_phase.phase.clear();
    out_ << ProgressText(without_phase) << std::endl;
    return;
  }
  // One column less than there is: a full line would make some terminals wrap.
  std::string line = Clip(ProgressText(progress), columns_ - 1);
  if (line == live_line_) return;
  live_line_ = std::move(line);
  out_ << "\r\033[K" << live_line_ << std::flush;
}

void ProgressDisplay::Note(const std::string& line) {
  if (columns_ > 0) out_ << "\r\033[K";
  out_ << line << std::endl;
  if (columns_ > 0) out_ << live_line_ << std::flush;
}

void ProgressDisplay::Finish() {
  if (columns_ > 0 && !live_line_.empty()) out_ << std::endl;
  live_line_.clear();
}

int TerminalColumns(int fd) {
  if (isatty(fd) == 0) return 0;
  winsize size{};
  if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace ddpo
