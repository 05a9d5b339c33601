"""Trains the captioner on questions about the pool's scenes, beginning with emoji-clip's image tower.

Of each picture every question is asked at once: the questions and answers stand one behind the other
after the picture's tokens, and see the picture and themselves only.
"""

import argparse
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import CLIPModel

from emoji_scorers.captioner import make_captioner, make_processor, make_tokenizer, save
from emoji_scorers.questions import ASKED, TEMPLATE, question_and_answer
from emoji_scorers.vision import augment, features, heads_loss, make_heads, to_pixels
from emoji_sd import checkpoint
from emoji_sd.prompts import ACTIVITIES, ANIMALS
from emoji_sd.scenes import Scene
from emoji_sd.schedule import learning_rate

IGNORED = -100


def scene_of(labels):
    animal, activity, count = labels.tolist()
    return Scene(ANIMALS[animal], ACTIVITIES[activity - 1] if activity else None, count + 1)


class Layout:
    """Where the tokens of a picture and of all its questions stand in a row."""

    def __init__(self, tokenizer, image_tokens):
        self._tokenizer = tokenizer
        self._known = {}
        image = tokenizer.convert_tokens_to_ids("<image>")
        begin, _ = TEMPLATE.split("<image>")
        self.before = tokenizer(begin + "<image>").input_ids[:-1]
        self.prefix = len(self.before) + image_tokens
        self._image = image
        self.slots = self._slot_lengths()
        self.length = self.prefix + sum(self.slots)

    def encode(self, question, answer):
        """The ids after the picture's tokens, and how many of them are the question's."""
        key = question, answer
        if key not in self._known:
            asked = self._tokenizer(TEMPLATE.format(question=question)).input_ids
            whole = self._tokenizer(f"{TEMPLATE.format(question=question)} {answer}").input_ids
            assert whole[: len(asked)] == asked
            after = whole.index(self._image) + 1
            self._known[key] = (
                whole[after:] + [self._tokenizer.eos_token_id], len(asked) - after
            )  # fmt: skip
        return self._known[key]

    def _slot_lengths(self):
        scenes = [Scene(animal, activity) for animal in ANIMALS for activity in ACTIVITIES]
        scenes += [Scene(animal, count=8) for animal in ANIMALS]
        return [
            max(len(self.encode(*question_and_answer(s, asked, s.animal))[0]) for s in scenes)
            for asked in ASKED
        ]

    def positions(self):
        """int64 (1, length): every question begins right after the picture."""
        ranges = [torch.arange(self.prefix)]
        ranges += [self.prefix + torch.arange(slot) for slot in self.slots]
        return torch.cat(ranges)[None]

    def mask(self):
        """float (1, 1, length, length), added to the attention's scores."""
        owner = torch.cat(
            [torch.zeros(self.prefix)]
            + [torch.full((slot,), 1.0 + i) for i, slot in enumerate(self.slots)]
        )
        seen = (owner[None, :] == 0) | (owner[None, :] == owner[:, None])
        seen &= torch.ones(self.length, self.length).tril().bool()
        return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[
            None, None
        ]

    def batch(self, labels, rng):
        """For scenes: ids of the questions and answers, and what is to be said after each of them
        or IGNORED; both int64 (scenes, length − prefix)."""
        ids = torch.full((len(labels), self.length - self.prefix), self._tokenizer.pad_token_id)
        wanted = torch.full_like(ids, IGNORED)
        for i, row in enumerate(labels):
            scene = scene_of(row)
            other = rng.choice([animal for animal in ANIMALS if animal != scene.animal])
            at = 0
            for asked, slot in zip(ASKED, self.slots, strict=True):
                tokens, question = self.encode(*question_and_answer(scene, asked, other))
                ids[i, at : at + len(tokens)] = torch.tensor(tokens)
                wanted[i, at + question - 1 : at + len(tokens) - 1] = torch.tensor(
                    tokens[question:]
                )
                at += slot
        return ids, wanted


def answers_loss(model, layout, patches, ids, wanted):
    """Cross entropy of the answers' tokens. `patches`: of the image tower, (B, patches, width)."""
    embed = model.get_input_embeddings()
    before = embed(torch.tensor(layout.before)).expand(len(ids), -1, -1)
    images = model.model.multi_modal_projector(patches)
    hidden = model.model.language_model(
        inputs_embeds=torch.cat([before, images, embed(ids)], 1),
        position_ids=layout.positions(),
        attention_mask=layout.mask().expand(len(ids), -1, -1, -1),
        use_cache=False,
    ).last_hidden_state[:, layout.prefix :]
    said = wanted != IGNORED
    return F.cross_entropy(model.lm_head(hidden[said]).float(), wanted[said])


def train(args):
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    work_dir = Path(args.work_dir)
    pool = torch.load(work_dir / "pool.pt", weights_only=True)
    counted = pool["labels"][:, 2].nonzero().squeeze(1)
    tokenizer = make_tokenizer()
    model, heads = make_captioner(tokenizer), make_heads()
    tower = model.model.vision_tower
    clip = CLIPModel.from_pretrained(args.clip, torch_dtype=torch.float32)
    tower.vision_model.load_state_dict(clip.vision_model.state_dict())
    layout = Layout(tokenizer, model.config.image_seq_length)
    rest = [p for name, p in model.named_parameters() if "vision_tower" not in name]
    rates = {"rest": 1.0, "heads": 1.0, "tower": args.tower_rate}
    optimizer = torch.optim.AdamW(
        [{"params": rest}, {"params": heads.parameters()}, {"params": tower.parameters()}],
        betas=(0.9, 0.98), weight_decay=0.02, fused=True,
    )  # fmt: skip
    path = work_dir / "captioner.pt"
    seconds, step = checkpoint.resume(path, model=model, heads=heads, optimizer=optimizer)
    budget = args.minutes * 60
    started = time.monotonic() - seconds
    saved = time.monotonic()
    running = 0.0
    while (seconds := time.monotonic() - started) < budget:
        rate = learning_rate(seconds / budget, args.learning_rate)
        for group, factor in zip(optimizer.param_groups, rates.values(), strict=True):
            group["lr"] = rate * factor
        any_scene = torch.randint(len(pool["pictures"]), (args.batch,))
        counted_scene = counted[torch.randint(len(counted), (args.batch,))]
        index = torch.where(torch.rand(args.batch) < args.counted, counted_scene, any_scene)
        labels = pool["labels"][index]
        pixels = to_pixels(augment(pool["pictures"][index]))
        ids, wanted = layout.batch(labels, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            patches = features(tower, pixels)
            answers = answers_loss(model, layout, patches, ids, wanted)
            loss = answers + args.heads_weight * heads_loss(heads, patches, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        running += (answers.item() - running) / min(step, 50)
        if step % 50 == 0:
            print(f"{seconds:6.0f} s  step {step}  answers' loss {running:.4f}", flush=True)
        if time.monotonic() - saved > 60:
            saved = time.monotonic()
            checkpoint.save(path, seconds, step, model=model, heads=heads, optimizer=optimizer)
    checkpoint.save(path, seconds, step, model=model, heads=heads, optimizer=optimizer)
    save(model, make_processor(tokenizer), args.out)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", required=True, help="folder of pool.pt")
    parser.add_argument("--out", required=True, help="folder of the model")
    parser.add_argument("--clip", default="../../assets/models/emoji-clip")
    parser.add_argument("--minutes", type=float, default=45, help="in all, earlier runs included")
    parser.add_argument("--batch", type=int, default=64, help="pictures, each with all questions")
    parser.add_argument(
        "--counted", type=float, default=0.5,
        help="share of pictures that are taken from the counted ones, which are the hardest",
    )  # fmt: skip
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--tower-rate", type=float, default=0.4, help="times the learning rate")
    parser.add_argument("--heads-weight", type=float, default=0.2, help="of the tower's own loss")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast, for CPUs with AMX")
    parser.add_argument("--seed", type=int, default=6)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args)


if __name__ == "__main__":
    main()
