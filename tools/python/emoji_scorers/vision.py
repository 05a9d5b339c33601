"""The image tower that the small CLIP begins from, and the captioner after it, and its first training:
to name the animal, the activity and the count by three linear heads."""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel

from emoji_sd import checkpoint
from emoji_sd.prompts import ACTIVITIES, ANIMALS
from emoji_sd.schedule import learning_rate

IMAGE_SIZE, PATCH_SIZE, WIDTH, LAYERS = 32, 4, 128, 5
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
# Heads over the patches' mean at the last but one layer, which is the one that LLaVA looks at.
CLASSES = {"animal": len(ANIMALS), "activity": 1 + len(ACTIVITIES), "count": 8}


def vision_config(**more):
    return CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        hidden_act="quick_gelu",
        **more,
    )


def to_pixels(pictures):
    """uint8 (B, 32, 32, 3) to what the tower takes, (B, 3, 32, 32)."""
    scaled = pictures.permute(0, 3, 1, 2).float() / 255
    return (scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def augment(pictures):
    """Half of them mirrored; noise and a change of brightness, differing by picture, often none."""
    count = len(pictures)
    pictures = torch.where(torch.rand(count, 1, 1, 1) < 0.5, pictures, pictures.flip(2))
    noise = torch.rand(count, 1, 1, 1) * 12 * (torch.rand(count, 1, 1, 1) < 0.5)
    gain = 1 + 0.15 * (torch.rand(count, 1, 1, 3) - 0.5)
    changed = pictures.float() * gain + noise * torch.randn(pictures.shape)
    return changed.clamp(0, 255).round()


def make_heads():
    return torch.nn.ModuleDict({name: torch.nn.Linear(WIDTH, n) for name, n in CLASSES.items()})


def features(tower, pixels):
    """The patches' hidden states at the last but one layer, (B, 64, WIDTH), without computing the
    last one."""
    vision = tower.vision_model
    hidden = vision.pre_layrnorm(vision.embeddings(pixels))
    for layer in vision.encoder.layers[:-1]:
        hidden = layer(hidden, None, None)[0]
    return hidden[:, 1:]


def heads_loss(heads, patches, labels):
    """`patches`: `features` of the pictures with these labels."""
    pooled = patches.mean(1)
    losses = [
        F.cross_entropy(head(pooled).float(), labels[:, column])
        for column, head in enumerate(heads.values())
    ]
    return losses[0] + losses[1] + losses[2]


@torch.no_grad()
def accuracies(tower, heads, held_out):
    tower.eval()
    pooled = torch.cat(
        [features(tower, to_pixels(chunk)).mean(1) for chunk in held_out["pictures"].split(500)]
    )
    tower.train()
    return {
        name: (head(pooled).argmax(1) == held_out["labels"][:, column]).float().mean().item()
        for column, (name, head) in enumerate(heads.items())
    }


def train(args):
    torch.manual_seed(args.seed)
    work_dir = Path(args.work_dir)
    pool = torch.load(work_dir / "pool.pt", weights_only=True)
    held_out = torch.load(work_dir / "held-out.pt", weights_only=True)
    tower, heads = CLIPVisionModel(vision_config()), make_heads()
    model = torch.nn.ModuleDict({"tower": tower, "heads": heads})
    optimizer = torch.optim.AdamW(
        model.parameters(), args.learning_rate, (0.9, 0.98), weight_decay=0.05, fused=True
    )
    path = work_dir / "vision.pt"
    seconds, step = checkpoint.resume(path, model=model, optimizer=optimizer)
    budget = args.minutes * 60
    started = saved = time.monotonic() - seconds
    while (seconds := time.monotonic() - started) < budget:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(seconds / budget, args.learning_rate)
        index = torch.randint(len(pool["pictures"]), (args.batch,))
        pixels = to_pixels(augment(pool["pictures"][index]))
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            loss = heads_loss(heads, features(tower, pixels), pool["labels"][index])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 200 == 0:
            print(
                f"{seconds:6.0f} s  step {step}  loss {loss.item():.3f}",
                {k: round(v, 3) for k, v in accuracies(tower, heads, held_out).items()},
                flush=True,
            )
        if time.monotonic() - saved > 60:
            saved = time.monotonic()
            checkpoint.save(path, seconds, step, model=model, optimizer=optimizer)
    checkpoint.save(path, seconds, step, model=model, optimizer=optimizer)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", required=True, help="folder of the pool; gets vision.pt")
    parser.add_argument("--minutes", type=float, default=15, help="in all, earlier runs included")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast, for CPUs with AMX")
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args)


if __name__ == "__main__":
    main()
