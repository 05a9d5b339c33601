#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/diffusion/pipeline.h"
#include "common/nn/lora.h"
#include "common/nn/network_options.h"
#include "common/nn/policy.h"
#include "common/nn/unet.h"
#include "common/tensors/safetensors.h"
#include "tools/command.h"
#include "tools/write_image.h"

namespace ddpo {
namespace {

struct SampleFlags {
  std::string model;
  std::vector<std::string> prompts;
  uint64_t seed = 0;
  int number = 1;
  DenoiseOptions denoise;
  std::string lora;
  std::string unet;
  std::string out;
  std::string dtype = "float32";
  std::string device = "cpu";
};

constexpr int kBatch = 16;

absl::Status CheckKind(const std::string& path, bool unet) {
  DDPO_ASSIGN_OR_RETURN(const SafetensorsContents contents, ReadSafetensors(path));
  if (IsUNetWeights(contents) == unet) return absl::OkStatus();
  return absl::InvalidArgumentError(
      unet ? absl::StrCat("--unet: ", path,
                          " does not hold the weights of a whole UNet; --lora takes a LoRA")
           : absl::StrCat("--lora: ", path,
                          " holds the weights of a whole UNet, which --unet takes"));
}

// Gives the pipeline the weights of --unet, and returns the LoRA of --lora.
absl::StatusOr<std::optional<LoraWeights>> ApplyWeights(const SampleFlags& flags,
                                                        Pipeline& pipeline) {
  if (!flags.unet.empty()) {
    std::error_code error;
    const std::string path = std::filesystem::is_directory(flags.unet, error)
                                 ? JoinPath(flags.unet, "diffusion_pytorch_model.safetensors")
                                 : flags.unet;
    DDPO_RETURN_IF_ERROR(CheckKind(path, /*unet=*/true));
    DDPO_RETURN_IF_ERROR(ApplyPolicyFile(pipeline.unet(), path).status());
  }
  if (flags.lora.empty()) return std::nullopt;
  DDPO_RETURN_IF_ERROR(CheckKind(flags.lora, /*unet=*/false));
  return ApplyPolicyFile(pipeline.unet(), flags.lora);
}

// Image i of a prompt has the seed --seed + i, whatever else is drawn.
absl::Status DrawSamples(const SampleFlags& flags) {
  at::NoGradGuard no_grad;
  DDPO_ASSIGN_OR_RETURN(NetworkOptions options, ParseNetworkOptions(flags.dtype, flags.device));
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<Pipeline> pipeline, Pipeline::Load(flags.model, options));
  DDPO_ASSIGN_OR_RETURN(const std::optional<LoraWeights> lora, ApplyWeights(flags, *pipeline));
  DDPO_RETURN_IF_ERROR(FileSystem::Real()->CreateDirectories(flags.out));
  std::vector<Image> images;
  for (const std::string& prompt : flags.prompts) {
    for (int first = 0; first < flags.number; first += kBatch) {
      std::vector<uint64_t> seeds;
      for (int i = first; i < std::min(flags.number, first + kBatch); ++i) {
        seeds.push_back(flags.seed + i);
      }
      DDPO_ASSIGN_OR_RETURN(Trajectory trajectory,
                            pipeline->Denoise(std::vector<std::string>(seeds.size(), prompt),
                                              pipeline->DrawNoise(seeds, flags.denoise.num_steps),
                                              flags.denoise, lora ? &*lora : nullptr));
      for (Image& image :
           pipeline->DecodeToImages(trajectory.latents.select(1, flags.denoise.num_steps))) {
        DDPO_RETURN_IF_ERROR(
            WritePng(absl::StrFormat("%s/sample_%04d.png", flags.out, images.size()), image));
        images.push_back(std::move(image));
      }
    }
  }
  // A row for each prompt where that fits a screen.
  const int columns = flags.prompts.size() > 1 && flags.number > 1 ? flags.number : 6;
  DDPO_RETURN_IF_ERROR(WriteGrid(flags.out + "/grid.png", images, columns));
  std::cout << images.size() << " images and grid.png in " << flags.out << std::endl;
  return absl::OkStatus();
}

}  // namespace

void AddSampleCommand(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<SampleFlags>();
  CLI::App* command = app.add_subcommand("sample", "Draw images");
  command->add_option("--model", flags->model, "Folder in diffusers' layout")->required();
  command->add_option("--prompt", flags->prompts, "What to draw; may be repeated")->required();
  command
      ->add_option("--seed", flags->seed, "Seed of each prompt's first image; later ones count up")
      ->capture_default_str();
  command->add_option("--number", flags->number, "Images of each prompt")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  command->add_option("--steps", flags->denoise.num_steps, "Denoising steps")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--guidance", flags->denoise.guidance_scale, "Guidance weight")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  command->add_option("--eta", flags->denoise.eta, "DDIM's eta, 0 (deterministic) to 1")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--lora", flags->lora, "LoRA weights with PEFT's keys");
  command->add_option("--unet", flags->unet,
                      "Weights instead of the model's UNet's: a file of RUN/unet/ after full "
                      "fine-tuning, or a folder of `ddpo export`");
  command->add_option("--out", flags->out, "Folder for the images")->required();
  command->add_option("--dtype", flags->dtype, "float32, float16 or bfloat16")
      ->capture_default_str();
  command->add_option("--device", flags->device, "cpu or cuda")->capture_default_str();
  command->callback([flags, &exit_code] { exit_code = ExitCode("sample", DrawSamples(*flags)); });
}

}  // namespace ddpo
