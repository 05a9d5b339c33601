#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

namespace ddpo {

// What the display shows of a run.
struct Progress {
  int64_t epochs_done = 0;
  int64_t epochs_total = 0;
  // Of the coordinator, while it answers: sampling, training, …, and how far that is.
  std::string phase;
  int64_t phase_done = 0;
  int64_t phase_total = 0;
  // Of the newest epoch; absent before the first one is complete.
  struct Epoch {
    double reward_mean = 0;
    double reward_change = 0;  // since the first epoch
    double samples_per_second = 0;
    double approx_kl = 0;
    double clip_fraction = 0;
    double seconds_left = 0;
  };
  std::optional<Epoch> epoch;
};

// Takes the numbers from lines of metrics.jsonl. Time left counts from the speed of the last ten
// epochs.
Progress ProgressFromMetrics(const std::vector<nlohmann::json>& metrics, int64_t epochs_total,
                             int64_t samples_per_epoch);

// One line without a newline, as in
//   epoch 12/100 │ reward −1.204 (+0.118) │ 14.2 images/s │ KL 3.1e-05 │ clipped 42% │ 3:10 left
std::string ProgressText(const Progress& progress);

// Shows progress on a terminal as one line that is drawn over and over, elsewhere as a line for
// each epoch. One thread calls it.
class ProgressDisplay {
 public:
  // `columns`: the terminal's width; 0 where the stream is not a terminal.
  ProgressDisplay(std::ostream& out, int columns) : out_(out), columns_(columns) {}

  void Show(const Progress& progress);
  // A line of its own, above the live one.
  void Note(const std::string& line);
  // Leaves the last line standing.
  void Finish();

 private:
  std::ostream& out_;
  const int columns_;
  std::string live_line_;
  int64_t last_epoch_shown_ = 0;
};

// Columns of the terminal that `fd` is, 0 where it is none.
int TerminalColumns(int fd);

}  // namespace ddpo
