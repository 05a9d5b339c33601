"""Trains the autoencoder: 32 x 32 pictures to 8 x 8 latents of four channels and back."""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from emoji_sd import checkpoint
from emoji_sd.data import draw_pool
from emoji_sd.networks import make_vae
from emoji_sd.schedule import learning_rate

KL_WEIGHT = 1e-5
GRADIENT_WEIGHT = 1.0


def to_model_range(pictures):
    """uint8 (n, height, width, 3) to float32 (n, 3, height, width) in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def gradients(image):
    """Differences of neighbouring pixels, across and down."""
    return image[..., 1:] - image[..., :-1], image[..., 1:, :] - image[..., :-1, :]


def reconstruction_loss(image, target):
    """L1 on pixels and on their differences: the second keeps the outlines sharp."""
    loss = F.l1_loss(image, target)
    for got, wanted in zip(gradients(image), gradients(target)):
        loss = loss + GRADIENT_WEIGHT * F.l1_loss(got, wanted)
    return loss


def train(args):
    torch.manual_seed(args.seed)
    pictures = torch.from_numpy(draw_pool(args.pool, args.seed)[0])
    vae = make_vae()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=args.learning_rate, betas=(0.9, 0.99))
    path = Path(args.work_dir) / "vae.pt"
    seconds, step = checkpoint.resume(path, vae=vae, optimizer=optimizer)
    started = saved = time.monotonic() - seconds
    budget = args.minutes * 60
    while (seconds := time.monotonic() - started) < budget:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(seconds / budget, args.learning_rate)
        batch = to_model_range(pictures[torch.randint(len(pictures), (args.batch,))])
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            posterior = vae.encode(batch).latent_dist
            image = vae.decode(posterior.sample()).sample
        reconstruction = reconstruction_loss(image.float(), batch)
        loss = reconstruction + KL_WEIGHT * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"{seconds:6.0f} s  step {step}  loss {reconstruction.item():.4f}", flush=True)
        if time.monotonic() - saved > args.save_every:
            saved = time.monotonic()
            checkpoint.save(path, seconds, step, vae=vae, optimizer=optimizer)
    checkpoint.save(path, seconds, step, vae=vae, optimizer=optimizer)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", required=True, help="folder of the checkpoints")
    parser.add_argument("--minutes", type=float, default=15, help="in all, earlier runs included")
    parser.add_argument("--pool", type=int, default=40000, help="pictures to draw")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast, for CPUs with AMX")
    parser.add_argument("--save-every", type=float, default=60, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args)


if __name__ == "__main__":
    main()
