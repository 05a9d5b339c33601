"""Prints the cases of tests/common/tensors/resize_test.cc: FNV-1a hashes of images that Pillow resized.

The input pixels follow from a formula that the test repeats, so that no image is committed.
"""

import numpy as np
from PIL import Image

SIZES = [
    (32, 32, 224, 224),
    (512, 512, 224, 224),
    (640, 480, 299, 224),
    (7, 5, 3, 9),
    (100, 1, 224, 224),
    (224, 224, 224, 100),
    (50, 40, 50, 40),
]


def pattern(width: int, height: int) -> np.ndarray:
    """[height, width, 3] uint8 with edges, ramps and noise-like values."""
    y, x, c = np.meshgrid(
        np.arange(height, dtype=np.uint32),
        np.arange(width, dtype=np.uint32),
        np.arange(3, dtype=np.uint32),
        indexing="ij",
    )
    mixed = (x * 73856093) ^ (y * 19349663) ^ (c * 83492791)
    return ((mixed >> 7) ^ (x * 5 + y * 3)).astype(np.uint8)


def fnv1a(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


for width, height, new_width, new_height in SIZES:
    image = Image.fromarray(pattern(width, height))
    resized = image.resize((new_width, new_height), Image.BICUBIC)
    print(f"{{{width}, {height}, {new_width}, {new_height}, {fnv1a(resized.tobytes()):#018x}}},")
