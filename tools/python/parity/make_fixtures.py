"""Writes the fixtures of `ddpo parity` for a model folder (PARITY's diffusion kinds), in float32 on the CPU.

    python make_fixtures.py --model DIR --out DIR [--kind KIND …]

DIR is in diffusers' layout. Without --kind every kind is written.
"""

import argparse
import sys
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from parity import diffusion_fixtures as diffusion  # noqa: E402
from parity.fixture import write_fixture  # noqa: E402


# What makes fixtures, and of which kinds, so that only what is asked for is computed.
MAKERS = [
    ({"tokenize", "text_encoder"}, diffusion.text_fixtures),
    ({"unet"}, diffusion.unet_fixture),
    ({"unet"}, diffusion.lora_unet_fixture),
    ({"vae_decode", "vae_encode"}, diffusion.vae_fixtures),
    ({"ddim_step"}, diffusion.ddim_fixtures),
    ({"denoise"}, diffusion.denoise_fixtures),
    ({"policy_gradient_step"}, diffusion.policy_gradient_fixtures),
    ({"jpeg_size"}, diffusion.jpeg_fixture),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kind", action="append", help="write only fixtures of this kind; may be repeated")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pipe = StableDiffusionPipeline.from_pretrained(args.model, torch_dtype=torch.float32, safety_checker=None)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    for network in (pipe.unet, pipe.vae, pipe.text_encoder):
        network.requires_grad_(False).eval()
    for kinds, make in MAKERS:
        if args.kind and not kinds & set(args.kind):
            continue
        for fixture in make(pipe):
            if args.kind and fixture.kind not in args.kind:
                continue
            path = args.out / f"{fixture.name}.safetensors"
            write_fixture(path, fixture.kind, fixture.params, fixture.inputs, fixture.outputs)
            print(f"made {path}")


if __name__ == "__main__":
    main()
