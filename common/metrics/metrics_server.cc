#include "common/metrics/metrics_server.h"

#include <prometheus/exposer.h>

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/address.h"
#include "common/base/status_macros.h"
#include "common/metrics/families.h"

namespace ddpo {

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const MetricsServerOptions& options, std::shared_ptr<prometheus::Registry> registry) {
  DDPO_ASSIGN_OR_RETURN(HostPort listen, ParseHostPort(options.listen));
  if (!options.allow_plain_text_anywhere && !IsLoopbackHost(listen.host)) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics address ", options.listen,
                     " is not loopback: plain text there has to be asked for"));
  }
  // The HTTP server takes numeric addresses only.
  if (listen.host == "localhost") listen.host = "127.0.0.1";
  GaugeFamily(*registry, "ddpo_process_start_time_seconds",
              "Unix time at which the process began to serve its metrics.")
      .Add({{"process", options.process}})
      .SetToCurrentTime();
  try {
    auto exposer = std::make_unique<prometheus::Exposer>(listen.ToString());
    exposer->RegisterCollectable(registry);
    listen.port = exposer->GetListeningPorts().front();
    return std::unique_ptr<MetricsServer>(
        new MetricsServer(std::move(registry), std::move(exposer), listen.ToString()));
  } catch (const std::exception& error) {
    return absl::UnavailableError(
        absl::StrCat("cannot serve metrics on ", options.listen, ": ", error.what()));
  }
}

MetricsServer::MetricsServer(std::shared_ptr<prometheus::Registry> registry,
                             std::unique_ptr<prometheus::Exposer> exposer, std::string address)
    : registry_(std::move(registry)), exposer_(std::move(exposer)), address_(std::move(address)) {}

MetricsServer::~MetricsServer() = default;

}  // namespace ddpo
