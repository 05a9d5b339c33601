"""Expected values of kinds `clip_image` and `aesthetic`, computed with transformers in float32."""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from parity.fixture import Fixture
from parity.text_fixtures import clip_tokens
from reference.aesthetic_head import AestheticHead

# (height, width): a square, a portrait, a landscape, one smaller than any crop.
IMAGE_SIZES = [(96, 96), (75, 50), (41, 83), (9, 7)]


def random_images(batch: int, height: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """[B,H,W,3] uint8: blocks of colour with noise, so that a resize has edges and detail to treat."""
    blocks = torch.rand(batch, 3, 4, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(blocks, size=(height, width), mode="nearest")
    noise = torch.rand(batch, 3, height, width, generator=generator)
    return (255 * (0.7 * smooth + 0.3 * noise)).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def load_head(path: Path) -> AestheticHead:
    tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    return AestheticHead.from_state_dict({name: value.float() for name, value in tensors.items()})


@torch.no_grad()
def clip_fixtures(model_dir: Path) -> Iterator[Fixture]:
    """`clip_image` for several sizes, `aesthetic` for each head (aesthetic_head*) in the folder, and `tokenize` where
    it has a vocabulary."""
    processor = CLIPImageProcessor.from_pretrained(model_dir)
    model = CLIPVisionModelWithProjection.from_pretrained(
        model_dir, torch_dtype=torch.float32, attn_implementation="eager"
    ).eval()
    yield from clip_tokens(model_dir)
    heads = {path.name: load_head(path) for path in sorted(model_dir.glob("aesthetic_head*"))}
    generator = torch.Generator().manual_seed(11)
    for height, width in IMAGE_SIZES:
        images = random_images(3, height, width, generator)
        # Channels first: a picture of 3 or 1 rows would otherwise be taken for one.
        pixels = processor(list(images.numpy()), input_data_format="channels_last", return_tensors="pt").pixel_values
        embeds = model(pixel_values=pixels).image_embeds
        size = f"{width}x{height}"
        yield Fixture(f"clip_image_{size}", "clip_image", {}, {"images": images}, {"image_embeds": embeds})
        for name, head in heads.items():
            fixture = f"aesthetic_{name.rpartition('.')[2]}_{size}"
            yield Fixture(fixture, "aesthetic", {"head": name}, {"images": images}, {"score": head(embeds)})
