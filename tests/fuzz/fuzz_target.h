#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "tests/fuzz/mutate.h"

namespace ddpo::fuzz {

// Something that takes bytes from strangers. driver.cc feeds it a fixed number of inputs, the same
// in each run, made from its corpus; in the `fuzz` preset libFuzzer does, for as long as one likes.
class FuzzTarget {
 public:
  virtual ~FuzzTarget() = default;

  // Good inputs, from which others are made.
  virtual std::vector<std::string> Corpus() = 0;

  // An input near this one.
  virtual std::string Mutate(const std::string& input, Random& random) {
    return MutateBytes(input, random);
  }

  // Whether the input was taken; false if it was refused. Ends the process, through Require, where
  // something does not hold that always must.
  virtual bool Run(const std::string& input) = 0;
};

// Defined once in each fuzz target's program.
std::unique_ptr<FuzzTarget> MakeTarget();

// Prints the message and aborts unless the condition holds.
void Require(bool condition, absl::string_view message);

}  // namespace ddpo::fuzz
