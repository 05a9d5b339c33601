#include "learner/gradient_workers.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <exception>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace ddpo {
namespace {

// Units, for each thread, that may be done before their turn in the sum: bounds the memory that
// waiting gradients take when one unit is slow.
constexpr int64_t kUnitsAhead = 2;

// d(loss)/d(LoRA), flat in key order; zero for tensors that the loss does not touch.
absl::StatusOr<at::Tensor> FlatGradient(const NamedTensors& leaves, const at::Tensor& loss) {
  loss.backward();
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  gradients.reserve(leaves.size());
  for (const auto& [key, tensor] : leaves) {
    gradients.push_back(tensor.grad().defined() ? tensor.grad().flatten()
                                                : at::zeros({tensor.numel()}, tensor.options()));
  }
  at::Tensor gradient = at::cat(gradients);
  if (gradient.isfinite().all().item<bool>()) return gradient;
  for (const auto& [key, tensor] : leaves) {
    if (tensor.grad().defined() && !tensor.grad().isfinite().all().item<bool>()) {
      return absl::InternalError(absl::StrCat("the gradient of ", key, " is not finite"));
    }
  }
  return absl::InternalError("the gradient is not finite");
}

absl::StatusOr<at::Tensor> UnitGradient(const LoraWeights& lora, int64_t unit,
                                        const GradientWorkers::Units& units) {
  try {
    const at::AutoGradMode with_gradients(true);
    LoraWeights leaves = lora;
    for (auto& [key, tensor] : leaves.tensors) tensor = tensor.detach().requires_grad_(true);
    DDPO_ASSIGN_OR_RETURN(const at::Tensor loss, units.loss(unit, leaves));
    const double value = loss.item<double>();
    if (!std::isfinite(value)) {
      return absl::InternalError(absl::StrCat("the loss is ", value, ", expected a finite number"));
    }
    return FlatGradient(leaves.tensors, loss);
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
}

}  // namespace

// One call of SumGradients. Guarded by the workers' mutex.
struct GradientWorkers::Job {
  const LoraWeights& lora;
  const Units& units;
  int64_t next_unit = 0;   // not handed out yet
  int64_t next_added = 0;  // its turn in the sum
  int in_flight = 0;
  std::map<int64_t, at::Tensor> waiting = {};  // computed before their turn
  at::Tensor sum = {};
  int64_t failed_unit = -1;
  absl::Status error = absl::OkStatus();

  bool Done() const { return in_flight == 0 && (!error.ok() || next_added == units.count); }

  void Fail(int64_t unit, const absl::Status& status) {
    if (!error.ok() && failed_unit < unit) return;
    failed_unit = unit;
    error = absl::Status(status.code(), absl::StrCat(units.name(unit), ": ", status.message()));
  }

  void Add(int64_t unit, at::Tensor gradient) {
    const at::NoGradGuard no_grad;
    waiting.emplace(unit, std::move(gradient));
    for (auto next = waiting.begin(); next != waiting.end() && next->first == next_added;
         next = waiting.erase(next), ++next_added) {
      if (sum.defined()) {
        sum.add_(next->second);
      } else {
        sum = std::move(next->second);
      }
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
  return job_ != nullptr && job_->error.ok() && job_->next_unit < job_->units.count &&
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
    absl::StatusOr<at::Tensor> gradient = UnitGradient(job.lora, unit, job.units);
    mutex_.Lock();
    if (gradient.ok()) {
      job.Add(unit, *std::move(gradient));
    } else {
      job.Fail(unit, gradient.status());
    }
    --job.in_flight;
  }
}

absl::StatusOr<at::Tensor> GradientWorkers::SumGradients(const LoraWeights& lora,
                                                         const Units& units) {
  if (units.count < 1) {
    return absl::InvalidArgumentError("no backward passes to sum the gradients of");
  }
  Job job{lora, units};
  absl::MutexLock lock(&mutex_);
  job_ = &job;
  mutex_.Await(absl::Condition(&job, &Job::Done));
  job_ = nullptr;
  if (!job.error.ok()) return job.error;
  return job.sum;
}

}  // namespace ddpo
