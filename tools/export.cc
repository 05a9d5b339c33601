#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/nn/lora.h"
#include "common/nn/policy.h"
#include "common/nn/unet.h"
#include "common/tensors/safetensors.h"
#include "tools/command.h"
#include "tools/run/run_folder.h"

namespace ddpo {
namespace {

struct ExportFlags {
  std::string source;
  std::string model;
  std::string out;
};

absl::Status WriteLora(const LoraWeights& lora, const std::string& file) {
  DDPO_RETURN_IF_ERROR(WriteFileAtomically(file, SerializeLora(lora)));
  std::cout << file << ": rank " << lora.rank << ", " << lora.tensors.size()
            << " tensors; in Python: pipe.load_lora_weights(\"" << file << "\")" << std::endl;
  return absl::OkStatus();
}

// A folder as UNet2DConditionModel.save_pretrained makes it: these weights with the config.json of
// the model's UNet.
absl::Status WriteUNet(const std::string& weights, const std::string& model,
                       const std::string& dir) {
  DDPO_ASSIGN_OR_RETURN(const std::string config, ReadFile(model + "/unet/config.json"));
  DDPO_ASSIGN_OR_RETURN(const SafetensorsContents contents, ReadSafetensors(weights));
  DDPO_RETURN_IF_ERROR(FileSystem::Real()->CreateDirectories(dir));
  DDPO_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(dir, "config.json"), config));
  DDPO_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(dir, "diffusion_pytorch_model.safetensors"),
                                           SerializeUNetWeights(contents.tensors)));
  std::cout << dir << ": a UNet of " << contents.tensors.size()
            << " tensors; in Python: StableDiffusionPipeline.from_pretrained(\"" << model
            << "\", unet=UNet2DConditionModel.from_pretrained(\"" << dir << "\"))" << std::endl;
  return absl::OkStatus();
}

// Reads the policy against the UNet that it belongs to, so that only one that fits is written.
absl::Status Export(const ExportFlags& flags) {
  std::string source = flags.source;
  std::string model = flags.model;
  const RunFolder run(flags.source);
  if (FileSystem::Real()->Exists(run.config_path())) {
    DDPO_ASSIGN_OR_RETURN(config::v1::Config config, LoadConfig(run.config_path()));
    source = run.FinalPolicy(config);
    if (model.empty()) {
      DDPO_ASSIGN_OR_RETURN(model, FindResource(config.model()));
    }
  }
  if (model.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(flags.source, " is no run's folder; --model says which model it belongs to"));
  }
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<UNet> unet, UNet::Load(model + "/unet", {}));
  DDPO_ASSIGN_OR_RETURN(const std::optional<LoraWeights> lora, ApplyPolicyFile(*unet, source));
  if (lora.has_value()) return WriteLora(*lora, flags.out);
  return WriteUNet(source, model, flags.out);
}

}  // namespace

void AddExportCommand(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<ExportFlags>();
  CLI::App* command = app.add_subcommand(
      "export",
      "Write a run's LoRA as StableDiffusionPipeline.load_lora_weights reads it or, after full "
      "fine-tuning, its UNet as UNet2DConditionModel.from_pretrained reads it");
  command->add_option("source", flags->source, "A run's folder, or a file of its lora/ or unet/")
      ->required();
  command->add_option("--model", flags->model, "The model it belongs to (default: the run's)");
  command
      ->add_option("--out", flags->out,
                   "For a LoRA the file to write, as in lora.safetensors; for a UNet the folder")
      ->required();
  command->callback([flags, &exit_code] { exit_code = ExitCode("export", Export(*flags)); });
}

}  // namespace ddpo
