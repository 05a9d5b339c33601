#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace ddpo {

enum class ElementType { kFloat32, kBFloat16 };

// A flat buffer of `elements` numbers. On the CPU backend `data` is host memory, on NCCL memory of
// the rank's own device.
struct FlatBuffer {
  void* data = nullptr;
  size_t elements = 0;
  ElementType type = ElementType::kFloat32;
};

// How the learner's ranks act together. Every rank makes the same calls in the same order, from one
// thread. No call waits longer than the timeout: a rank that died or hangs makes it UNAVAILABLE
// with a message that names the rank. After an error only Abort and the destructor may be called;
// the group starts again under a new generation.
class Collective {
 public:
  virtual ~Collective() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // The group's, which rank 0 has given it.
  virtual uint64_t generation() const = 0;

  // Replaces every rank's buffer by the sum over ranks. All ranks get the same bits, and the same
  // input gives the same bits again.
  absl::Status AllReduceSum(const FlatBuffer& buffer) {
    const absl::Time start = absl::Now();
    return Note(DoAllReduceSum(buffer), start);
  }

  // What every rank passed, in rank order. For small things: rewards, digests, statistics.
  absl::StatusOr<std::vector<std::string>> AllGather(const std::string& mine) {
    const absl::Time start = absl::Now();
    auto values = DoAllGather(mine);
    (void)Note(values.status(), start);
    return values;
  }

  // How long this rank has been in calls: mostly it waits for the others there. The calling thread.
  absl::Duration time_in_calls() const { return time_in_calls_; }

  // Whether a call has failed: another rank is gone, or out of step.
  bool failed() const { return failed_; }

  // Ends the group in good order, as every rank's last call: rank 0, whose store the others use,
  // returns once they have left.
  virtual absl::Status Leave() = 0;

  // Leaves because of an error: the other ranks' calls, those that wait now too, fail with `why`,
  // and this rank's return with CANCELLED or UNAVAILABLE. Any thread.
  virtual void Abort(const std::string& why) = 0;

 protected:
  virtual absl::Status DoAllReduceSum(const FlatBuffer& buffer) = 0;
  virtual absl::StatusOr<std::vector<std::string>> DoAllGather(const std::string& mine) = 0;

 private:
  absl::Status Note(absl::Status status, absl::Time start) {
    time_in_calls_ += absl::Now() - start;
    if (!status.ok()) failed_ = true;
    return status;
  }

  std::atomic<bool> failed_{false};
  absl::Duration time_in_calls_ = absl::ZeroDuration();
};

struct CollectiveOptions {
  int rank = 0;
  int size = 1;
  // gloo or nccl. A group of one needs neither.
  std::string backend = "gloo";
  // Where the ranks find the store that rank 0 serves and that they meet in.
  std::string store_host = "127.0.0.1";
  uint16_t store_port = 0;
  // The address that rank 0 serves it on; empty for store_host.
  std::string store_listen_host;
  // Address or name that this rank listens on for the others (Gloo).
  std::string listen_host = "127.0.0.1";
  // Of rank 0: the group's generation. The other ranks take it over from the store; a rank that
  // comes to a group which has that rank already is refused.
  uint64_t generation = 0;
  // Longest time that a call waits for a rank that is alive. One that is not heard of is given up
  // after 5 seconds.
  absl::Duration timeout = absl::Seconds(120);
  // Longest time to wait for all ranks to be there.
  absl::Duration meeting_timeout = absl::Minutes(10);
  // Index of this rank's GPU (NCCL).
  int device_index = 0;
};

// Waits until all ranks are there. Where there are several, the process ignores SIGPIPE from then
// on, so that writing to a rank that died is an error and not the end. INVALID_ARGUMENT for options
// that cannot be; UNIMPLEMENTED for nccl in a build without CUDA; UNAVAILABLE, naming the missing
// ranks, at the meeting's timeout.
absl::StatusOr<std::unique_ptr<Collective>> CreateCollective(const CollectiveOptions& options);

}  // namespace ddpo
