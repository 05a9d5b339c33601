#include "learner/gradient_workers.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <exception>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "learner/non_finite.h"

namespace ddpo {
namespace {

// Units, for each thread, that may be done before their turn in the sum: bounds the memory that
// waiting gradients take when one unit is slow.
constexpr int64_t kUnitsAhead = 2;

// d(loss)/d(parameters), flat in key order; zero for tensors that the loss does not touch.
absl::StatusOr<at::Tensor> FlatGradient(const NamedTensors& parameters, const at::Tensor& loss) {
  std::vector<at::Tensor> leaves;
  leaves.reserve(parameters.size());
  for (const auto& [key, tensor] : parameters) leaves.push_back(tensor);
  std::vector<at::Tensor> gradients =
      torch::autograd::grad({loss}, leaves, /*grad_outputs=*/{}, /*retain_graph=*/false,
                            /*create_graph=*/false, /*allow_unused=*/true);
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < leaves.size(); ++i) {
    gradients[i] = gradients[i].defined() ? gradients[i].flatten()
                                          : at::zeros({leaves[i].numel()}, leaves[i].options());
  }
  at::Tensor gradient = at::cat(gradients);
  if (gradient.isfinite().all().item<bool>()) return gradient;
  auto part = gradients.begin();
  for (const auto& [key, tensor] : parameters) {
    if (!(part++)->isfinite().all().item<bool>()) {
      return NonFiniteError(absl::StrCat("the gradient of ", key, " is not finite"));
    }
  }
  return NonFiniteError("the gradient is not finite");
}

absl::StatusOr<at::Tensor> UnitGradient(const NamedTensors& parameters, int64_t unit,
                                        const GradientWorkers::Units& units) {
  const at::AutoGradMode with_gradients(true);
  DDPO_ASSIGN_OR_RETURN(const at::Tensor loss, units.loss(unit));
  const double value = loss.item<double>();
  if (!std::isfinite(value)) {
    return NonFiniteError(absl::StrCat("the loss is ", value, ", expected a finite number"));
  }
  return FlatGradient(parameters, loss);
}

}  // namespace

// What RunJob hands to the threads. Guarded by the workers' mutex.
struct GradientWorkers::Job {
  int64_t count;
  // A unit's result, computed without the mutex.
  std::function<absl::StatusOr<at::Tensor>(int64_t unit)> compute;
  int64_t next_unit = 0;   // not handed out yet
  int64_t next_added = 0;  // its turn in the sum
  int in_flight = 0;
  std::map<int64_t, at::Tensor> waiting = {};  // computed before their turn
  at::Tensor sum = {};
  int64_t failed_unit = -1;
  absl::Status error = absl::OkStatus();

  bool Done() const { return in_flight == 0 && (!error.ok() || next_added == count); }

  void Fail(int64_t unit, const absl::Status& status) {
    if (!error.ok() && failed_unit < unit) return;
    failed_unit = unit;
    error = status;
  }

  void Add(int64_t unit, at::Tensor result) {
    const at::NoGradGuard no_grad;
    waiting.emplace(unit, std::move(result));
    for (auto next = waiting.begin(); next != waiting.end() && next->first == next_added;
         next = waiting.erase(next), ++next_added) {
      if (sum.defined()) {
        sum.add_(next->second);
      } else {
        sum = std::move(next->second);
      }
    }
  }

  absl::StatusOr<at::Tensor> TryCompute(int64_t unit) const {
    try {
      return compute(unit);
    } catch (const std::exception& thrown) {
      return absl::InternalError(thrown.what());
    }
  }
};

GradientWorkers::GradientWorkers(int threads) : num_threads_(threads) {
  // at::set_num_threads acts on the calling thread and on threads that start later; the caller's
  // setting has to outlive the workers' start.
  const int intra_op_threads = at::get_num_threads();
  for (int i = 0; i < num_threads_; ++i) threads_.emplace_back(&GradientWorkers::Run, this);
  {
    const auto all_ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return threads_ready_ == num_threads_;
    };
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&all_ready));
  }
  at::set_num_threads(intra_op_threads);
}

GradientWorkers::~GradientWorkers() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

bool GradientWorkers::WorkerCanGoOn() const {
  if (stopping_) return true;
  return job_ != nullptr && job_->error.ok() && job_->next_unit < job_->count &&
         job_->next_unit < job_->next_added + kUnitsAhead * num_threads_;
}

void GradientWorkers::Run() {
  // A thread takes the process's setting when it first asks, so it asks before it sets its own.
  at::get_num_threads();
  at::set_num_threads(1);
  absl::MutexLock lock(&mutex_);
  ++threads_ready_;
  while (true) {
    mutex_.Await(absl::Condition(this, &GradientWorkers::WorkerCanGoOn));
    if (stopping_) return;
    Job& job = *job_;
    const int64_t unit = job.next_unit++;
    ++job.in_flight;
    mutex_.Unlock();
    absl::StatusOr<at::Tensor> result = job.TryCompute(unit);
    mutex_.Lock();
    if (result.ok()) {
      job.Add(unit, *std::move(result));
    } else {
      job.Fail(unit, result.status());
    }
    --job.in_flight;
  }
}

absl::Status GradientWorkers::RunJob(Job& job) {
  absl::MutexLock lock(&mutex_);
  job_ = &job;
  mutex_.Await(absl::Condition(&job, &Job::Done));
  job_ = nullptr;
  return job.error;
}

absl::StatusOr<at::Tensor> GradientWorkers::SumGradients(const NamedTensors& parameters,
                                                         const Units& units) {
  if (units.count < 1) {
    return absl::InvalidArgumentError("no backward passes to sum the gradients of");
  }
  Job job{.count = units.count,
          .compute = [&](int64_t unit) { return UnitGradient(parameters, unit, units); }};
  const absl::Status status = RunJob(job);
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat(units.name(job.failed_unit), ": ", status.message()));
  }
  return job.sum;
}

absl::Status GradientWorkers::ForEach(int64_t count,
                                      const std::function<absl::Status(int64_t unit)>& run) {
  if (count < 1) return absl::OkStatus();
  Job job{.count = count, .compute = [&](int64_t unit) -> absl::StatusOr<at::Tensor> {
            const at::NoGradGuard no_grad;
            DDPO_RETURN_IF_ERROR(run(unit));
            return at::zeros({0});
          }};
  return RunJob(job);
}

}  // namespace ddpo
