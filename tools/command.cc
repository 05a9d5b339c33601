#include "tools/command.h"

#include <iostream>

namespace ddpo {

void PrintError(const char* command, const absl::Status& status) {
  std::cerr << "ddpo " << command << ": " << status.message() << std::endl;
}

int ExitCode(const char* command, const absl::Status& status) {
  if (status.ok()) return 0;
  PrintError(command, status);
  return kCommandFailed;
}

}  // namespace ddpo
