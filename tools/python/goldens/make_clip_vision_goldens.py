"""Writes the golden files of CLIP's image tower and image processor and of torch.save's archives.

    python tools/python/goldens/make_clip_vision_goldens.py

Under tests/goldens/clip_vision:
    SHAPE/                    a tiny random CLIP model with its aesthetic heads (make_random_clips.py)
    SHAPE.safetensors         in.pixel_values; out.hidden_states.N, out.pooler_output of transformers
    SHAPE_KIND.safetensors    fixtures of `ddpo parity`
    processor_NAME/           a preprocessor_config.json
    processor_NAME.safetensors   in.images.N [H,W,3]; out.pixel_values.N [3,H,W] of transformers
Under tests/goldens/torch_zip:
    state_dict.pth, state_dict.safetensors   the same tensors as torch.save and as safetensors write them
"""

import json
import sys
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoImageProcessor, CLIPVisionModel

ROOT = Path(__file__).resolve().parents[3]
GOLDENS = ROOT / "tests" / "goldens"
sys.path.insert(0, str(ROOT / "tools" / "python"))

from parity.clip_fixtures import clip_fixtures, random_images  # noqa: E402
from parity.fixture import write_fixture  # noqa: E402
from parity.make_random_clips import make_clip, processor_config  # noqa: E402

FIXTURES = {"clip_image_83x41", "aesthetic_pth_50x75", "aesthetic_safetensors_7x9"}
PROCESSORS = {
    "clip": dict(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}),
    # Smaller than the crop in one direction, in the other or in both.
    "padding": dict(size={"shortest_edge": 17}, crop_size={"height": 28, "width": 22}),
    "as_they_are": dict(do_resize=False, crop_size={"height": 25, "width": 20}),
    "both_edges": dict(size={"height": 18, "width": 31}, do_center_crop=False),
    "not_normalized": dict(size=13, crop_size=12, do_normalize=False),
    "not_rescaled": dict(size=13, crop_size=12, do_rescale=False),
    "bytes": dict(size=13, crop_size=12, do_rescale=False, do_normalize=False),
    "one_mean": dict(size=13, crop_size=13, image_mean=0.5, image_std=0.25, rescale_factor=0.0078125),
    "squared": dict(size=13, crop_size=13, image_processor_type="LlavaImageProcessor", do_pad=True),
    "squared_only": dict(size=11, do_center_crop=False, image_processor_type="LlavaImageProcessor", do_pad=True),
}
# (height, width): square, portrait, landscape, tiny, a line.
IMAGE_SIZES = [(24, 24), (50, 33), (29, 46), (5, 8), (1, 9)]


@torch.no_grad()
def write_tower(name: str) -> None:
    out = GOLDENS / "clip_vision"
    folder = make_clip(name, out)
    model = CLIPVisionModel.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="eager").eval()
    size = model.config.image_size
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(21)).half().float()
    result = model(pixel_values=pixels, output_hidden_states=True)
    outputs = {f"hidden_states.{i}": value for i, value in enumerate(result.hidden_states)}
    outputs["pooler_output"] = result.pooler_output
    write_fixture(out / f"{name}.safetensors", "clip_vision", {}, {"pixel_values": pixels}, outputs)
    for fixture in clip_fixtures(folder):
        if fixture.name in FIXTURES:
            fixture.name = f"{name}_{fixture.name}"
            fixture.write(out)


def write_processor(name: str, options: dict) -> None:
    folder = GOLDENS / "clip_vision" / f"processor_{name}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor_config(options), indent=2) + "\n")
    processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)
    generator = torch.Generator().manual_seed(22)
    inputs, outputs = {}, {}
    for i, (height, width) in enumerate(IMAGE_SIZES):
        image = random_images(1, height, width, generator)[0]
        result = processor(image.numpy(), input_data_format="channels_last", return_tensors="pt")
        inputs[f"images.{i}"] = image
        outputs[f"pixel_values.{i}"] = result.pixel_values[0].float()
    write_fixture(folder.with_suffix(".safetensors"), "clip_image_processor", {}, inputs, outputs)


def write_state_dict() -> None:
    """Number types, a transposed view, two views of one storage, a parameter, a number, nothing, and the
    attributes that Module.state_dict() leaves on its dictionary."""
    folder = GOLDENS / "torch_zip"
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(23)
    base = torch.randn(4, 6, generator=generator)
    tensors = OrderedDict(
        float32=torch.randn(3, 2, generator=generator),
        float16=torch.randn(5, generator=generator).half(),
        bfloat16=torch.randn(2, 1, 3, generator=generator).bfloat16(),
        float64=torch.randn(2, generator=generator).double(),
        int64=torch.tensor([-1, 2**40]),
        uint8=torch.tensor([[0, 255]], dtype=torch.uint8),
        bool=torch.tensor([True, False]),
        transposed=base.t(),
        rows=base[1:3],
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(torch.randn(2, generator=generator)),
    )
    tensors._metadata = OrderedDict({"": {"version": 1}, "layers": {"version": 2**33}})
    torch.save(tensors, folder / "state_dict.pth")
    save_file({name: value.detach().contiguous().clone() for name, value in tensors.items()}, folder / "state_dict.safetensors")


def main() -> None:
    torch.set_num_threads(1)
    for name in ("both_towers", "vision_only"):
        write_tower(name)
    for name, options in PROCESSORS.items():
        write_processor(name, options)
    write_state_dict()


if __name__ == "__main__":
    main()
