"""Writes the fixtures of `ddpo parity` for a model folder, in float32 on the CPU.

    python make_fixtures.py --model DIR --out DIR [--kind KIND …]

The model's DIR is in diffusers' layout or, for CLIP, LLaVA and the encoders of BERTScore, in transformers'. Without --kind every kind is written.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from parity import diffusion_fixtures as diffusion  # noqa: E402
from parity.clip_fixtures import clip_fixtures  # noqa: E402
from parity.fixture import Fixture  # noqa: E402
from parity.llava_fixtures import llava_fixtures  # noqa: E402
from parity.text_fixtures import bert_fixtures  # noqa: E402


# What makes fixtures, and of which kinds, so that only what is asked for is computed.
MAKERS = [
    ({"tokenize", "text_encoder"}, diffusion.text_fixtures),
    ({"unet"}, diffusion.unet_fixture),
    ({"unet"}, diffusion.lora_unet_fixture),
    ({"vae_decode", "vae_encode"}, diffusion.vae_fixtures),
    ({"ddim_step"}, diffusion.ddim_fixtures),
    ({"denoise"}, diffusion.denoise_fixtures),
    ({"policy_gradient_step"}, diffusion.policy_gradient_fixtures),
    ({"rwr_step"}, diffusion.rwr_fixtures),
    ({"jpeg_size"}, diffusion.jpeg_fixture),
]


# What makes the fixtures of a folder in transformers' layout, by its config.json's model_type.
TRANSFORMERS_MAKERS = {
    "bert": bert_fixtures,
    "clip": clip_fixtures,
    "clip_vision_model": clip_fixtures,
    "deberta": bert_fixtures,
    "llava": llava_fixtures,
    "roberta": bert_fixtures,
}


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, safety_checker=None)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    for network in (pipe.unet, pipe.vae, pipe.text_encoder):
        network.requires_grad_(False).eval()
    return pipe


def make_fixtures(folder: Path, wanted: set[str]) -> Iterator[Fixture]:
    """All kinds, or at least those wanted."""
    if not (folder / "model_index.json").exists():
        model_type = json.loads((folder / "config.json").read_text())["model_type"]
        yield from TRANSFORMERS_MAKERS[model_type](folder)
        return
    pipe = load_pipeline(folder)
    for kinds, make in MAKERS:
        if not wanted or kinds & wanted:
            yield from make(pipe)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kind", action="append", help="write only fixtures of this kind; may be repeated")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    wanted = set(args.kind or [])
    for fixture in make_fixtures(args.model, wanted):
        if not wanted or fixture.kind in wanted:
            print(f"made {fixture.write(args.out)}")


if __name__ == "__main__":
    main()
