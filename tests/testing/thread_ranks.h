#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "learner/collective/collective.h"

namespace ddpo::testing {

// A group of ranks that are threads of one process. Sums are taken in rank order.
class ThreadRanks {
 public:
  explicit ThreadRanks(int size, uint64_t generation = 1)
      : generation_(generation), parts_(size), ranks_(size) {
    for (int rank = 0; rank < size; ++rank) ranks_[rank] = std::make_unique<Rank>(this, rank);
  }

  int size() const { return static_cast<int>(ranks_.size()); }
  Collective& operator[](int rank) { return *ranks_[rank]; }

  // Runs `body(collective)` as every rank, each on a thread of its own.
  void Run(const std::function<void(Collective&)>& body) {
    std::vector<std::thread> threads;
    for (auto& rank : ranks_) threads.emplace_back([&] { body(*rank); });
    for (std::thread& thread : threads) thread.join();
  }

 private:
  class Rank : public Collective {
   public:
    Rank(ThreadRanks* group, int rank) : group_(group), rank_(rank) {}

    int rank() const override { return rank_; }
    int size() const override { return group_->size(); }
    uint64_t generation() const override { return group_->generation_; }
    absl::Status Leave() override { return absl::OkStatus(); }
    void Abort(const std::string& why) override {
      absl::MutexLock lock(&group_->mutex_);
      if (group_->error_.ok()) {
        group_->error_ = absl::UnavailableError(absl::StrCat("rank ", rank_, " is gone: ", why));
      }
    }

   protected:
    absl::Status DoAllReduceSum(const FlatBuffer& buffer) override {
      const auto parts = group_->Exchange(
          rank_, std::string(static_cast<const char*>(buffer.data), buffer.elements * 4));
      if (!parts.ok()) return parts.status();
      std::vector<float> sum(buffer.elements), part(buffer.elements);
      for (const std::string& bytes : *parts) {
        std::memcpy(part.data(), bytes.data(), bytes.size());
        for (size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
      }
      std::memcpy(buffer.data, sum.data(), buffer.elements * 4);
      return absl::OkStatus();
    }
    absl::StatusOr<std::vector<std::string>> DoAllGather(const std::string& mine) override {
      return group_->Exchange(rank_, mine);
    }

   private:
    ThreadRanks* const group_;
    const int rank_;
  };

  // What all ranks gave in this round.
  absl::StatusOr<std::vector<std::string>> Exchange(int rank, const std::string& mine) {
    absl::MutexLock lock(&mutex_);
    const int64_t round = round_;
    parts_[rank] = mine;
    if (++arrived_ == size()) {
      complete_ = parts_;
      arrived_ = 0;
      ++round_;
    }
    const auto over = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return round_ > round || !error_.ok();
    };
    mutex_.Await(absl::Condition(&over));
    // The next round cannot be complete before this rank has taken part in it.
    if (round_ > round) return complete_;
    return error_;
  }

  const uint64_t generation_;
  absl::Mutex mutex_;
  std::vector<std::string> parts_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> complete_ ABSL_GUARDED_BY(mutex_);
  int arrived_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t round_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Rank>> ranks_;
};

}  // namespace ddpo::testing
