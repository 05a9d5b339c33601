#pragma once

#include <prometheus/registry.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace prometheus {
class Exposer;
}

namespace ddpo {

struct MetricsServerOptions {
  // HOST:PORT; port 0 takes any that is free. The host is a numeric address or `localhost`.
  std::string listen = "127.0.0.1:0";
  // Plain text is spoken on loopback only, unless this asks for it.
  bool allow_plain_text_anywhere = false;
  // The program's name, as in `ddpo-actor`: a label of ddpo_process_start_time_seconds.
  std::string process = "";
};

// Serves a registry's metrics to Prometheus at http://ADDRESS/metrics.
class MetricsServer {
 public:
  // Also registers ddpo_process_start_time_seconds. INVALID_ARGUMENT for an address that cannot be
  // or plain text beyond loopback; UNAVAILABLE if it cannot listen there.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(
      const MetricsServerOptions& options, std::shared_ptr<prometheus::Registry> registry);
  // Ends at once.
  ~MetricsServer();

  // HOST:PORT, with the port that was taken.
  const std::string& address() const { return address_; }

 private:
  MetricsServer(std::shared_ptr<prometheus::Registry> registry,
                std::unique_ptr<prometheus::Exposer> exposer, std::string address);

  const std::shared_ptr<prometheus::Registry> registry_;
  const std::unique_ptr<prometheus::Exposer> exposer_;
  const std::string address_;
};

}  // namespace ddpo
