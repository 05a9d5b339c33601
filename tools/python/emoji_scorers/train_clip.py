"""`assets/models/emoji-clip`: a small CLIP trained to match scenes and prompts, with an aesthetic head
of LAION's layout that is trained along with it on a stated rule."""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionModel,
)

from emoji_scorers.train_captioner import scene_of
from emoji_scorers.vision import IMAGE_SIZE, MEAN, STD, augment, to_pixels, vision_config
from emoji_sd import checkpoint
from emoji_sd.schedule import learning_rate

PROJECTION = 64


def vividness(pictures):
    """The rule: 1 + 9 · the mean over the picture of the largest minus the smallest of red, green
    and blue, each in [0, 1]. uint8 (B, h, w, 3) to (B)."""
    scaled = pictures.float() / 255
    return 1 + 9 * (scaled.amax(-1) - scaled.amin(-1)).mean((1, 2))


def make_clip(tokenizer):
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        projection_dim=PROJECTION,
    )
    return CLIPModel(
        CLIPConfig(
            text_config=text.to_dict(),
            vision_config=vision_config(projection_dim=PROJECTION).to_dict(),
            projection_dim=PROJECTION,
        )
    )


class AestheticHead(torch.nn.Module):
    """LAION's: linear layers without activations."""

    def __init__(self, width):
        super().__init__()
        sizes = (width, 128, 64, 32, 16, 1)
        linear = [torch.nn.Linear(*pair) for pair in zip(sizes[:-1], sizes[1:], strict=True)]
        dropout = torch.nn.Identity
        self.layers = torch.nn.Sequential(
            linear[0], dropout(), linear[1], dropout(), linear[2], dropout(), linear[3], linear[4]
        )

    def forward(self, features):
        return self.layers(F.normalize(features, dim=-1)).squeeze(-1)


def contrast(images, texts, scale, prompts):
    """CLIP's loss; pictures of one prompt are no wrong answers to each other."""
    logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    same = prompts[:, None] == prompts[None, :]
    logits = logits.masked_fill(same & ~torch.eye(len(prompts), dtype=torch.bool), -1e4)
    labels = torch.arange(len(prompts))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


@torch.no_grad()
def head_r2(model, head, pictures):
    model.eval()
    wanted = vividness(pictures)
    said = torch.cat(
        [head(model.get_image_features(to_pixels(p)).float()) for p in pictures.split(500)]
    )
    model.train()
    return 1 - ((said - wanted).square().mean() / wanted.var()).item()


def train(args):
    torch.manual_seed(args.seed)
    work_dir = Path(args.work_dir)
    pool = torch.load(work_dir / "pool.pt", weights_only=True)
    held_out = torch.load(work_dir / "held-out.pt", weights_only=True)
    tokenizer = CLIPTokenizer.from_pretrained(args.tokenizer)
    model, head = make_clip(tokenizer), AestheticHead(PROJECTION)
    tower = CLIPVisionModel(vision_config())
    state = torch.load(work_dir / "vision.pt", weights_only=True)["model"]
    torch.nn.ModuleDict({"tower": tower}).load_state_dict(
        {k: v for k, v in state.items() if k.startswith("tower.")}
    )
    model.vision_model.load_state_dict(tower.vision_model.state_dict())
    both = torch.nn.ModuleDict({"model": model, "head": head})
    optimizer = torch.optim.AdamW(both.parameters(), betas=(0.9, 0.98), weight_decay=0.02)
    path = work_dir / "clip.pt"
    seconds, step = checkpoint.resume(path, both=both, optimizer=optimizer)
    known = {}
    budget = args.minutes * 60
    started = time.monotonic() - seconds
    while (seconds := time.monotonic() - started) < budget:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(seconds / budget, args.learning_rate)
        index = torch.randint(len(pool["pictures"]), (args.batch,))
        pictures = augment(pool["pictures"][index])
        # Colours that the pool has seldom: very grey and very vivid pictures.
        grey = pictures.mean(-1, keepdim=True)
        strength = torch.empty(args.batch, 1, 1, 1).uniform_(0, 2)
        pictures = (grey + strength * (pictures - grey)).clamp(0, 255).round()
        prompts = [scene_of(row).prompt for row in pool["labels"][index]]
        numbers = torch.tensor([known.setdefault(p, len(known)) for p in prompts])
        texts = tokenizer(prompts, padding="max_length", return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            image_features = model.get_image_features(to_pixels(pictures))
            text_features = model.get_text_features(**texts)
        image_features, text_features = image_features.float(), text_features.float()
        error = F.mse_loss(head(image_features), vividness(pictures))
        loss = contrast(image_features, text_features, 20.0, numbers) + 0.3 * error
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            r2 = head_r2(model, head, held_out["pictures"])
            print(f"{seconds:6.0f} s  step {step}  loss {loss.item():.3f}  R² {r2:.4f}", flush=True)
            checkpoint.save(path, seconds, step, both=both, optimizer=optimizer)
    model.logit_scale.data.fill_(20.0).log_()
    model.to(torch.float16).save_pretrained(args.out, safe_serialization=True)
    tokenizer.save_pretrained(args.out)
    CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=list(MEAN),
        image_std=list(STD),
    ).save_pretrained(args.out)
    weights = {key: value.contiguous() for key, value in head.state_dict().items()}
    save_file(weights, f"{args.out}/aesthetic_head.safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", required=True, help="folder of pool.pt and vision.pt")
    parser.add_argument("--out", required=True, help="folder of the model")
    parser.add_argument("--tokenizer", default="../../assets/models/emoji-sd/tokenizer")
    parser.add_argument("--minutes", type=float, default=6, help="in all, earlier runs included")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=7e-4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast, for CPUs with AMX")
    parser.add_argument("--seed", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args)


if __name__ == "__main__":
    main()
