#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "tools/bench/bench.h"
#include "tools/command.h"

namespace ddpo {
namespace {

struct BenchFlags {
  BenchOptions options;
  bool json = false;
};

int RunBench(const std::string& what, absl::StatusOr<double> (*bench)(const BenchOptions&),
             const BenchFlags& flags) {
  absl::StatusOr<double> speed = bench(flags.options);
  if (!speed.ok()) return ExitCode("bench", speed.status());
  const BenchOptions& o = flags.options;
  if (flags.json) {
    std::cout << nlohmann::ordered_json{{"bench", what},       {"samples_per_second", *speed},
                                        {"model", o.model},    {"steps", o.steps},
                                        {"batch", o.batch},    {"samples", o.samples},
                                        {"threads", o.threads}}
              << "\n";
  } else {
    std::cout << absl::StrFormat(
        "%s: samples_per_second %.2f (%s, %d steps, batch %d, %d samples, %d threads)\n", what,
        *speed, o.model, o.steps, o.batch, o.samples, o.threads);
  }
  return 0;
}

}  // namespace

void AddBenchCommand(CLI::App& app, int& exit_code) {
  CLI::App* bench = app.add_subcommand("bench", "Measure samples per second");
  bench->require_subcommand(1);
  const struct {
    const char* name;
    const char* description;
    absl::StatusOr<double> (*function)(const BenchOptions&);
  } benches[] = {
      {"sampler", "Denoising and decoding", BenchSampler},
      {"update", "DDPO_IS update on sampled trajectories", BenchUpdate},
      {"loop", "The whole loop: learner, actors and reward server as processes", BenchLoop},
  };
  for (const auto& entry : benches) {
    auto flags = std::make_shared<BenchFlags>();
    CLI::App* command = bench->add_subcommand(entry.name, entry.description);
    BenchOptions& o = flags->options;
    const CLI::Range positive(1, 1000000);
    command->add_option("--model", o.model, "Folder in diffusers' layout")->required();
    command->add_option("--steps", o.steps, "Denoising steps")
        ->check(positive)
        ->capture_default_str();
    command->add_option("--batch", o.batch, "Images denoised together, samples of a minibatch")
        ->check(positive)
        ->capture_default_str();
    command->add_option("--samples", o.samples, "Samples of a measurement")
        ->check(positive)
        ->capture_default_str();
    command->add_option("--threads", o.threads, "One-thread workers side by side")
        ->check(positive)
        ->capture_default_str();
    command->add_option("--repeats", o.repeats, "Measurements; the median counts")
        ->check(positive)
        ->capture_default_str();
    command->add_flag("--json", flags->json, "Print JSON");
    command->callback([name = std::string(entry.name), function = entry.function, flags,
                       &exit_code] { exit_code = RunBench(name, function, *flags); });
  }
}

}  // namespace ddpo
