"""How often the captioner is right about scenes that it was not trained on."""

import argparse
from statistics import mean

import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

from emoji_scorers.pool import round_trip
from emoji_scorers.questions import COUNT_NAMES, DESCRIBE, TEMPLATE, WHICH_ANIMAL, how_many
from emoji_sd.prompts import plural
from emoji_sd.scenes import draw_scenes


@torch.no_grad()
def replies(model, processor, pictures, questions, batch=100):
    texts = []
    for begin in range(0, len(pictures), batch):
        inputs = processor(
            images=[picture.numpy() for picture in pictures[begin : begin + batch]],
            text=[TEMPLATE.format(question=q) for q in questions[begin : begin + batch]],
            return_tensors="pt",
            padding=True,
        )
        length = inputs["input_ids"].shape[1]
        tokens = model.generate(**inputs, max_new_tokens=16, do_sample=False)
        texts += processor.batch_decode(tokens[:, length:], skip_special_tokens=True)
    return [text.strip() for text in texts]


def share(hits):
    return f"{100 * sum(hits) / len(hits):.1f} % of {len(hits)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--scenes", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--round-trip", help="folder of emoji-sd: pictures as its VAE returns them")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = LlavaForConditionalGeneration.from_pretrained(args.model, torch_dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(args.model)
    drawn, scenes = draw_scenes(args.scenes, args.seed)
    pictures = torch.from_numpy(drawn)
    if args.round_trip:
        from diffusers import AutoencoderKL

        vae = AutoencoderKL.from_pretrained(
            args.round_trip, subfolder="vae", torch_dtype=torch.float32
        )
        pictures = round_trip(pictures, vae, torch.Generator().manual_seed(args.seed))

    said = replies(model, processor, pictures, [DESCRIBE] * len(scenes))
    animals = [
        scene.animal in text.split() or plural(scene.animal) in text.split()
        for scene, text in zip(scenes, said, strict=True)
    ]
    print("description names the animal:", share(animals))
    print(
        "description names the activity:",
        share([s.activity in t for s, t in zip(scenes, said, strict=True) if s.activity]),
    )
    print("description is the prompt:", share([s.prompt == t for s, t in zip(scenes, said)]))
    said = replies(model, processor, pictures, [WHICH_ANIMAL] * len(scenes))
    print(
        "asked for the animal:",
        share([s.animal in t.split() for s, t in zip(scenes, said, strict=True)]),
    )
    said = replies(model, processor, pictures, [how_many(scene.animal) for scene in scenes])
    hits = [COUNT_NAMES[scene.count] == text for scene, text in zip(scenes, said, strict=True)]
    print("asked for the count:", share(hits))
    right = {}
    for scene, hit in zip(scenes, hits, strict=True):
        if not scene.activity:
            right.setdefault(scene.count, []).append(hit)
    for count in sorted(right):
        print(f"asked for the count, {count} there:", share(right[count]))
    print(f"mean over the counts: {100 * mean(map(mean, right.values())):.1f} %")


if __name__ == "__main__":
    main()
