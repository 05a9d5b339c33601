#include <deque>
#include <functional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "learner/collective/key_value_store.h"

namespace ddpo {
namespace {

// The thread that makes the calls. Shared with that thread, which outlives the store if a call
// never returns.
struct Worker {
  explicit Worker(std::unique_ptr<KeyValueStore> inner_store) : inner(std::move(inner_store)) {}

  void Run() {
    while (true) {
      std::function<void()> job;
      {
        const auto due = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
          return ending || !jobs.empty();
        };
        absl::MutexLock lock(&mutex);
        mutex.Await(absl::Condition(&due));
        if (jobs.empty()) return;
        job = std::move(jobs.front());
        jobs.pop_front();
      }
      job();
    }
  }

  const std::unique_ptr<KeyValueStore> inner;
  absl::Mutex mutex;
  std::deque<std::function<void()>> jobs ABSL_GUARDED_BY(mutex);
  bool ending ABSL_GUARDED_BY(mutex) = false;
  bool stuck ABSL_GUARDED_BY(mutex) = false;
};

class ImpatientStore : public KeyValueStore {
 public:
  ImpatientStore(std::unique_ptr<KeyValueStore> inner, absl::Duration patience)
      : patience_(patience),
        worker_(std::make_shared<Worker>(std::move(inner))),
        thread_([worker = worker_] { worker->Run(); }) {}

  ~ImpatientStore() override {
    bool stuck = false;
    {
      absl::MutexLock lock(&worker_->mutex);
      worker_->ending = true;
      stuck = worker_->stuck;
    }
    // Nothing ends a call that is stuck but the end of the process, which is near.
    stuck ? thread_.detach() : thread_.join();
  }

  absl::Status Set(const std::string& key, const std::string& value) override {
    return Call<absl::Status>(key, patience_,
                              [=](KeyValueStore& inner) { return inner.Set(key, value); });
  }
  absl::StatusOr<std::string> Get(const std::string& key, absl::Duration timeout) override {
    return Call<absl::StatusOr<std::string>>(
        key, timeout + patience_, [=](KeyValueStore& inner) { return inner.Get(key, timeout); });
  }
  absl::StatusOr<bool> Contains(const std::string& key) override {
    return Call<absl::StatusOr<bool>>(key, patience_,
                                      [=](KeyValueStore& inner) { return inner.Contains(key); });
  }
  absl::Status Delete(const std::string& key) override {
    return Call<absl::Status>(key, patience_,
                              [=](KeyValueStore& inner) { return inner.Delete(key); });
  }
  absl::StatusOr<int64_t> Count(const std::string& key) override {
    return Call<absl::StatusOr<int64_t>>(key, patience_,
                                         [=](KeyValueStore& inner) { return inner.Count(key); });
  }

 private:
  // Result is absl::Status or a StatusOr.
  template <typename Result>
  Result Call(const std::string& key, absl::Duration limit,
              const std::function<Result(KeyValueStore&)>& call) {
    struct Answer {
      bool there = false;
      Result result = absl::UnavailableError("no answer");
    };
    auto answer = std::make_shared<Answer>();
    absl::MutexLock lock(&worker_->mutex);
    if (!worker_->stuck) {
      worker_->jobs.push_back([worker = worker_.get(), answer, call] {
        Result result = call(*worker->inner);
        absl::MutexLock answering(&worker->mutex);
        answer->result = std::move(result);
        answer->there = true;
      });
      if (worker_->mutex.AwaitWithTimeout(absl::Condition(&answer->there), limit)) {
        return std::move(answer->result);
      }
      worker_->stuck = true;
    }
    return absl::UnavailableError(
        absl::StrCat("rank 0, which serves the store, does not answer (", key, ")"));
  }

  const absl::Duration patience_;
  const std::shared_ptr<Worker> worker_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<KeyValueStore> CreateImpatientStore(std::unique_ptr<KeyValueStore> inner,
                                                    absl::Duration patience) {
  return std::make_unique<ImpatientStore>(std::move(inner), patience);
}

}  // namespace ddpo
