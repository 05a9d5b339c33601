#pragma once

#include <string>

namespace ddpo::testing {

// A file of the source tree, as in SourcePath("tests/goldens/ddim.safetensors").
inline std::string SourcePath(const std::string& relative) {
  return DDPO_SOURCE_DIR "/" + relative;
}

// A program of this build, as in ProgramPath("ddpo-actor").
inline std::string ProgramPath(const std::string& name) {
  return DDPO_BIN_DIR "/" + name;
}

}  // namespace ddpo::testing
