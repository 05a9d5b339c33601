"""A large pool of scenes, a share of them as emoji-sd's autoencoder gives them back."""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from emoji_sd.prompts import ACTIVITIES, ANIMALS
from emoji_sd.scenes import draw_scenes
from emoji_sd.train_vae import to_model_range


def scene_labels(scenes):
    """int64 (count, 3): animal, activity (0 for none, from 1 as in ACTIVITIES) and count − 1."""
    rows = [
        (
            ANIMALS.index(scene.animal),
            1 + ACTIVITIES.index(scene.activity) if scene.activity else 0,
            scene.count - 1,
        )
        for scene in scenes
    ]
    return torch.tensor(rows)


@torch.no_grad()
def round_trip(pictures, vae, generator, batch=500):
    """The pictures encoded, a latent drawn, and decoded: blurred as the diffusion model's are."""
    back = []
    for chunk in pictures.split(batch):
        posterior = vae.encode(to_model_range(chunk)).latent_dist
        latents = posterior.mean + 2 * posterior.std * torch.randn(
            posterior.std.shape, generator=generator
        )
        decoded = vae.decode(latents).sample
        back.append(((decoded / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1))
    return torch.cat(back)


def draw_pool(count, seed, model, share):
    """Pictures and labels; the first `share` of them have been through the autoencoder of `model`."""
    drawn, scenes = draw_scenes(count, seed)
    pictures = torch.from_numpy(drawn)
    vae = AutoencoderKL.from_pretrained(model, subfolder="vae", torch_dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(seed)
    vae.to(memory_format=torch.channels_last)  # faster on CPUs
    passed = round(share * count)
    pictures[:passed] = round_trip(pictures[:passed], vae, generator)
    return pictures, scene_labels(scenes)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", required=True, help="gets pool.pt and held-out.pt")
    parser.add_argument("--model", default="../../assets/models/emoji-sd")
    parser.add_argument("--pool", type=int, default=150_000)
    parser.add_argument("--held-out", type=int, default=3_000)
    parser.add_argument("--round-trips", type=float, default=0.5, help="share of the pictures")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    work_dir = Path(args.work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    for name, count, seed in (("held-out", args.held_out, 11), ("pool", args.pool, 12)):
        pictures, labels = draw_pool(count, seed, args.model, args.round_trips)
        torch.save({"pictures": pictures, "labels": labels}, work_dir / f"{name}.pt")


if __name__ == "__main__":
    main()
