"""Writes the golden files of image encoding and decoding, made with Pillow.

    python tools/python/goldens/make_image_goldens.py

Under tests/goldens/images:
    jpeg_sizes.json    [[index, width, height, bytes]]: what Pillow writes at quality 95 for image_pattern(…)
    NAME.png, NAME.jpg small files of many kinds
    NAME.ppm           the RGB pixels that a decoder shall find in them
"""

import io
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools" / "python"))

from reference.image_pattern import image_pattern  # noqa: E402

OUT = ROOT / "tests" / "goldens" / "images"
SIZES = [(1, 1), (1, 7), (9, 1), (8, 8), (16, 16), (17, 15), (33, 16), (31, 47), (64, 64), (32, 32)]
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Adam7: first column, first row, and the distances, of each pass.
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def jpeg_sizes() -> list[list[int]]:
    rows = []
    for index in range(200):
        width, height = SIZES[index // 5 % len(SIZES)]
        buffer = io.BytesIO()
        Image.fromarray(image_pattern(index, width, height)).save(buffer, "JPEG", quality=95)
        rows.append([index, width, height, buffer.tell()])
    return rows


def save(name: str, image: Image.Image, **options) -> None:
    """The file, and what Pillow finds in it."""
    image.save(OUT / name, **options)
    expect(name, Image.open(OUT / name).convert("RGB"))


def expect(name: str, image: Image.Image) -> None:
    image.save((OUT / name).with_suffix(".ppm"))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def rgb_png(pixels: np.ndarray, interlaced: bool) -> bytes:
    """A PNG as Pillow cannot write it: 8 or 16 bits of RGB, in Adam7's passes or none."""
    height, width, _ = pixels.shape
    big_endian = pixels.astype(pixels.dtype.newbyteorder(">"))
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    rows = [row for x, y, dx, dy in passes for row in big_endian[y::dy, x::dx] if row.size > 0]
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, 2, 0, 0, int(interlaced))
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def write_pngs(picture: Image.Image) -> None:
    alpha = Image.fromarray(image_pattern(5, *picture.size)[:, :, 0])
    grey = picture.convert("L")
    save("rgb.png", picture)
    save("grey.png", grey)
    save("black_and_white.png", picture.convert("1"))
    save("palette.png", picture.quantize(11))
    save("palette_transparent.png", picture.quantize(200), transparency=3)
    save("grey_transparent.png", grey, transparency=40)
    save("grey_alpha.png", Image.merge("LA", (grey, alpha)))
    save("rgba.png", Image.merge("RGBA", (*picture.split(), alpha)))
    save("with_metadata.png", picture, dpi=(72, 72), exif=orientation(6))

    # 16 bits become the nearest 8 (Pillow would cut grey off at 255).
    wide = np.asarray(picture).astype(np.uint16) * 257 ^ image_pattern(10, *picture.size)
    near = np.rint(wide / 257).astype(np.uint8)
    (OUT / "rgb_16.png").write_bytes(rgb_png(wide, interlaced=False))
    expect("rgb_16.png", Image.fromarray(near))
    Image.fromarray(np.ascontiguousarray(wide[:, :, 1])).save(OUT / "grey_16.png")
    expect("grey_16.png", Image.fromarray(near[:, :, 1]).convert("RGB"))
    (OUT / "interlaced.png").write_bytes(rgb_png(np.asarray(picture), interlaced=True))
    expect("interlaced.png", picture)


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def write_jpegs(picture: Image.Image) -> None:
    save("quality_95.jpg", picture, quality=95)
    save("quality_10.jpg", picture, quality=10)
    save("subsampling_444.jpg", picture, subsampling="4:4:4")
    save("subsampling_422.jpg", picture, subsampling="4:2:2")
    save("progressive.jpg", picture, progressive=True)
    save("restart_markers.jpg", picture, restart_marker_blocks=1)
    save("one_channel.jpg", picture.convert("L"))
    save("turned_by_exif.jpg", picture, exif=orientation(6))
    save("one_pixel.jpg", picture.crop((3, 3, 4, 4)))
    picture.convert("CMYK").save(OUT / "cmyk.jpg")


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    rows = ",\n".join(json.dumps(row) for row in jpeg_sizes())
    (OUT / "jpeg_sizes.json").write_text(f"[\n{rows}\n]\n")
    picture = Image.fromarray(image_pattern(4, 19, 13))
    write_pngs(picture)
    write_jpegs(picture)


if __name__ == "__main__":
    main()
