#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/diffusion/pipeline.h"
#include "common/nn/clip_image_encoder.h"
#include "common/nn/llava.h"
#include "common/tensors/image.h"
#include "common/tensors/safetensors.h"
#include "tools/parity/fixture.h"

namespace ddpo {

// The model folder that fixtures are recomputed with; each kind loads from it what it needs, once.
class ParityModel {
 public:
  ParityModel(std::string dir, const NetworkOptions& options)
      : dir_(std::move(dir)), options_(options) {}

  const std::string& dir() const { return dir_; }
  const NetworkOptions& options() const { return options_; }
  // The same as the texts that configurations hold.
  std::string dtype() const;
  std::string device() const;
  // The folder as a text-to-image pipeline.
  absl::StatusOr<Pipeline*> pipeline();
  // The folder as CLIP's image tower.
  absl::StatusOr<const ClipImageEncoder*> clip();
  // The folder as a LLaVA.
  absl::StatusOr<const Llava*> llava();

 private:
  std::string dir_;
  NetworkOptions options_;
  std::unique_ptr<Pipeline> pipeline_;
  std::unique_ptr<ClipImageEncoder> clip_;
  std::unique_ptr<Llava> llava_;
};

// The pictures of a fixture's images, [B,H,W,3] uint8.
std::vector<Image> ToImages(const at::Tensor& images);

// Computes the out.* tensors of a fixture, by name without the prefix.
using ParityKind = absl::StatusOr<NamedTensors> (*)(const Fixture& fixture, ParityModel& model);

// Every kind of fixture that `ddpo parity` knows. Each file of kinds hands its own over.
using ParityKinds = std::map<std::string, ParityKind>;
void AddDiffusionKinds(ParityKinds& kinds);
void AddPolicyGradientKinds(ParityKinds& kinds);
void AddImageKinds(ParityKinds& kinds);
void AddClipKinds(ParityKinds& kinds);
void AddLlavaKinds(ParityKinds& kinds);
void AddTextKinds(ParityKinds& kinds);

inline ParityKinds AllParityKinds() {
  ParityKinds kinds;
  AddDiffusionKinds(kinds);
  AddPolicyGradientKinds(kinds);
  AddImageKinds(kinds);
  AddClipKinds(kinds);
  AddLlavaKinds(kinds);
  AddTextKinds(kinds);
  return kinds;
}

}  // namespace ddpo
