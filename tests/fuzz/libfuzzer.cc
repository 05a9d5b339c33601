// Gives a fuzz target to libFuzzer, in the `fuzz` preset.

#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/fuzz/fuzz_target.h"

namespace ddpo::fuzz {
namespace {

FuzzTarget& Target() {
  // Protobuf has a line for each text that is not UTF-8.
  static const google::protobuf::LogSilencer silence;
  static FuzzTarget& target = *MakeTarget().release();
  return target;
}

}  // namespace
}  // namespace ddpo::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ddpo::fuzz::Target().Run(std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int seed) {
  ddpo::fuzz::Random random(seed);
  const std::string mutated =
      ddpo::fuzz::Target().Mutate(std::string(reinterpret_cast<const char*>(data), size), random);
  const size_t length = std::min(max_size, mutated.size());
  std::memcpy(data, mutated.data(), length);
  return length;
}
