"""Prints the cases of tests/common/tensors/resize_test.cc: FNV-1a hashes of images that Pillow resized.

The input pixels follow from a formula that the test repeats, so that no image is committed.
"""

import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from reference.image_pattern import fnv1a, image_pattern  # noqa: E402

SIZES = [
    (32, 32, 224, 224),
    (512, 512, 224, 224),
    (640, 480, 299, 224),
    (7, 5, 3, 9),
    (100, 1, 224, 224),
    (224, 224, 224, 100),
    (50, 40, 50, 40),
    # Around the border beyond which Pillow 13 shrinks the height first.
    (480, 1120, 224, 522),
    (50, 60, 45, 50),
    (50, 61, 45, 50),
]

for index, (width, height, new_width, new_height) in enumerate(SIZES):
    image = Image.fromarray(image_pattern(index, width, height))
    resized = image.resize((new_width, new_height), Image.BICUBIC)
    print(f"Case{{{index}, {width}, {height}, {new_width}, {new_height}, {fnv1a(resized.tobytes()):#018x}}},")
