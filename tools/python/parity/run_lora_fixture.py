"""Writes what diffusers draws with the LoRA of a run, as a `denoise` fixture for `ddpo parity`.

    python run_lora_fixture.py --run RUN --out DIR

The LoRA comes in by `StableDiffusionPipeline.load_lora_weights`, as a user of the result would load it. Two fixtures are
written: steps by the formulas of the reference, and images by the pipeline's own call from the same latents at η = 0.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
import yaml
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from parity import diffusion_fixtures as diffusion  # noqa: E402
from parity.fixture import Fixture  # noqa: E402
from parity.make_fixtures import load_pipeline  # noqa: E402
from reference import ddpo_reference as reference  # noqa: E402

LORA = "final.safetensors"


def read_lora(path: Path) -> tuple[dict[str, torch.Tensor], float]:
    """The tensors, and alpha as the file's metadata has it."""
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        return tensors, json.loads(file.metadata()["lora_adapter_metadata"])["unet.lora_alpha"]


def make_fixtures(run: Path) -> list[Fixture]:
    config = yaml.safe_load((run / "config.yaml").read_text())
    sampling = config["sampling"]
    pipe = load_pipeline(Path(config["model"]))
    tensors, alpha = read_lora(run / "lora" / LORA)
    pipe.load_lora_weights(str(run / "lora"), weight_name=LORA)
    params, inputs = diffusion.rollout_inputs(pipe, steps=sampling["num_steps"], seed=14)
    params |= {"guidance_scale": sampling["guidance_scale"], "lora_alpha": alpha}
    inputs |= diffusion.named_lora(tensors)
    rollout = {name: inputs[name] for name in ("latents", "noise")}
    stepped = reference.denoise(pipe, params, **rollout)
    images = pipe(
        params["prompts"],
        num_inference_steps=params["num_inference_steps"],
        guidance_scale=params["guidance_scale"],
        eta=0.0,
        latents=inputs["latents"],
        output_type="np",
    ).images
    drawn = {"images": torch.from_numpy(images * 255).round().to(torch.uint8)}
    return [
        Fixture("run_lora_steps", "denoise", params, inputs, stepped),
        Fixture("run_lora_images", "denoise", params | {"eta": 0.0}, inputs, drawn),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        for fixture in make_fixtures(args.run):
            print(f"made {fixture.write(args.out)}")


if __name__ == "__main__":
    main()
