#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "learner/collective/collective.h"

namespace ddpo {

// A group of one rank, which has nobody to wait for.
class SingleRank : public Collective {
 public:
  explicit SingleRank(uint64_t generation) : generation_(generation) {}

  int rank() const override { return 0; }
  int size() const override { return 1; }
  uint64_t generation() const override { return generation_; }
  absl::Status Leave() override { return absl::OkStatus(); }
  void Abort(const std::string&) override {}

 protected:
  absl::Status DoAllReduceSum(const FlatBuffer&) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<std::string>> DoAllGather(const std::string& mine) override {
    return std::vector<std::string>{mine};
  }

 private:
  const uint64_t generation_;
};

}  // namespace ddpo
