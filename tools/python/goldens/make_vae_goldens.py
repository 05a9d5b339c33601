"""Writes the golden files of the autoencoder, computed with diffusers.

    python tools/python/goldens/make_vae_goldens.py

For each case below, tests/goldens/vae gets
    CASE/vae/                   a tiny random AutoencoderKL, weights in fp16
    CASE/encode.safetensors     fixture of kind vae_encode, with log-variances beyond the clamp
    CASE/decode.safetensors     fixture of kind vae_decode
The case `old_names` keeps its attention's weights under the names of diffusers' first versions, which
diffusers still reads.
"""

import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools" / "python"))

from parity.fixture import write_fixture  # noqa: E402
from reference.tiny_models import randomize  # noqa: E402

CASES = {
    # Stable Diffusion 1.5's vae/config.json but for the widths.
    "sd15_narrow": dict(block_out_channels=(4, 4, 8, 8), layers_per_block=2, norm_num_groups=2, sample_size=32),
    "no_attention": dict(
        block_out_channels=(6, 12, 9),
        layers_per_block=1,
        norm_num_groups=3,
        latent_channels=3,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=0.7,
    ),
    "old_names": dict(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4),
}
# Odd sizes: halving them rounds down after a row and a column are added.
IMAGE_SIZES = {"sd15_narrow": (24, 16), "no_attention": (21, 13), "old_names": (10, 8)}
LATENT_SIZES = {"sd15_narrow": (3, 2), "no_attention": (4, 3), "old_names": (5, 4)}
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
WEIGHTS = "diffusion_pytorch_model.safetensors"


def make_vae(config: dict, generator: torch.Generator) -> AutoencoderKL:
    levels = len(config["block_out_channels"])
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels, **config
    )
    randomize(vae.eval().requires_grad_(False), generator)
    # Some log-variances leave [−30, 20].
    moments = vae.quant_conv if vae.quant_conv is not None else vae.encoder.conv_out
    moments.weight[config.get("latent_channels", 4) :] *= 48
    return vae


def rename_attention(path: Path) -> None:
    tensors = load_file(path)
    for new, old in OLD_NAMES.items():
        tensors = {key.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): t for key, t in tensors.items()}
    save_file(tensors, path, metadata={"format": "pt"})


def write_case(folder: Path, name: str, config: dict, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vae = make_vae(config, generator)
    vae.half().save_pretrained(folder / "vae")
    if name == "old_names":
        rename_attention(folder / "vae" / WEIGHTS)
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32, low_cpu_mem_usage=False)

    image = torch.rand((2, 3, *IMAGE_SIZES[name]), generator=generator) * 2 - 1
    posterior = vae.encode(image).latent_dist
    inside = posterior.logvar.lt(20) & posterior.logvar.gt(-30)
    print(f"{name}: {inside.float().mean():.0%} of the log-variances lie inside the clamp")
    moments = {"mean": posterior.mean, "logvar": posterior.logvar}
    write_fixture(folder / "encode.safetensors", "vae_encode", {}, {"image": image}, moments)
    latents = torch.randn((2, vae.config.latent_channels, *LATENT_SIZES[name]), generator=generator)
    outputs = {"image": vae.decode(latents).sample}
    write_fixture(folder / "decode.safetensors", "vae_decode", {}, {"latents": latents}, outputs)


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    for seed, (name, config) in enumerate(CASES.items()):
        write_case(ROOT / "tests" / "goldens" / "vae" / name, name, config, seed)


if __name__ == "__main__":
    main()
