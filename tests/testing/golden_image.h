#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/files.h"
#include "tests/testing/paths.h"

namespace ddpo::testing {

// The bytes of tests/goldens/images/`name`.
inline std::vector<uint8_t> GoldenImage(const std::string& name) {
  const std::string bytes = ReadFile(SourcePath("tests/goldens/images/" + name)).value();
  return {bytes.begin(), bytes.end()};
}

}  // namespace ddpo::testing
