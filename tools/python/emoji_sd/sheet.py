"""Draws a labelled sheet of all the animals, or of every activity and count, and measures the
pictures' size as JPEG."""

import argparse
import io

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont

from emoji_sd.prompts import (
    ACTIVITIES,
    ANIMALS,
    COUNT_WORDS,
    activity_prompt,
    animal_prompt,
    counting_prompt,
)

ZOOM, LINE_HEIGHT, MARGIN = 3, 15, 6


def sample(pipeline, prompts, seed, steps, guidance, eta):
    """uint8 (n, height, width, 3)."""
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    images = pipeline(
        list(prompts),
        num_inference_steps=steps,
        guidance_scale=guidance,
        eta=eta,
        generator=generators,
        output_type="np",
    ).images
    return np.round(images * 255).clip(0, 255).astype(np.uint8)


def draw_sheet(pictures, names, columns):
    """A PIL image: each picture enlarged with its name below."""
    rows = -(-len(names) // columns)
    side = pictures.shape[1] * ZOOM
    label_height = LINE_HEIGHT * max(len(name.splitlines()) for name in names) + 1
    font = ImageFont.load_default(12)
    widest = max(font.getlength(line) for name in names for line in name.splitlines())
    cell_width, cell_height = max(side, int(widest)) + MARGIN, side + label_height + MARGIN
    sheet = Image.new("RGB", (columns * cell_width + MARGIN, rows * cell_height + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        left = MARGIN + i % columns * cell_width + (cell_width - MARGIN - side) // 2
        top = MARGIN + i // columns * cell_height
        enlarged = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (left, top))
        draw.multiline_text(
            (left + side / 2, top + side + 1), name, "black", font, "ma", 2, "center"
        )
    return sheet


def scenes_to_show():
    """Prompts and names: rows of seven for each activity, then three of the numbers from 2 to 8."""
    doing = [
        (ANIMALS[(6 * column + 2 * row) % len(ANIMALS)], activity)
        for row, activity in enumerate(ACTIVITIES)
        for column in range(7)
    ]
    counted = [
        (ANIMALS[(6 * column + 2 * row + 1) % len(ANIMALS)], count)
        for row in range(3)
        for column, count in enumerate(COUNT_WORDS)
    ]
    prompts = [activity_prompt(*scene) for scene in doing]
    names = [f"{animal_prompt(animal)}\n{activity}" for animal, activity in doing]
    counts = [counting_prompt(*scene) for scene in counted]
    return prompts + counts, names + counts


def jpeg_bytes(picture, quality=95):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return buffer.tell()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of the pipeline")
    parser.add_argument("--out", required=True, help="PNG file")
    parser.add_argument("--scenes", action="store_true", help="of activities and counts")
    parser.add_argument("--per-animal", type=int, default=1, help="pictures of each animal")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--eta", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipeline = StableDiffusionPipeline.from_pretrained(args.model, torch_dtype=torch.float32)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    if args.scenes:
        prompts, names = scenes_to_show()
    else:
        names = [animal for animal in ANIMALS for _ in range(args.per_animal)]
        prompts = [animal_prompt(name) for name in names]
    pictures = sample(pipeline, prompts, args.seed, args.steps, args.guidance, args.eta)
    draw_sheet(pictures, names, 7 if args.scenes else 9).save(args.out, optimize=True)
    sizes = np.array([jpeg_bytes(picture) for picture in pictures])
    print(f"JPEG bytes: mean {sizes.mean():.0f}, standard deviation {sizes.std():.0f}, "
          f"from {sizes.min()} to {sizes.max()}")  # fmt: skip


if __name__ == "__main__":
    main()
