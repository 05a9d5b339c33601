// ddpo-health: asks a process of the cluster for its health, for probes of containers. Small, so
// that it can run every few seconds.
//
// Exit codes: 0 it serves; 1 it does not, or does not answer; 2 the flags cannot be worked with.
#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/rpc/security_flags.h"
#include "tools/health/health_check.h"

namespace {

constexpr int kExitBadFlags = 2;

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Asks a process for its health (grpc.health.v1).", "ddpo-health");
  std::string address;
  std::string service;
  double timeout_seconds = 5;
  app.add_option("address", address, "HOST:PORT")->required();
  app.add_option("--service", service, "A service's name; without it, the process as a whole");
  app.add_option("--timeout-seconds", timeout_seconds, "Longest time for an answer")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  ddpo::config::v1::SecurityConfig security;
  ddpo::AddCertificateFlags(&app, &security);
  ddpo::AddTlsClientFlags(&app, &security);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitBadFlags;
  }
  const absl::Status health =
      ddpo::CheckHealth(address, service, absl::Seconds(timeout_seconds), security.tls());
  if (health.ok()) return 0;
  std::cerr << health.message() << std::endl;
  return absl::IsInvalidArgument(health) ? kExitBadFlags : 1;
}
