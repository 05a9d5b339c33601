"""Records one epoch of TRL's DDPOTrainer as a fixture of kind `ddpo_epoch`.

    python trl_epoch.py --model DIR --out FILE [--steps 8] [--samples 16] [--batch 8] [--train-batch 2]
                        [--accumulation 2]

TRL samples, scores, shuffles and trains by itself, in float32 on the CPU; the fixture holds what it sampled and in
which order it trained, and the LoRA before and after. Needs trl 0.19.1.

A clipped ratio's gradient is zero: where one lies within float32's rounding error of the clip range, two right
computations differ by a whole sample's gradient (PyTorch's float32 from its own float64, too). With the default sizes
none does on tests/goldens/pipelines/tiny, whose fixture is in tests/goldens/pipelines/tiny_fixtures; the more samples
and optimizer steps, the likelier it is.
"""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from peft.utils import get_peft_model_state_dict
from trl import DDPOConfig, DDPOTrainer, DefaultDDPOStableDiffusionPipeline

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from parity.fixture import Fixture  # noqa: E402

PROMPTS = ["a cat", "an ant", "a dog"]


def redness(images, prompts, metadata):
    """Any reward that differs between images will do; around zero, so that TRL's float32 loses nothing of it."""
    return torch.stack([100 * (image[0].float().mean() - image[1].float().mean()) for image in images]), {}


class RecordingTrainer(DDPOTrainer):
    """Keeps what an epoch samples and how it shuffles."""

    def _generate_samples(self, iterations, batch_size):
        with torch.no_grad():
            samples, images = super()._generate_samples(iterations, batch_size)
        self.sampled = {key: torch.cat([sample[key] for sample in samples]) for key in samples[0]}
        self.prompts = [prompt for _, prompts, _ in images for prompt in prompts]
        return samples, images

    def compute_rewards(self, prompt_image_pairs, is_async=False):
        rewards, metadata = super().compute_rewards(prompt_image_pairs, is_async)
        self.rewards = torch.cat(rewards)
        return rewards, metadata

    def _train_batched_samples(self, inner_epoch, epoch, global_step, batched_samples):
        self.advantages = torch.cat([batch["advantages"] for batch in batched_samples])
        return super()._train_batched_samples(inner_epoch, epoch, global_step, batched_samples)


def lora_of(trainer: DDPOTrainer) -> dict[str, torch.Tensor]:
    tensors = get_peft_model_state_dict(trainer.sd_pipeline.unet)
    return {f"lora.unet.{key}": value.detach().clone() for key, value in tensors.items()}


def record(args: argparse.Namespace, folder: str) -> Fixture:
    config = DDPOConfig(
        num_epochs=1,
        seed=3,
        sample_num_steps=args.steps,
        sample_batch_size=args.batch,
        sample_num_batches_per_epoch=args.samples // args.batch,
        train_batch_size=args.train_batch,
        train_gradient_accumulation_steps=args.accumulation,
        mixed_precision="no",
        per_prompt_stat_tracking=True,
        per_prompt_stat_tracking_buffer_size=16,
        per_prompt_stat_tracking_min_count=5,
        save_freq=10**6,
        accelerator_kwargs={"cpu": True},
        project_kwargs={"project_dir": folder},
    )
    pipeline = DefaultDDPOStableDiffusionPipeline(str(args.model), use_lora=True)
    pipeline.sd_pipeline.to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    drawn = iter(range(args.samples))
    trainer = RecordingTrainer(config, redness, lambda: (PROMPTS[next(drawn) % len(PROMPTS)], {}), pipeline)
    start = lora_of(trainer)
    permutations: list[torch.Tensor] = []
    randperm = torch.randperm

    def recorded(*arguments, **options):
        permutations.append(randperm(*arguments, **options))
        return permutations[-1]

    with mock.patch("torch.randperm", recorded):
        trainer.step(0, 0)
    # The samples' order, then each sample's order of timesteps; what follows would belong to an inner epoch more.
    order, timesteps = permutations[0], torch.stack(permutations[1 : 1 + args.samples])
    assert len(permutations) == 1 + args.samples
    params: dict[str, Any] = {
        "objective": "ddpo_is",
        "prompts": trainer.prompts,
        "num_inference_steps": args.steps,
        "guidance_scale": config.sample_guidance_scale,
        "eta": config.sample_eta,
        "clip_range": config.train_clip_range,
        "adv_clip": config.train_adv_clip_max,
        "learning_rate": config.train_learning_rate,
        "adam_beta1": config.train_adam_beta1,
        "adam_beta2": config.train_adam_beta2,
        "adam_epsilon": config.train_adam_epsilon,
        "adam_weight_decay": config.train_adam_weight_decay,
        "max_grad_norm": config.train_max_grad_norm,
        "minibatch_size": config.train_batch_size,
        "gradient_accumulation": config.train_gradient_accumulation_steps,
        "stat_buffer_size": config.per_prompt_stat_tracking_buffer_size,
        "stat_min_count": config.per_prompt_stat_tracking_min_count,
    }
    sampled = trainer.sampled
    inputs = start | {
        "latents": torch.cat([sampled["latents"], sampled["next_latents"][:, -1:]], dim=1),
        "log_probs": sampled["log_probs"].reshape(args.samples, args.steps),
        "rewards": trainer.rewards,
        "sample_order": order,
        "timestep_order": timesteps,
    }
    # TRL keeps advantages in the order in which it trains.
    advantages = torch.empty_like(trainer.advantages)
    advantages[order] = trainer.advantages
    outputs = lora_of(trainer) | {"advantages": advantages}
    return Fixture(args.out.stem, "ddpo_epoch", params, inputs, outputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the fixture, as in trl_epoch.safetensors")
    parser.add_argument("--steps", type=int, default=8, help="of denoising")
    parser.add_argument("--samples", type=int, default=16, help="of the epoch, a multiple of --batch")
    parser.add_argument("--batch", type=int, default=8, help="of sampling")
    parser.add_argument("--train-batch", type=int, default=2)
    parser.add_argument("--accumulation", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        print(f"made {record(args, folder).write(args.out.parent)}")


if __name__ == "__main__":
    main()
