"""BERTScore's recall of replies that are right or wrong in one thing, as `alignment` computes it."""

import argparse
import random

from bert_score import BERTScorer

from emoji_sd.prompts import (
    ACTIVITIES,
    ANIMALS,
    COUNT_WORDS,
    activity_prompt,
    animal_prompt,
    counting_prompt,
)


def other(values, value, rng):
    return rng.choice([candidate for candidate in values if candidate != value])


def replies(rng):
    """(what is wrong with the reply, the reply, the prompt) for one animal."""
    animal, activity = rng.choice(ANIMALS), rng.choice(ACTIVITIES)
    count = rng.choice(list(COUNT_WORDS))
    another = other(ANIMALS, animal, rng)
    doing, counted = activity_prompt(animal, activity), counting_prompt(animal, count)
    return [
        ("nothing", doing, doing),
        ("the activity", activity_prompt(animal, other(ACTIVITIES, activity, rng)), doing),
        ("the animal", activity_prompt(another, activity), doing),
        ("no activity", animal_prompt(animal), doing),
        ("all", animal_prompt(another), doing),
        ("nothing (counts)", counted, counted),
        ("the count", counting_prompt(animal, other(list(COUNT_WORDS), count, rng)), counted),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--animals", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    rows = [row for _ in range(args.animals) for row in replies(rng)]
    scorer = BERTScorer(model_type=args.model, num_layers=2, idf=False)
    recall = scorer.score(
        [reply for _, reply, _ in rows], [f"The image contains {prompt}" for _, _, prompt in rows]
    )[1]
    by_fault = {}
    for (fault, _, _), value in zip(rows, recall.tolist(), strict=True):
        by_fault.setdefault(fault, []).append(value)
    for fault, values in by_fault.items():
        print(f"wrong: {fault:18} recall {sum(values) / len(values):.3f}")


if __name__ == "__main__":
    main()
