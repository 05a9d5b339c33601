#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/diffusion/pipeline.h"
#include "common/nn/lora.h"
#include "common/nn/unet.h"
#include "tools/command.h"
#include "tools/run/run_folder.h"

namespace ddpo {
namespace {

struct ExportFlags {
  std::string source;
  std::string model;
  std::string out;
};

// Reads the LoRA against the UNet that it belongs to, so that only one that fits is written.
absl::Status Export(const ExportFlags& flags) {
  std::string source = flags.source;
  std::string model = flags.model;
  const RunFolder run(flags.source);
  if (FileSystem::Real()->Exists(run.config_path())) {
    source = run.final_lora();
    DDPO_ASSIGN_OR_RETURN(config::v1::Config config, LoadConfig(run.config_path()));
    if (model.empty()) {
      DDPO_ASSIGN_OR_RETURN(model, FindResource(config.model()));
    }
  }
  if (model.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(flags.source, " is no run's folder; --model says which model it belongs to"));
  }
  DDPO_ASSIGN_OR_RETURN(std::unique_ptr<UNet> unet, UNet::Load(model + "/unet", {}));
  DDPO_ASSIGN_OR_RETURN(LoraWeights lora, ReadLora(*unet, source));
  DDPO_RETURN_IF_ERROR(WriteFileAtomically(flags.out, SerializeLora(lora)));
  std::cout << flags.out << ": rank " << lora.rank << ", " << lora.tensors.size()
            << " tensors; in Python: pipe.load_lora_weights(\"" << flags.out << "\")" << std::endl;
  return absl::OkStatus();
}

}  // namespace

void AddExportCommand(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<ExportFlags>();
  CLI::App* command = app.add_subcommand(
      "export", "Write a run's LoRA as StableDiffusionPipeline.load_lora_weights reads it");
  command->add_option("source", flags->source, "A run's folder, or a LoRA file")->required();
  command->add_option("--model", flags->model, "The model it belongs to (default: the run's)");
  command->add_option("--out", flags->out, "File to write, as in lora.safetensors")->required();
  command->callback([flags, &exit_code] { exit_code = ExitCode("export", Export(*flags)); });
}

}  // namespace ddpo
