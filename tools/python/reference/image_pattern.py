"""Pictures by a formula that the C++ tests repeat (tests/testing/image_pattern.h), so that none is committed."""

import numpy as np


def mix(value: np.ndarray) -> np.ndarray:
    """Chris Wellons' 32-bit integer hash `lowbias32`."""
    value = value ^ (value >> 16)
    value = value * np.uint32(0x7FEB352D)
    value = value ^ (value >> 15)
    value = value * np.uint32(0x846CA68B)
    return value ^ (value >> 16)


def image_pattern(index: int, width: int, height: int) -> np.ndarray:
    """[height, width, 3] uint8: noise, a ramp, blocks, one colour, or a ramp with weak noise, by turns."""
    y, x, c = np.meshgrid(
        np.arange(height, dtype=np.uint32),
        np.arange(width, dtype=np.uint32),
        np.arange(3, dtype=np.uint32),
        indexing="ij",
    )
    i = np.uint32(index)

    def hashed(x, y):
        return mix(x * np.uint32(73856093) ^ y * np.uint32(19349663) ^ c * np.uint32(83492791) ^ (i << np.uint32(20)))

    ramp = x * (i % 7 + 1) + y * (i % 11 + 2) + c * np.uint32(40)
    kinds = [
        hashed(x, y),
        ramp,
        hashed(x // 8, y // 8),
        hashed(x * 0, y * 0),
        ramp + hashed(x, y) % 16,
    ]
    return kinds[index % 5].astype(np.uint8)


def fnv1a(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value
