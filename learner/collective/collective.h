#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
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

  // Replaces every rank's buffer by the sum over ranks. All ranks get the same bits, and the same
  // input gives the same bits again.
  virtual absl::Status AllReduceSum(const FlatBuffer& buffer) = 0;

  // What every rank passed, in rank order. For small things: rewards, digests, statistics.
  virtual absl::StatusOr<std::vector<std::string>> AllGather(const std::string& mine) = 0;

  // Makes calls that other threads wait in return with CANCELLED or UNAVAILABLE, now.
  virtual void Abort() = 0;
};

struct CollectiveOptions {
  int rank = 0;
  int size = 1;
  // gloo or nccl. A group of one needs neither.
  std::string backend = "gloo";
  // Where rank 0 serves the store that the ranks meet in.
  std::string store_host = "127.0.0.1";
  uint16_t store_port = 0;
  // Address or name that this rank listens on for the others (Gloo).
  std::string listen_host = "127.0.0.1";
  // Ranks of different generations never meet.
  uint64_t generation = 0;
  // Longest time that a call waits for the other ranks.
  absl::Duration timeout = absl::Seconds(120);
  // Index of this rank's GPU (NCCL).
  int device_index = 0;
};

// Waits until all ranks are there. INVALID_ARGUMENT for options that cannot be; UNIMPLEMENTED for
// nccl in a build without CUDA; UNAVAILABLE, naming the missing ranks, at the timeout.
absl::StatusOr<std::unique_ptr<Collective>> CreateCollective(const CollectiveOptions& options);

}  // namespace ddpo
