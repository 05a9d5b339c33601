#include "tests/fuzz/fuzz_target.h"

#include <cstdio>
#include <cstdlib>

namespace ddpo::fuzz {

void Require(bool condition, absl::string_view message) {
  if (condition) return;
  std::fprintf(stderr, "%.*s\n", static_cast<int>(message.size()), message.data());
  std::abort();
}

}  // namespace ddpo::fuzz
