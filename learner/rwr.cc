#include "learner/rwr.h"

namespace ddpo {

UnitLoss RwrObjective::Loss(const TrainingUnit& unit, const at::Tensor& model_output) const {
  const at::Tensor errors = (model_output - unit.target).square().mean({1, 2, 3});
  UnitLoss result;
  result.loss = (unit.weights * errors).mean();
  return result;
}

}  // namespace ddpo
