"""Trains the captioner on questions about the pool's scenes, beginning with the tower of
`vision.py`."""

import argparse
import random
import time
from pathlib import Path

import torch

from emoji_scorers.captioner import make_captioner, make_processor, make_tokenizer, save
from emoji_scorers.questions import TEMPLATE, question_and_answer
from emoji_sd.scenes import Scene
from emoji_scorers.vision import augment, to_pixels
from emoji_sd import checkpoint
from emoji_sd.prompts import ACTIVITIES, ANIMALS
from emoji_sd.schedule import learning_rate

ASKED = ("describe", "animal", "count", "absent")
SHARES = (0.45, 0.2, 0.27, 0.08)


class Encoder:
    """Token ids of questions and answers, each computed once."""

    def __init__(self, tokenizer, image_tokens):
        self._tokenizer = tokenizer
        self._image = tokenizer.convert_tokens_to_ids("<image>")
        self._image_tokens = image_tokens
        self._known = {}

    def __call__(self, question, answer):
        """ids and labels; the question's labels are −100."""
        key = question, answer
        if key not in self._known:
            prompt = TEMPLATE.format(question=question)
            asked = self._tokenizer(prompt).input_ids
            whole = self._tokenizer(f"{prompt} {answer}").input_ids
            whole.append(self._tokenizer.eos_token_id)
            assert whole[: len(asked)] == asked
            at = asked.index(self._image)
            images = [self._image] * self._image_tokens
            ids = whole[:at] + images + whole[at + 1 :]
            hidden = len(asked) + self._image_tokens - 1
            self._known[key] = ids, [-100] * hidden + ids[hidden:]
        return self._known[key]


def scene_of(labels):
    animal, activity, count = labels.tolist()
    return Scene(ANIMALS[animal], ACTIVITIES[activity - 1] if activity else None, count + 1)


def make_batch(labels, encoder, rng, padding):
    """input_ids, attention_mask and labels, padded on the right."""
    rows = []
    for row in labels:
        scene = scene_of(row)
        asked = rng.choices(ASKED, SHARES)[0]
        if asked == "count" and scene.activity:
            asked = "describe"
        other = rng.choice([animal for animal in ANIMALS if animal != scene.animal])
        rows.append(encoder(*question_and_answer(scene, asked, other)))
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [padding] * (longest - len(ids)) for ids, _ in rows])
    targets = torch.tensor([t + [-100] * (longest - len(t)) for _, t in rows])
    lengths = torch.tensor([len(ids) for ids, _ in rows])
    mask = (torch.arange(longest) < lengths[:, None]).long()
    return ids, mask, targets


def train(args):
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    work_dir = Path(args.work_dir)
    pool = torch.load(work_dir / "pool.pt", weights_only=True)
    counted = pool["labels"][:, 2].nonzero().squeeze(1)
    tokenizer = make_tokenizer()
    model = make_captioner(tokenizer)
    tower = torch.nn.ModuleDict({"tower": model.model.vision_tower})
    state = torch.load(work_dir / "vision.pt", weights_only=True)["model"]
    tower.load_state_dict({k: v for k, v in state.items() if k.startswith("tower.")})
    encoder = Encoder(tokenizer, model.config.image_seq_length)
    vision = list(tower.parameters())
    rest = [p for name, p in model.named_parameters() if "vision_tower" not in name]
    optimizer = torch.optim.AdamW(
        [{"params": rest}, {"params": vision}], betas=(0.9, 0.98), weight_decay=0.02, fused=True
    )
    path = work_dir / "captioner.pt"
    seconds, step = checkpoint.resume(path, model=model, optimizer=optimizer)
    budget = args.minutes * 60
    started = saved = time.monotonic() - seconds
    running = 0.0
    while (seconds := time.monotonic() - started) < budget:
        rate = learning_rate(seconds / budget, args.learning_rate)
        for group, factor in zip(optimizer.param_groups, (1.0, 0.3), strict=True):
            group["lr"] = rate * factor
        # Counting is the hardest: half of the scenes are counted ones.
        index = torch.cat(
            [
                torch.randint(len(pool["pictures"]), (args.batch // 2,)),
                counted[torch.randint(len(counted), (args.batch - args.batch // 2,))],
            ]
        )
        pixels = to_pixels(augment(pool["pictures"][index]))
        ids, mask, targets = make_batch(
            pool["labels"][index], encoder, rng, tokenizer.pad_token_id
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            loss = model(
                input_ids=ids, pixel_values=pixels, attention_mask=mask, labels=targets
            ).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        running += (loss.item() - running) / min(step, 100)
        if step % 100 == 0:
            print(f"{seconds:6.0f} s  step {step}  loss {running:.4f}", flush=True)
        if time.monotonic() - saved > 60:
            saved = time.monotonic()
            checkpoint.save(path, seconds, step, model=model, optimizer=optimizer)
    checkpoint.save(path, seconds, step, model=model, optimizer=optimizer)
    save(model, make_processor(tokenizer), args.out)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", required=True, help="folder of pool.pt and vision.pt")
    parser.add_argument("--out", required=True, help="folder of the model")
    parser.add_argument("--minutes", type=float, default=45, help="in all, earlier runs included")
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast, for CPUs with AMX")
    parser.add_argument("--seed", type=int, default=6)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args)


if __name__ == "__main__":
    main()
