"""Writes the UNet golden files: tiny random diffusers UNets and what diffusers and peft compute.

    python tools/python/goldens/make_unet_goldens.py [OUTPUT_DIR]

Needs torch, diffusers and peft. For each case below, OUTPUT_DIR (tests/goldens/unet) gets
    CASE/unet/                       the network as save_pretrained writes it, weights in fp16
    CASE/base.safetensors            fixture of kind `unet` (see docs on parity) without LoRA
    CASE/lora.safetensors            the same inputs with LoRA
    CASE/lora_gradients.safetensors  out.<peft key>: d(sum of squares of the output)/d(LoRA tensor)
Weights are rounded to fp16 before anything is computed, so that small files lose nothing.
"""

import pathlib
import sys

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools" / "python"))

from parity.fixture import write_fixture  # noqa: E402
from reference.tiny_models import randomize  # noqa: E402

LORA_RANK = 2
LORA_ALPHA = 3

CASES = {
    # The shape of the embedded demo model.
    "two_levels": dict(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=2,
        norm_num_groups=4,
    ),
    # A plain block at the bottom and a list of layer counts; the input's height is odd at the
    # lowest level, so the upsamplers are told their output size.
    "three_levels": dict(
        sample_size=8,
        block_out_channels=(8, 8, 16),
        layers_per_block=(1, 2, 1),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=4,
        norm_num_groups=4,
        mid_block_scale_factor=1.5,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-4,
    ),
    # Head counts by level, linear projections, several transformer blocks a layer, and the
    # asymmetric padding that downsample_padding 0 stands for.
    "linear_projection": dict(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        downsample_padding=0,
        norm_num_groups=4,
    ),
    # Stable Diffusion 1.5's unet/config.json but for the widths.
    "sd15_narrow": dict(
        sample_size=16,
        act_fn="silu",
        attention_head_dim=8,
        block_out_channels=(8, 8, 8, 16),
        center_input_sample=False,
        cross_attention_dim=12,
        down_block_types=(
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
            "DownBlock2D",
        ),
        downsample_padding=1,
        flip_sin_to_cos=True,
        freq_shift=0,
        in_channels=4,
        layers_per_block=2,
        mid_block_scale_factor=1,
        norm_eps=1e-05,
        norm_num_groups=4,
        out_channels=4,
        up_block_types=(
            "UpBlock2D",
            "CrossAttnUpBlock2D",
            "CrossAttnUpBlock2D",
            "CrossAttnUpBlock2D",
        ),
    ),
}
INPUT_SIZES = {"three_levels": (10, 8)}


def write_case(directory, config, size, seed):
    generator = torch.Generator().manual_seed(seed)
    unet = UNet2DConditionModel(**config).eval()
    randomize(unet, generator)
    unet.requires_grad_(False)
    unet.half().save_pretrained(directory / "unet")
    unet.float()

    inputs = {
        "sample": torch.randn((3, 4, *size), generator=generator),
        "timestep": torch.tensor([981, 481, 1]),
        "encoder_hidden_states": torch.randn((3, 7, config["cross_attention_dim"]), generator=generator),
    }
    write_fixture(directory / "base.safetensors", "unet", {}, inputs, {"sample": unet(**inputs).sample})

    unet.add_adapter(
        LoraConfig(
            r=LORA_RANK,
            lora_alpha=LORA_ALPHA,
            target_modules=["to_q", "to_k", "to_v", "to_out.0"],
        )
    )
    adapters = {n: p for n, p in sorted(unet.named_parameters()) if "lora_" in n}
    for parameter in adapters.values():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    output = unet(**inputs).sample
    output.square().sum().backward()
    keys = {n: "unet." + n.replace(".default", "") for n in adapters}
    saved = {"unet." + k for k in get_peft_model_state_dict(unet)}
    assert saved == set(keys.values())

    lora = {"lora." + keys[n]: p for n, p in adapters.items()}
    params = {"lora_alpha": LORA_ALPHA}
    write_fixture(directory / "lora.safetensors", "unet", params, inputs | lora, {"sample": output})
    gradients = {keys[n]: p.grad for n, p in adapters.items()}
    write_fixture(directory / "lora_gradients.safetensors", "unet", params, {}, gradients)


def main():
    output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests/goldens/unet"
    torch.set_num_threads(1)
    for seed, (name, config) in enumerate(CASES.items()):
        size = INPUT_SIZES.get(name, (config["sample_size"],) * 2)
        write_case(output / name, config, size, seed)


if __name__ == "__main__":
    main()
