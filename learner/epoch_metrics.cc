#include "learner/epoch_metrics.h"

namespace ddpo {

void EpochMetrics::Add(const StepMetrics& step, double weight) {
  // Later steps compare with a policy that this epoch has changed already.
  if (total_.optimizer_steps == 0) total_.logprob_abs_diff_max = step.logprob_abs_diff_max;
  weight_ += weight;
  total_.loss += weight * step.loss;
  total_.approx_kl += weight * step.approx_kl;
  total_.clip_fraction += weight * step.clip_fraction;
  total_.ratio_mean += weight * step.ratio_mean;
  total_.reference_kl += weight * step.reference_kl;
  total_.grad_norm += step.grad_norm;
  ++total_.optimizer_steps;
}

UpdateMetrics EpochMetrics::Mean() const {
  UpdateMetrics mean = total_;
  mean.loss /= weight_;
  mean.approx_kl /= weight_;
  mean.clip_fraction /= weight_;
  mean.ratio_mean /= weight_;
  mean.reference_kl /= weight_;
  mean.grad_norm /= static_cast<double>(mean.optimizer_steps);
  return mean;
}

}  // namespace ddpo
