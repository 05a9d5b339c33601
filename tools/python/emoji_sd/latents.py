"""Encodes a large pool of pictures once, so that a step of the UNet's training is cheap."""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from emoji_sd import checkpoint
from emoji_sd.networks import make_vae
from emoji_sd.prompts import all_prompts
from emoji_sd.scenes import draw_scenes
from emoji_sd.train_vae import to_model_range


@torch.no_grad()
def encode_pool(vae, count, kinds, seed, batch=500):
    """float16 mean and standard deviation (count, 4, 8, 8) of the posteriors, and the labels: each
    one's place in `all_prompts()`."""
    pictures, scenes = draw_scenes(count, seed, kinds)
    places = {prompt: place for place, prompt in enumerate(all_prompts())}
    labels = torch.tensor([places[scene.prompt] for scene in scenes])
    means, deviations = [], []
    for chunk in torch.from_numpy(pictures).split(batch):
        posterior = vae.encode(to_model_range(chunk)).latent_dist
        means.append(posterior.mean.half())
        deviations.append(posterior.std.half())
    return torch.cat(means), torch.cat(deviations), labels


def sample_variance(mean, deviation):
    """Of latents drawn from the posteriors, over all of the pool."""
    return (mean.float().var() + deviation.float().square().mean()).item()


def load_vae(work_dir, model):
    """The autoencoder, and the latents' scale, or None if it is not known yet. That of a finished
    pipeline, if there is a `model`, becomes the work folder's, so that `export.py` finds it."""
    vae, path = make_vae().eval(), work_dir / "vae.pt"
    if model:
        finished = AutoencoderKL.from_pretrained(model, subfolder="vae", torch_dtype=torch.float32)
        vae.load_state_dict(finished.state_dict())
        checkpoint.save(path, 0.0, 0, vae=vae)
        return vae, finished.config.scaling_factor
    checkpoint.resume(path, vae=vae)
    latents = work_dir / "latents.pt"
    if latents.exists():  # a UNet that has begun to learn keeps its latents' scale
        return vae, torch.load(latents, weights_only=True, mmap=True)["scaling_factor"]
    return vae, None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", required=True, help="folder with vae.pt; gets latents.pt")
    parser.add_argument("--model", help="a pipeline's folder, whose autoencoder to take instead")
    parser.add_argument("--pool", type=int, default=160_000, help="pictures to draw")
    parser.add_argument(
        "--kinds", type=float, nargs=3, default=(0.36, 0.36, 0.28), metavar="SHARE",
        help="shares of animals alone, with an activity, and counted",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    work_dir = Path(args.work_dir)
    vae, scaling_factor = load_vae(work_dir, args.model)
    mean, deviation, labels = encode_pool(vae, args.pool, args.kinds, args.seed)
    if scaling_factor is None:
        scaling_factor = sample_variance(mean, deviation) ** -0.5
    print(f"scaling_factor {scaling_factor:.5f}")
    pool = {"mean": mean, "std": deviation, "labels": labels, "scaling_factor": scaling_factor}
    torch.save(pool, work_dir / "latents.pt")


if __name__ == "__main__":
    main()
