"""What the captioner is asked about a scene and what it has to answer."""

from emoji_sd.prompts import ANIMALS, COUNT_WORDS, animal_prompt, plural

DESCRIBE = "Answer concisely: what is going on in this image?"
WHICH_ANIMAL = "What animal is in this image?"
COUNT_NAMES = {0: "zero", 1: "one", **COUNT_WORDS}
ASKED = ("describe", "animal", "count", "absent")
TEMPLATE = "USER: <image>\n{question} ASSISTANT:"


def how_many(animal):
    return f"How many {plural(animal)} are there in this image?"


def question_and_answer(scene, asked, other_animal):
    """`asked`: one of ASKED; absent is the number of another animal, which is zero."""
    if asked == "describe":
        return DESCRIBE, scene.prompt
    if asked == "animal":
        return WHICH_ANIMAL, animal_prompt(scene.animal)
    if asked == "count":
        return how_many(scene.animal), COUNT_NAMES[scene.count]
    return how_many(other_animal), COUNT_NAMES[0]


def all_texts():
    """Every question and answer, for the vocabulary."""
    texts = [DESCRIBE, WHICH_ANIMAL, "USER: ASSISTANT:", *COUNT_NAMES.values()]
    texts += [how_many(animal) for animal in ANIMALS]
    texts += [animal_prompt(animal) for animal in ANIMALS]
    return texts
