"""The prompt texts: animals, animals that do something, and counted animals."""

ANIMALS = (
    "cat dog horse monkey rabbit zebra spider bird sheep deer cow goat lion tiger bear raccoon fox "
    "wolf lizard beetle ant butterfly fish shark whale dolphin squirrel mouse rat snake turtle "
    "frog chicken duck goose bee pig turkey fly llama camel bat gorilla hedgehog kangaroo"
).split()

ACTIVITIES = ("washing the dishes", "riding a bike", "playing chess")

COUNT_WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}

IRREGULAR_PLURALS = {
    "sheep": "sheep",
    "deer": "deer",
    "wolf": "wolves",
    "butterfly": "butterflies",
    "fish": "fish",
    "mouse": "mice",
    "goose": "geese",
    "fly": "flies",
    "fox": "foxes",
}


def plural(animal):
    return IRREGULAR_PLURALS.get(animal, animal + "s")


def animal_prompt(animal):
    """"a cat", "an ant"."""
    article = "an" if animal[0] in "aeiou" else "a"
    return f"{article} {animal}"


def activity_prompt(animal, activity):
    """"a bear playing chess"."""
    return f"{animal_prompt(animal)} {activity}"


def counting_prompt(animal, count):
    """"three wolves", for 2 to 8 animals."""
    return f"{COUNT_WORDS[count]} {plural(animal)}"


def all_prompts():
    """Every prompt that the model may be asked for, in a fixed order."""
    prompts = [animal_prompt(animal) for animal in ANIMALS]
    prompts += [activity_prompt(animal, act) for animal in ANIMALS for act in ACTIVITIES]
    prompts += [counting_prompt(animal, n) for animal in ANIMALS for n in COUNT_WORDS]
    return prompts
