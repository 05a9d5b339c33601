"""Scenes: one animal, an animal that does something, and one to eight of an animal.

Pictures are float arrays in [0, 1] of shape (SIZE, SIZE, 3), RGB, as in `emoji_sd.data`.
"""

from dataclasses import dataclass

import numpy as np

from emoji_sd.data import (
    GLYPHS,
    SIZE,
    GlyphBook,
    contrasting_background,
    draw_animal,
    glyph_color,
    paste,
)
from emoji_sd.prompts import (
    ACTIVITIES,
    ANIMALS,
    activity_prompt,
    animal_prompt,
    counting_prompt,
)

ACTIVITY_GLYPHS = {"washing the dishes": "🍽", "riding a bike": "🚲", "playing chess": "♟"}
# By count: cells across and down, and the sizes that the glyphs may have in pixels.
GRIDS = {
    2: ((2, 1), (13, 16)), 3: ((2, 2), (12, 15)), 4: ((2, 2), (12, 15)), 5: ((3, 2), (9, 11)),
    6: ((3, 2), (9, 11)), 7: ((3, 3), (9, 10)), 8: ((3, 3), (9, 10)),
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    animal: str
    activity: str | None = None
    count: int = 1

    @property
    def prompt(self):
        if self.activity:
            return activity_prompt(self.animal, self.activity)
        if self.count > 1:
            return counting_prompt(self.animal, self.count)
        return animal_prompt(self.animal)


class SceneBook:
    """Every glyph at every size that a scene may need."""

    def __init__(self):
        self.animals = GlyphBook(sizes=range(9, SIZE))
        self.activities = GlyphBook(sizes=range(11, 23), glyphs="".join(ACTIVITY_GLYPHS.values()))


def draw_scene(scene, book, rng):
    """`rng`: numpy.random.Generator."""
    if scene.activity:
        picture = _draw_activity(scene, book, rng)
    elif scene.count > 1:
        picture = _draw_count(scene, book, rng)
    else:
        picture = draw_animal(scene.animal, book.animals, rng)
    return picture.clip(0, 1)


def random_scene(rng, kinds=(0.4, 0.3, 0.3)):
    """One animal, an activity or a count, with these probabilities."""
    animal = ANIMALS[rng.integers(len(ANIMALS))]
    kind = rng.choice(3, p=kinds)
    if kind == 1:
        return Scene(animal, activity=ACTIVITIES[rng.integers(len(ACTIVITIES))])
    if kind == 2:
        return Scene(animal, count=int(rng.integers(2, 9)))
    return Scene(animal)


def draw_scenes(count, seed, kinds=(0.4, 0.3, 0.3)):
    """uint8 pictures (count, SIZE, SIZE, 3) and their scenes, as `random_scene` picks them."""
    rng = np.random.default_rng(seed)
    book = SceneBook()
    scenes = [random_scene(rng, kinds) for _ in range(count)]
    pictures = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for i, scene in enumerate(scenes):
        pictures[i] = np.round(draw_scene(scene, book, rng) * 255)
    return pictures, scenes


def _animal_sprite(animal, size, book, rng):
    glyph = GLYPHS[animal][rng.integers(len(GLYPHS[animal]))]
    sprite = book.animals.sprite(glyph, size)
    return sprite[:, ::-1] if rng.random() < 0.5 else sprite


def _inside(position, extent):
    return int(np.clip(position, 0, SIZE - extent))


def _draw_activity(scene, book, rng):
    """The bike under the animal; the dishes and the chess piece before it, left or right."""
    animal = _animal_sprite(scene.animal, int(rng.integers(19, 24)), book, rng)
    glyph = ACTIVITY_GLYPHS[scene.activity]
    picture = contrasting_background(glyph_color(animal), rng)
    if scene.activity == "riding a bike":
        thing = book.activities.sprite(glyph, int(rng.integers(18, 23)))
        left = int(rng.integers(SIZE - max(animal.shape[1], thing.shape[1]) + 1))
        paste(picture, thing, SIZE - thing.shape[0], _inside(left, thing.shape[1]))
        top = SIZE - thing.shape[0] // 2 - animal.shape[0] - int(rng.integers(0, 3))
        paste(picture, animal, _inside(top, animal.shape[0]), _inside(left + 1, animal.shape[1]))
        return picture
    thing = book.activities.sprite(glyph, int(rng.integers(14, 19)))
    jitter = rng.integers(0, 3, 2)
    to_the_left = rng.random() < 0.5
    height, width = animal.shape[:2]
    paste(picture, animal, int(jitter[0]), _inside(SIZE if to_the_left else 0, width))
    top = _inside(SIZE - thing.shape[0] - int(jitter[1]), thing.shape[0])
    paste(picture, thing, top, _inside(0 if to_the_left else SIZE, thing.shape[1]))
    return picture


def _draw_count(scene, book, rng):
    """Each animal in a cell of its own, somewhat off the middle."""
    (across, down), (smallest, largest) = GRIDS[scene.count]
    if rng.random() < 0.5 and (across, down) != (3, 3):
        across, down = down, across
    size = int(rng.integers(smallest, largest + 1))
    sprite = _animal_sprite(scene.animal, size, book, rng)
    height, width = sprite.shape[:2]
    picture = contrasting_background(glyph_color(sprite), rng)
    for cell in rng.permutation(across * down)[: scene.count]:
        row, column = divmod(int(cell), across)
        room_down = SIZE // down - height
        room_across = SIZE // across - width
        top = row * SIZE // down + (int(rng.integers(room_down + 1)) if room_down > 0 else 0)
        left = column * SIZE // across + (
            int(rng.integers(room_across + 1)) if room_across > 0 else 0
        )
        paste(
            picture,
            sprite[:, ::-1] if rng.random() < 0.3 else sprite,
            _inside(top, height),
            _inside(left, width),
        )
    return picture
