#pragma once

#include "learner/objective.h"

namespace ddpo {

// RWR, reward-weighted regression (arXiv 2305.13301, section 4.2): denoises noised images of the
// samples, mean over the samples of weight · MSE(target, guided model output), as the authors' JAX
// code. unit.latents is the noised latent, unit.target what the model should put out there; the
// weights come from SampleWeighting.
class RwrObjective : public Objective {
 public:
  UnitLoss Loss(const TrainingUnit& unit, const at::Tensor& model_output) const override;
};

}  // namespace ddpo
