"""Encodes a large pool of pictures once, so that a step of the UNet's training is cheap."""

import argparse
from pathlib import Path

import torch

from emoji_sd import checkpoint
from emoji_sd.data import draw_pool
from emoji_sd.networks import make_vae
from emoji_sd.train_vae import to_model_range


@torch.no_grad()
def encode_pool(vae, count, seed, batch=500):
    """float16 mean and standard deviation (count, 4, 8, 8) of the posteriors, and the labels."""
    pictures, labels = draw_pool(count, seed)
    means, deviations = [], []
    for chunk in torch.from_numpy(pictures).split(batch):
        posterior = vae.encode(to_model_range(chunk)).latent_dist
        means.append(posterior.mean.half())
        deviations.append(posterior.std.half())
    return torch.cat(means), torch.cat(deviations), torch.from_numpy(labels)


def sample_variance(mean, deviation):
    """Of latents drawn from the posteriors, over all of the pool."""
    return (mean.float().var() + deviation.float().square().mean()).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", required=True, help="folder with vae.pt; gets latents.pt")
    parser.add_argument("--pool", type=int, default=63_000, help="pictures to draw")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    work_dir = Path(args.work_dir)
    vae = make_vae().eval()
    checkpoint.resume(work_dir / "vae.pt", vae=vae)
    mean, deviation, labels = encode_pool(vae, args.pool, args.seed)
    scaling_factor = sample_variance(mean, deviation) ** -0.5
    print(f"scaling_factor {scaling_factor:.5f}")
    pool = {"mean": mean, "std": deviation, "labels": labels, "scaling_factor": scaling_factor}
    torch.save(pool, work_dir / "latents.pt")


if __name__ == "__main__":
    main()
