// Runs a fuzz target on its corpus and on a fixed number of inputs made from it; the same in each
// run.
//
//   fuzz_NAME [--runs 10000] [--seed 1]
//   fuzz_NAME --only N                    the N-th of these inputs, as a failure names it
//   fuzz_NAME --write-corpus DIR          as a start for libFuzzer
//   fuzz_NAME --input FILE                what libFuzzer found

#include <google/protobuf/stubs/logging.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "tests/fuzz/fuzz_target.h"

namespace ddpo::fuzz {
namespace {

// An input that keeps the target busy for so long hangs it.
constexpr unsigned kMostSeconds = 60;

// How to run the input again that is under way, for the signal handler, which may not make it.
char run_again[64] = "\nfailed\n";

void NameInput(int signal) {
  const ssize_t written = write(STDERR_FILENO, run_again, strlen(run_again));
  (void)written;
  const int fatal = signal == SIGALRM ? SIGABRT : signal;
  std::signal(fatal, SIG_DFL);
  raise(fatal);
}

void NameInputsThatFail() {
  std::signal(SIGABRT, NameInput);
  std::signal(SIGALRM, NameInput);
#ifndef __SANITIZE_ADDRESS__  // which has more to say
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(signal, NameInput);
#endif
}

// The input of this number: one of the corpus, then mutations of them.
std::string MakeInput(FuzzTarget* target, const std::vector<std::string>& corpus, uint64_t seed,
                      int64_t number) {
  const auto place = static_cast<size_t>(number);
  if (place < corpus.size()) return corpus[place];
  Random random(seed * 1000000007 + place);
  std::string input = corpus[random.Below(corpus.size())];
  const size_t steps = 1 + random.Below(3);
  for (size_t step = 0; step < steps; ++step) input = target->Mutate(input, random);
  return input;
}

int Main(int argc, char** argv) {
  CLI::App app("Feeds a fuzz target");
  int64_t runs = 10000;
  uint64_t seed = 1;
  int64_t only = -1;
  std::string corpus_folder;
  std::string input_file;
  app.add_option("--runs", runs);
  app.add_option("--seed", seed);
  app.add_option("--only", only);
  app.add_option("--write-corpus", corpus_folder);
  app.add_option("--input", input_file);
  CLI11_PARSE(app, argc, argv);

  // Protobuf has a line for each text that is not UTF-8.
  const google::protobuf::LogSilencer silence;
  const std::unique_ptr<FuzzTarget> target = MakeTarget();
  const std::vector<std::string> corpus = target->Corpus();
  Require(!corpus.empty(), "the corpus is empty");
  if (!corpus_folder.empty()) {
    for (size_t i = 0; i < corpus.size(); ++i) {
      const absl::Status written =
          WriteFileAtomically(JoinPath(corpus_folder, absl::StrCat(i)), corpus[i]);
      Require(written.ok(), written.ToString());
    }
    return 0;
  }
  NameInputsThatFail();
  if (!input_file.empty()) {
    target->Run(ReadFile(input_file).value());
    return 0;
  }
  int64_t taken = 0;
  for (int64_t number = only < 0 ? 0 : only; number < (only < 0 ? runs : only + 1); ++number) {
    std::snprintf(run_again, sizeof(run_again), "\nfailed; run again with --only %lld\n",
                  static_cast<long long>(number));
    alarm(kMostSeconds);
    if (target->Run(MakeInput(target.get(), corpus, seed, number))) ++taken;
  }
  alarm(0);
  if (only >= 0) return 0;
  std::printf("%lld inputs, %lld of them taken\n", static_cast<long long>(runs),
              static_cast<long long>(taken));
  // Otherwise either nothing is refused, or nothing gets past the door.
  Require(taken > 0 && taken < runs, "the inputs are all good or all bad");
  return 0;
}

}  // namespace

}  // namespace ddpo::fuzz

int main(int argc, char** argv) { return ddpo::fuzz::Main(argc, argv); }
