"""Writes the golden files of the scheduler, the pipeline and the optimizer steps.

    python tools/python/goldens/make_diffusion_goldens.py

Needs torch, diffusers, transformers and peft. Under tests/goldens:
    schedulers/CASE/scheduler_config.json   diffusers' DDIMScheduler in each configuration of SCHEDULERS
    schedulers/ddim.safetensors             CASE.timesteps.T, CASE.add_noise.NAME, and CASE.ddim.T.STEP.ETA.NAME
                                            of single steps (log_prob only where the step has a width)
    pipelines/tiny/                         a whole random pipeline, weights in fp16
    pipelines/tiny_fixtures/*.safetensors   fixtures of kinds denoise, policy_gradient_step and rwr_step on it; the
                                            noise of two seeds
Weights are rounded to fp16 before anything is computed, so that small files lose nothing.
"""

import math
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

ROOT = Path(__file__).resolve().parents[3]
GOLDENS = ROOT / "tests" / "goldens"
sys.path.insert(0, str(ROOT / "tools" / "python"))

from parity.fixture import write_fixture  # noqa: E402
from reference import clip_bpe, ddpo_reference  # noqa: E402
from reference.tiny_models import randomize  # noqa: E402

STABLE_DIFFUSION = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    clip_sample=False,
    set_alpha_to_one=False,
    steps_offset=1,
)
SCHEDULERS = {
    "sd15": STABLE_DIFFUSION,
    "trailing": STABLE_DIFFUSION | dict(timestep_spacing="trailing", steps_offset=0),
    "linspace": STABLE_DIFFUSION | dict(timestep_spacing="linspace"),
    "v_prediction": STABLE_DIFFUSION | dict(prediction_type="v_prediction", timestep_spacing="trailing"),
    "sample_prediction": STABLE_DIFFUSION | dict(prediction_type="sample"),
    "linear": dict(clip_sample=False, num_train_timesteps=500),
    "squaredcos": dict(clip_sample=False, beta_schedule="squaredcos_cap_v2", set_alpha_to_one=False),
}
MERGES = [("a", "n</w>"), ("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g")]
PROMPTS = ["a cat", "an ant", "a cat", "two dogs"]


def golden_step(scheduler: DDIMScheduler, t: int, eta: float, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """One step of diffusers with the noise given; its mean is the step with no noise."""
    shape = (2, 4, 3, 2)
    values = {name: torch.randn(shape, generator=generator) for name in ("sample", "model_output", "noise")}
    arguments = values["model_output"], t, values["sample"]
    prev_sample = scheduler.step(*arguments, eta=eta, variance_noise=values["noise"]).prev_sample
    mean = scheduler.step(*arguments, eta=eta, variance_noise=torch.zeros(shape)).prev_sample
    prev_t = t - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    std = eta * math.sqrt(scheduler._get_variance(t, prev_t))
    if std > 0:
        elements = -((prev_sample - mean) ** 2) / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)
        values["log_prob"] = elements.mean(dim=(1, 2, 3))
    return values | {"prev_sample": prev_sample, "eta": torch.tensor([eta])}


def write_schedulers(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for case, config in SCHEDULERS.items():
        scheduler = DDIMScheduler(**config)
        scheduler.save_pretrained(folder / case)
        original, noise = torch.randn(2, 3, 4, 2, 2, generator=generator)
        timesteps = torch.tensor([0, 250, 499])
        noisy = scheduler.add_noise(original, noise, timesteps)
        values = {"original": original, "noise": noise, "timesteps": timesteps, "noisy": noisy}
        tensors |= {f"{case}.add_noise.{name}": value for name, value in values.items()}
        for count in (1, 7, 50, 125):
            scheduler.set_timesteps(count)
            tensors[f"{case}.timesteps.{count}"] = scheduler.timesteps
        for count in (7, 50):
            scheduler.set_timesteps(count)
            for index in (0, count - 1) if count == 50 else (3,):
                for eta in (0.0, 1.0) if count == 50 else (0.4,):
                    # With ᾱ = 1 at the end diffusers' last step has no density; see DdimScheduler.
                    if eta > 0 and index == count - 1 and scheduler.config.set_alpha_to_one:
                        continue
                    step = golden_step(scheduler, int(scheduler.timesteps[index]), eta, generator)
                    prefix = f"{case}.ddim.{count}.{index}.{eta}"
                    tensors |= {f"{prefix}.{name}": value for name, value in step.items()}
    save_file({k: v.clone().contiguous() for k, v in tensors.items()}, folder / "ddim.safetensors")


def make_pipeline(folder: Path) -> StableDiffusionPipeline:
    """Saves the pipeline in fp16 and returns it in float32."""
    generator = torch.Generator().manual_seed(1)
    tokenizer = clip_bpe.write_tokenizer(folder / "tokenizer", MERGES, model_max_length=8)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=tokenizer.model_max_length,
        hidden_size=12,
        intermediate_size=24,
        num_attention_heads=2,
        num_hidden_layers=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    pipe = StableDiffusionPipeline(
        unet=UNet2DConditionModel(
            sample_size=4,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=12,
            attention_head_dim=2,
            norm_num_groups=4,
        ),
        vae=AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=4,
            sample_size=8,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(**STABLE_DIFFUSION),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for module in (pipe.unet, pipe.vae, pipe.text_encoder):
        randomize(module.eval().requires_grad_(False), generator)
    pipe.to(dtype=torch.float16).save_pretrained(folder)
    return pipe.to(dtype=torch.float32)


def random_lora(pipe: StableDiffusionPipeline, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A rank-2 LoRA whose product is not zero, under PEFT's keys."""
    pipe.unet.add_adapter(ddpo_reference.LoraConfig(r=2, lora_alpha=2, target_modules=ddpo_reference.LORA_TARGETS))
    shapes = {key: value.shape for key, value in get_peft_model_state_dict(pipe.unet).items()}
    pipe.unet.delete_adapters("default")
    return {f"unet.{key}": torch.randn(shape, generator=generator) * 0.2 for key, shape in sorted(shapes.items())}


def write_fixtures(pipe: StableDiffusionPipeline, folder: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    folder.mkdir(parents=True, exist_ok=True)
    lora = {f"lora.{key}": value for key, value in random_lora(pipe, generator).items()}
    steps, batch = 4, len(PROMPTS)
    latent_shape = (batch, 4, pipe.unet.config.sample_size, pipe.unet.config.sample_size)
    noise = {
        "latents": torch.randn(latent_shape, generator=generator),
        "noise": torch.randn((steps, *latent_shape), generator=generator),
    }
    sampling = {"prompts": PROMPTS, "num_inference_steps": steps, "guidance_scale": 5.0, "eta": 1.0}
    base = ddpo_reference.denoise(pipe, sampling, **noise)
    write_fixture(folder / "denoise.safetensors", "denoise", sampling, noise, base)
    ddpo_reference.set_lora(pipe.unet, {key.removeprefix("lora."): value for key, value in lora.items()})
    rollout = ddpo_reference.denoise(pipe, sampling, **noise)
    pipe.unet.delete_adapters("default")
    write_fixture(folder / "denoise_lora.safetensors", "denoise", sampling, noise | lora, rollout)

    inputs = lora | {
        "latents": rollout["latents"],
        # Moved a little, so that some ratios leave the clip range to either side.
        "log_probs": rollout["log_probs"] + 2e-3 * torch.randn((batch, steps), generator=generator),
        "advantages": torch.tensor([1.5, -0.7, 6.0, -2.0]),
        "timestep_order": torch.stack([torch.randperm(steps, generator=generator) for _ in range(batch)]),
    }
    training = sampling | {
        "clip_range": 1e-3,
        "adv_clip": 5.0,
        "learning_rate": 1e-3,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        # Far above the default: the first step moves an element by lr · g / (|g| + ε), and for an ε below the
        # rounding error of g the signs of noise would be compared.
        "adam_epsilon": 1e-4,
        "adam_weight_decay": 1e-4,
        "max_grad_norm": 0.5,
        "minibatch_size": 2,
    }
    for objective in ("ddpo_is", "ddpo_sf"):
        params = training | {"objective": objective}
        outputs = ddpo_reference.policy_gradient_step(pipe, params, inputs)
        path = folder / f"policy_gradient_step_{objective}.safetensors"
        write_fixture(path, "policy_gradient_step", params, inputs, outputs)
        # The whole batch in one minibatch: nothing is accumulated.
        params = params | {"minibatch_size": batch}
        outputs = ddpo_reference.policy_gradient_step(pipe, params, inputs)
        path = folder / f"policy_gradient_step_{objective}_whole.safetensors"
        write_fixture(path, "policy_gradient_step", params, inputs, outputs)
    write_rwr_fixtures(pipe, folder, training | {"prompts": PROMPTS}, lora)


def write_rwr_fixtures(
    pipe: StableDiffusionPipeline, folder: Path, params: dict[str, Any], lora: dict[str, torch.Tensor]
) -> None:
    """Dense and sparse weights of the same four images."""
    generator = torch.Generator().manual_seed(3)
    size = pipe.unet.config.sample_size
    pixels = size * pipe.vae_scale_factor
    rewards = torch.tensor([2.0, -7.0, 5.0, 0.5])
    inputs = lora | {
        "images": torch.randint(0, 256, (4, pixels, pixels, 3), generator=generator, dtype=torch.uint8),
        "timesteps": torch.tensor([999, 500, 37, 0]),
        "posterior_noise": torch.randn((4, 4, size, size), generator=generator),
        "noise": torch.randn((4, 4, size, size), generator=generator),
    }
    for name, weights in {
        "dense": ddpo_reference.rwr_weights(rewards),
        "sparse": ddpo_reference.sparse_rwr_weights(rewards, percentile=50),
    }.items():
        outputs = ddpo_reference.rwr_step(pipe, params, inputs | {"weights": weights})
        path = folder / f"rwr_step_{name}.safetensors"
        write_fixture(path, "rwr_step", params, inputs | {"weights": weights}, outputs)


def write_noise(path: Path) -> None:
    """What seeds 7 and 8 draw for a latent [4,4,4] and three steps."""
    drawn = []
    for seed in (7, 8):
        generator = torch.Generator().manual_seed(seed)
        drawn.append([torch.randn((1, 4, 4, 4), generator=generator) for _ in range(4)])
    outputs = {
        "latents": torch.cat([sample[0] for sample in drawn]),
        "noise": torch.stack([torch.cat([sample[step] for sample in drawn]) for step in (1, 2, 3)]),
    }
    write_fixture(path, "noise", {"seeds": [7, 8]}, {}, outputs)


def main() -> None:
    torch.set_num_threads(1)
    write_schedulers(GOLDENS / "schedulers")
    pipe = make_pipeline(GOLDENS / "pipelines" / "tiny")
    write_fixtures(pipe, GOLDENS / "pipelines" / "tiny_fixtures")
    write_noise(GOLDENS / "pipelines" / "tiny_fixtures" / "noise.safetensors")


if __name__ == "__main__":
    main()
