"""Pictures of animals: glyphs of the Noto Color Emoji font over drawn backgrounds.

All pictures are float arrays in [0, 1] of shape (SIZE, SIZE, 3), RGB.
"""

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emoji_sd.prompts import ANIMALS

FONT_PATH = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
FONT_SIZE = 109  # the only size at which the font's bitmaps exist
SIZE = 32
SMALLEST_GLYPH, LARGEST_GLYPH = 23, 31

GLYPHS = {
    "cat": "🐱🐈", "dog": "🐶🐕", "horse": "🐴", "monkey": "🐵", "rabbit": "🐰🐇", "zebra": "🦓",
    "spider": "🕷", "bird": "🐦", "sheep": "🐑", "deer": "🦌", "cow": "🐮🐄", "goat": "🐐",
    "lion": "🦁", "tiger": "🐯", "bear": "🐻", "raccoon": "🦝", "fox": "🦊", "wolf": "🐺",
    "lizard": "🦎", "beetle": "🪲", "ant": "🐜", "butterfly": "🦋", "fish": "🐠", "shark": "🦈",
    "whale": "🐳", "dolphin": "🐬", "squirrel": "🐿", "mouse": "🐭", "rat": "🐀", "snake": "🐍",
    "turtle": "🐢", "frog": "🐸", "chicken": "🐔", "duck": "🦆", "goose": "🪿", "bee": "🐝",
    "pig": "🐷", "turkey": "🦃", "fly": "🪰", "llama": "🦙", "camel": "🐫", "bat": "🦇",
    "gorilla": "🦍", "hedgehog": "🦔", "kangaroo": "🦘",
}  # fmt: skip


class GlyphBook:
    """Glyphs (the animals' unless said otherwise), cut out and scaled to every size that a picture
    may need."""

    def __init__(
        self,
        font_path=FONT_PATH,
        sizes=range(SMALLEST_GLYPH, LARGEST_GLYPH + 1),
        glyphs="".join(GLYPHS.values()),
    ):
        self._sprites = {}
        font = ImageFont.truetype(font_path, FONT_SIZE)
        for glyph in glyphs:
            canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
            ImageDraw.Draw(canvas).text((10, 10), glyph, font=font, embedded_color=True)
            cut = canvas.crop(canvas.getbbox())
            for size in sizes:
                self._sprites[glyph, size] = _scale(cut, size)

    def sprite(self, glyph, size):
        """RGB premultiplied by alpha, and alpha: (height, width, 4), the longer side `size`."""
        return self._sprites[glyph, size]


def _scale(cut, size):
    ratio = size / max(cut.size)
    target = tuple(max(1, round(side * ratio)) for side in cut.size)
    rgba = np.asarray(cut, np.float32) / 255
    rgba[..., :3] *= rgba[..., 3:]
    planes = [
        np.asarray(Image.fromarray(rgba[..., c], mode="F").resize(target, Image.Resampling.BOX))
        for c in range(4)
    ]
    return np.stack(planes, -1)


def draw_animal(animal, book, rng):
    """One picture of one animal. `rng`: numpy.random.Generator."""
    glyph = GLYPHS[animal][rng.integers(len(GLYPHS[animal]))]
    sprite = book.sprite(glyph, int(rng.integers(SMALLEST_GLYPH, LARGEST_GLYPH + 1)))
    if rng.random() < 0.5:
        sprite = sprite[:, ::-1]
    height, width = sprite.shape[:2]
    picture = contrasting_background(glyph_color(sprite), rng)
    top = int(rng.integers(SIZE - height + 1))
    left = int(rng.integers(SIZE - width + 1))
    paste(picture, sprite, top, left)
    return picture.clip(0, 1)


def glyph_color(sprite):
    """The sprite's mean colour."""
    return sprite[..., :3].sum((0, 1)) / sprite[..., 3].sum()


def paste(picture, sprite, top, left):
    """Lays the sprite over the picture, in place. It has to fit."""
    window = picture[top : top + sprite.shape[0], left : left + sprite.shape[1]]
    window *= 1 - sprite[..., 3:]
    window += sprite[..., :3]


def draw_pool(count, seed, font_path=FONT_PATH):
    """`count` pictures, uint8 (count, SIZE, SIZE, 3), and the index of each one's animal."""
    rng = np.random.default_rng(seed)
    book = GlyphBook(font_path)
    pictures = np.empty((count, SIZE, SIZE, 3), np.uint8)
    labels = np.arange(count) % len(ANIMALS)
    for i, label in enumerate(labels):
        pictures[i] = np.round(draw_animal(ANIMALS[label], book, rng) * 255)
    return pictures, labels


def contrasting_background(color, rng, least_distance=0.35):
    """A background that the colour stands out from."""
    for _ in range(8):
        background = draw_background(rng)
        if np.linalg.norm(background.mean((0, 1)) - color) >= least_distance:
            break
    return background


def draw_background(rng):
    """A ground between quiet (one colour) and busy (checks, dots, coarse noise)."""
    kind = rng.choice(6, p=[0.25, 0.2, 0.15, 0.14, 0.13, 0.13])
    first, second = _color(rng), _color(rng)
    if kind == 0:
        mix = np.zeros((SIZE, SIZE))
    elif kind == 1:
        mix = _gradient(rng)
    else:
        pattern = (_clouds, _stripes, _checks, _grain)[kind - 2]
        mix = pattern(rng) * rng.uniform(0.25, 1.0)
    picture = first + (second - first) * mix[..., None]
    return picture.astype(np.float32)


def _color(rng):
    hue, saturation, value = rng.random(), rng.uniform(0, 0.85), rng.uniform(0.25, 1) ** 0.6
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def _across(rng):
    """A coordinate in [0, 1] that grows in a random direction over the picture."""
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-0.5, 0.5, SIZE)
    along = np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None]
    return (along - along.min()) / np.ptp(along)


def _gradient(rng):
    return _across(rng)


def _clouds(rng):
    """Soft blobs, a few over the picture."""
    return _smooth_noise(rng, int(rng.integers(3, 6)))


def _grain(rng):
    """Blobs of two to four pixels."""
    return _smooth_noise(rng, int(rng.integers(9, 15)))


def _smooth_noise(rng, cells):
    coarse = Image.fromarray(rng.random((cells, cells), dtype=np.float32), mode="F")
    return np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC)).clip(0, 1)


def _stripes(rng):
    bands = rng.uniform(2.5, 6)
    return 0.5 + 0.5 * np.clip(1.5 * np.sin(2 * np.pi * bands * _across(rng)), -1, 1)


def _checks(rng):
    side, shift = rng.integers(4, 9), rng.integers(0, 8, 2)
    rows = (np.arange(SIZE) + shift[0]) // side
    columns = (np.arange(SIZE) + shift[1]) // side
    return ((rows[:, None] + columns[None, :]) % 2).astype(float)
