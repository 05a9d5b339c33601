"""Makes CLIP models with random weights and aesthetic heads, in shapes that exercise the loader.

    python make_random_clips.py OUT_DIR

Writes OUT_DIR/{both_towers,vision_only,tall}, each with a preprocessor_config.json, an
aesthetic_head.safetensors and an aesthetic_head.pth.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from reference.aesthetic_head import AestheticHead  # noqa: E402
from reference.tiny_models import make_all, randomize  # noqa: E402

TEXT = dict(
    vocab_size=20,
    hidden_size=8,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    max_position_embeddings=8,
)
# One model a line of the table: a CLIPModel or, without a text tower, a CLIPVisionModelWithProjection.
SHAPES = {
    "both_towers": dict(
        text=TEXT,
        vision=dict(
            image_size=32,
            patch_size=8,
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
        ),
        projection_dim=24,
        processor=dict(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        head=(32, 16, 8, 4),
        dtype=torch.float16,
    ),
    # Patches that leave a rest, the exact GELU, another epsilon, the configuration of older versions.
    "vision_only": dict(
        text=None,
        vision=dict(
            image_size=44,
            patch_size=12,
            hidden_size=36,
            intermediate_size=50,
            num_hidden_layers=2,
            num_attention_heads=3,
            hidden_act="gelu",
            layer_norm_eps=1e-3,
        ),
        projection_dim=40,
        processor=dict(size=48, crop_size=44, image_mean=[0.5, 0.4, 0.6], image_std=[0.5, 0.25, 0.3]),
        head=(20, 12, 10, 6),
        dtype=torch.bfloat16,
    ),
    # Resized without regard to the shape, to less than the crop in one direction.
    "tall": dict(
        text=TEXT,
        vision=dict(
            image_size=30,
            patch_size=5,
            hidden_size=64,
            intermediate_size=80,
            num_hidden_layers=4,
            num_attention_heads=8,
        ),
        projection_dim=16,
        processor=dict(
            size={"height": 47, "width": 23}, crop_size={"height": 30, "width": 30}, rescale_factor=1 / 127.5
        ),
        head=(64, 8, 8, 2),
        dtype=torch.float32,
    ),
}


def processor_config(options: dict) -> dict:
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "resample": 3,
        "do_center_crop": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "do_convert_rgb": True,
    } | options


def make_clip(name: str, out: Path) -> Path:
    """Makes the model of this shape in out/name."""
    shape = SHAPES[name]
    generator = torch.Generator().manual_seed(list(SHAPES).index(name))
    vision = shape["vision"] | {"projection_dim": shape["projection_dim"]}
    if shape["text"] is None:
        model = CLIPVisionModelWithProjection(CLIPVisionConfig(**vision))
    else:
        model = CLIPModel(
            CLIPConfig(text_config=shape["text"], vision_config=vision, projection_dim=shape["projection_dim"])
        )
    randomize(model.requires_grad_(False), generator)
    folder = out / name
    model.to(shape["dtype"]).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor_config(shape["processor"]), indent=2) + "\n")
    head = AestheticHead(shape["projection_dim"], shape["head"])
    randomize(head.requires_grad_(False), generator)
    save_file(head.state_dict(), folder / "aesthetic_head.safetensors")
    torch.save(head.half().state_dict(), folder / "aesthetic_head.pth")
    return folder


if __name__ == "__main__":
    make_all(__doc__, SHAPES, make_clip)
