"""Measures TRL's DDPOTrainer on the CPU: sampling, update and the whole loop, in samples per second.

    python bench_trl.py --model DIR [--steps 10] [--batch 16] [--samples 64] [--threads 2] [--epochs 3]

Prints one JSON object: {"sampler": …, "update": …, "loop": …}. The reward is the JPEG size, as in the
demo. The first epoch only warms up; each number is the median over the others.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
from PIL import Image
from trl import DDPOConfig, DDPOTrainer, DefaultDDPOStableDiffusionPipeline

PROMPTS = Path(__file__).resolve().parents[2] / "assets/prompts/animals.txt"


def read_prompts() -> list[str]:
    lines = (line.strip() for line in PROMPTS.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def negative_jpeg_kilobytes(images, prompts, metadata):
    rewards = []
    for image in images:
        pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
        rewards.append(-buffer.tell() / 1000)
    return torch.tensor(rewards), {}


class TimedTrainer(DDPOTrainer):
    """Adds up the seconds of the two phases of an epoch."""

    sampling_seconds = 0.0
    update_seconds = 0.0

    def _generate_samples(self, iterations, batch_size):
        start = time.perf_counter()
        with torch.no_grad():
            result = super()._generate_samples(iterations, batch_size)
        self.sampling_seconds = time.perf_counter() - start
        return result

    def _train_batched_samples(self, *args):
        start = time.perf_counter()
        result = super()._train_batched_samples(*args)
        self.update_seconds = time.perf_counter() - start
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--samples", type=int, default=64, help="of an epoch, a multiple of --batch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3, help="measured, after one that warms up")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")

    prompts = read_prompts()
    drawn = iter(range(10**9))
    with tempfile.TemporaryDirectory() as folder:
        config = DDPOConfig(
            num_epochs=args.epochs + 1,
            sample_num_steps=args.steps,
            sample_batch_size=args.batch,
            sample_num_batches_per_epoch=args.samples // args.batch,
            train_batch_size=args.batch,
            train_learning_rate=3e-3,
            train_clip_range=1e-3,
            mixed_precision="no",
            per_prompt_stat_tracking=True,
            per_prompt_stat_tracking_buffer_size=16,
            per_prompt_stat_tracking_min_count=16,
            save_freq=10**6,
            accelerator_kwargs={"cpu": True},
            project_kwargs={"project_dir": folder},
        )
        pipeline = DefaultDDPOStableDiffusionPipeline(args.model, use_lora=True)
        pipeline.sd_pipeline.to(torch.float32)
        trainer = TimedTrainer(
            config, negative_jpeg_kilobytes, lambda: (prompts[next(drawn) % len(prompts)], {}), pipeline
        )
        pipeline.set_progress_bar_config(disable=True)
        times: dict[str, list[float]] = {"sampler": [], "update": [], "loop": []}
        for epoch in range(args.epochs + 1):
            start = time.perf_counter()
            trainer.step(epoch, epoch)
            if epoch == 0:
                continue
            times["loop"].append(time.perf_counter() - start)
            times["sampler"].append(trainer.sampling_seconds)
            times["update"].append(trainer.update_seconds)
    print(json.dumps({phase: args.samples / statistics.median(values) for phase, values in times.items()}))


if __name__ == "__main__":
    main()
