"""Writes the trained parts as a StableDiffusionPipeline folder in float16."""

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from emoji_sd import checkpoint
from emoji_sd.networks import make_scheduler, make_text_encoder, make_unet, make_vae
from emoji_sd.tokenizer import make_tokenizer


def build_pipeline(work_dir):
    """float32, with the averaged weights of the UNet and the text encoder."""
    work_dir = Path(work_dir)
    tokenizer = make_tokenizer(work_dir / "tokenizer")
    vae, unet, text_encoder = make_vae(), make_unet(), make_text_encoder(tokenizer)
    checkpoint.resume(work_dir / "vae.pt", vae=vae)
    average = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    checkpoint.resume(work_dir / "unet.pt", average=average)
    pool = torch.load(work_dir / "latents.pt", weights_only=True, mmap=True)
    vae.register_to_config(scaling_factor=round(pool["scaling_factor"], 5))
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save(pipeline, folder):
    """Saves beside `folder`, then moves file by file: a reader never sees half a file."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".emoji-sd-", dir=folder.parent))
    pipeline.to(torch.float16).save_pretrained(temporary, safe_serialization=True)
    for part in sorted(temporary.rglob("*")):
        if part.is_file():
            target = folder / part.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            part.chmod(0o644)
            part.replace(target)
    shutil.rmtree(temporary)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", required=True, help="folder of the checkpoints")
    parser.add_argument("--out", required=True, help="folder of the pipeline")
    args = parser.parse_args()
    save(build_pipeline(args.work_dir), args.out)


if __name__ == "__main__":
    main()
