"""Makes Stable Diffusion 1.x pipelines with random weights, in shapes that exercise the loader.

    python make_random_pipelines.py OUT_DIR [--full-size]

Writes OUT_DIR/{three_level,list_heads,sd15_reduced}, or with --full-size only OUT_DIR/sd15_full, whose
UNet has Stable Diffusion 1.5's own sizes (860 million parameters).
"""

import argparse
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from reference import clip_bpe  # noqa: E402

# One shape a line of the table: what diffusers' config.json says where it differs from SD 1.5's.
THREE_LEVEL = {
    "unet": dict(
        sample_size=8,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=8,
        cross_attention_dim=32,
        norm_num_groups=16,
    ),
    "vae": dict(block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, sample_size=16),
    "text": dict(hidden_size=32, intermediate_size=64, num_attention_heads=4, num_hidden_layers=2, hidden_act="gelu"),
    "scheduler": {},
}
LIST_HEADS = {
    "unet": dict(
        sample_size=8,
        block_out_channels=(32, 48),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=[2, 6],
        use_linear_projection=True,
        cross_attention_dim=48,
        norm_num_groups=16,
    ),
    "vae": dict(block_out_channels=(16, 24, 32), layers_per_block=2, norm_num_groups=8, sample_size=32),
    "text": dict(hidden_size=48, intermediate_size=96, num_attention_heads=6, num_hidden_layers=3, hidden_act="gelu"),
    "scheduler": dict(prediction_type="v_prediction", timestep_spacing="trailing"),
}
SD15_REDUCED = {
    "unet": dict(sample_size=16, block_out_channels=(32, 64, 128, 128), cross_attention_dim=64),
    "vae": dict(block_out_channels=(32, 32, 64, 64), sample_size=128),
    "text": dict(hidden_size=64, intermediate_size=128, num_attention_heads=4, num_hidden_layers=3),
    "scheduler": {},
}
# The full-size UNet; the other two networks only have to fit it.
SD15_FULL = {
    "unet": {},
    "vae": dict(block_out_channels=(32, 32, 64, 64)),
    "text": dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=2),
    "scheduler": {},
}
SD15_UNET = dict(
    sample_size=64,
    block_out_channels=(320, 640, 1280, 1280),
    layers_per_block=2,
    down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    attention_head_dim=8,
    cross_attention_dim=768,
)
SD15_VAE = dict(sample_size=512, layers_per_block=2, latent_channels=4, norm_num_groups=32)
SD15_SCHEDULER = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    clip_sample=False,
    set_alpha_to_one=False,
    steps_offset=1,
)
CORPUS = "a cat a dog a horse a monkey a rabbit a zebra a spider a bird two cats a bear playing chess riding a bike"


def make_pipeline(name: str, shape: dict, out: Path) -> None:
    torch.manual_seed(0)
    tokenizer = clip_bpe.write_tokenizer(
        out / name / "tokenizer", clip_bpe.learn_merges([CORPUS], limit=40), model_max_length=16
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **shape["text"],
        )
    )
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(shape["vae"]["block_out_channels"]),
            up_block_types=("UpDecoderBlock2D",) * len(shape["vae"]["block_out_channels"]),
            **{**SD15_VAE, **shape["vae"]},
        ),
        text_encoder=text,
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(**{**SD15_UNET, **shape["unet"]}),
        scheduler=DDIMScheduler(**{**SD15_SCHEDULER, **shape["scheduler"]}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out / name)
    print(f"made {out / name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--full-size", action="store_true")
    parser.add_argument("--only", help="make only the pipeline of this name")
    args = parser.parse_args()
    shapes = {"three_level": THREE_LEVEL, "list_heads": LIST_HEADS, "sd15_reduced": SD15_REDUCED}
    if args.full_size:
        shapes = {"sd15_full": SD15_FULL}
    for name, shape in shapes.items():
        if args.only in (None, name):
            make_pipeline(name, shape, args.out)


if __name__ == "__main__":
    main()
