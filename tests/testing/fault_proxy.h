#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ddpo::testing {

// What happens to a call on its way.
enum class Fault {
  kNone,
  kFailsBefore,   // the server never hears of it; the client gets UNAVAILABLE
  kResponseLost,  // the server has done it; the client gets UNAVAILABLE in place of a response
  kDelayed,
};

// How often which fault strikes, as parts of 1. Which call it strikes follows from the seed, the
// method and how many calls of that method there were.
struct FaultPlan {
  uint64_t seed = 0;
  double fails_before = 0;
  double response_lost = 0;
  double delayed = 0;
  absl::Duration delay = absl::Milliseconds(30);
};

// The plan's decision for the call of that number, from 0, of a method.
Fault DecideFault(const FaultPlan& plan, const std::string& method, int64_t call);

// Stands between gRPC clients and a server, and makes calls of every kind fail. A stream breaks
// where a response is lost: at its first.
class FaultProxy {
 public:
  // The server at `upstream` may come and go.
  FaultProxy(const std::string& upstream, const FaultPlan& plan);
  // Waits for the calls that are under way.
  ~FaultProxy();

  // Where clients find it.
  const std::string& address() const { return address_; }
  // Calls that a fault struck, by kind; of lost responses those that the server had sent.
  std::map<Fault, int64_t> faults() const;

 private:
  class Call;
  class Service : public grpc::CallbackGenericService {
   public:
    explicit Service(FaultProxy* proxy) : proxy_(proxy) {}
    grpc::ServerGenericBidiReactor* CreateReactor(
        grpc::GenericCallbackServerContext* context) override;

   private:
    FaultProxy* const proxy_;
  };

  // Decides.
  Fault Next(const std::string& method);
  void Count(Fault fault);

  const FaultPlan plan_;
  Service service_;
  std::shared_ptr<grpc::Channel> upstream_;
  std::string address_;
  mutable absl::Mutex mutex_;
  std::map<std::string, int64_t> calls_ ABSL_GUARDED_BY(mutex_);  // by method
  std::map<Fault, int64_t> faults_ ABSL_GUARDED_BY(mutex_);
  int open_calls_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace ddpo::testing
