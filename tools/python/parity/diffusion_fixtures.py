"""Expected values of the diffusion kinds, computed with diffusers, transformers and peft in float32."""

import io
import math
from collections.abc import Iterator
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from peft import LoraConfig
from PIL import Image

from parity.fixture import Fixture
from reference import ddpo_reference as reference

PROMPTS = ["a cat", "an ant", "A  Bear playing chess!", "two cats' día, 42"]

# Epsilon is far above AdamW's default: the first step moves an element by lr · g / (|g| + ε), which for ε below the
# rounding error of g would compare the signs of noise.
OPTIMIZER_STEP = {
    "clip_range": 1e-4,
    "adv_clip": 5.0,
    "learning_rate": 3e-4,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-4,
    "adam_weight_decay": 1e-4,
    "max_grad_norm": 1.0,
    "minibatch_size": 2,
}


def tokenize(pipe: StableDiffusionPipeline, prompts: list[str]) -> torch.Tensor:
    return pipe.tokenizer(
        prompts,
        padding="max_length",
        max_length=pipe.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def random_lora(unet: torch.nn.Module, rank: int, seed: int) -> dict[str, torch.Tensor]:
    """A LoRA whose product is not zero, under PEFT's keys."""
    generator = torch.Generator().manual_seed(seed)
    unet.add_adapter(LoraConfig(r=rank, target_modules=reference.LORA_TARGETS))
    tensors = {
        key: torch.randn(value.shape, generator=generator) / (rank if "lora_A" in key else 20)
        for key, value in sorted(reference.get_lora(unet).items())
    }
    unet.delete_adapters("default")
    return tensors


def named_lora(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"lora.{key}": value for key, value in tensors.items()}


def ddim_step(scheduler: DDIMScheduler, model_output, t: int, sample, eta: float, noise):
    """diffusers' step with the noise given, and the log-probability of its Gaussian (SPEC.md)."""
    prev_sample = scheduler.step(model_output, t, sample, eta=eta, variance_noise=noise).prev_sample
    mean = scheduler.step(model_output, t, sample, eta=eta, variance_noise=torch.zeros_like(noise)).prev_sample
    prev_t = t - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    std = eta * math.sqrt(scheduler._get_variance(t, prev_t))
    log_prob = -((prev_sample - mean) ** 2) / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)
    return prev_sample, log_prob.mean(dim=(1, 2, 3))


def text_fixtures(pipe: StableDiffusionPipeline) -> Iterator[Fixture]:
    prompts = [*PROMPTS, "", "word " * 100, "café \U0001f408 x\t\ny"]
    yield Fixture("tokenize", "tokenize", {"prompts": prompts}, {}, {"input_ids": tokenize(pipe, prompts)})
    ids = tokenize(pipe, PROMPTS)
    yield Fixture(
        "text_encoder", "text_encoder", {}, {"input_ids": ids}, {"last_hidden_state": pipe.text_encoder(ids)[0]}
    )


def latent_shape(pipe: StableDiffusionPipeline, batch: int) -> tuple[int, int, int, int]:
    size = pipe.unet.config.sample_size
    return batch, pipe.unet.config.in_channels, size, size


def unet_inputs(pipe: StableDiffusionPipeline, generator: torch.Generator) -> dict[str, torch.Tensor]:
    return {
        "sample": torch.randn(latent_shape(pipe, 3), generator=generator),
        "timestep": torch.tensor([981, 501, 1]),
        "encoder_hidden_states": reference.encode_prompts(pipe, PROMPTS[:3]),
    }


def unet_fixture(pipe: StableDiffusionPipeline) -> Iterator[Fixture]:
    inputs = unet_inputs(pipe, torch.Generator().manual_seed(1))
    yield Fixture("unet", "unet", {}, inputs, {"sample": pipe.unet(**inputs).sample})


def vae_fixtures(pipe: StableDiffusionPipeline) -> Iterator[Fixture]:
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(latent_shape(pipe, 2), generator=generator)
    image = pipe.vae.decode(latents).sample
    yield Fixture("vae_decode", "vae_decode", {}, {"latents": latents}, {"image": image})
    image = torch.rand(image.shape, generator=generator) * 2 - 1
    posterior = pipe.vae.encode(image).latent_dist
    outputs = {"mean": posterior.mean, "logvar": posterior.logvar}
    yield Fixture("vae_encode", "vae_encode", {}, {"image": image}, outputs)


def ddim_fixtures(pipe: StableDiffusionPipeline) -> Iterator[Fixture]:
    generator = torch.Generator().manual_seed(3)
    pipe.scheduler.set_timesteps(50)
    for step_index, eta in [(0, 1.0), (25, 0.5), (49, 1.0)]:
        inputs = {
            name: torch.randn(latent_shape(pipe, 3), generator=generator)
            for name in ("sample", "model_output", "noise")
        }
        t = int(pipe.scheduler.timesteps[step_index])
        prev_sample, log_prob = ddim_step(
            pipe.scheduler, inputs["model_output"], t, inputs["sample"], eta, inputs["noise"]
        )
        params = {"num_inference_steps": 50, "step_index": step_index, "eta": eta}
        outputs = {"prev_sample": prev_sample, "log_prob": log_prob}
        yield Fixture(f"ddim_step_{step_index:02d}", "ddim_step", params, inputs, outputs)


def rollout_inputs(
    pipe: StableDiffusionPipeline, steps: int, seed: int
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Params and inputs of kind `denoise`."""
    params = {"prompts": PROMPTS[:3], "num_inference_steps": steps, "guidance_scale": 5.0, "eta": 1.0}
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(latent_shape(pipe, 3), generator=generator)
    return params, {"latents": latents, "noise": torch.randn((steps, *latents.shape), generator=generator)}


def denoise_fixtures(pipe: StableDiffusionPipeline) -> Iterator[Fixture]:
    params, inputs = rollout_inputs(pipe, steps=5, seed=4)
    yield Fixture("denoise", "denoise", params, inputs, reference.denoise(pipe, params, **inputs))
    lora = random_lora(pipe.unet, rank=4, seed=6)
    reference.set_lora(pipe.unet, lora)
    outputs = reference.denoise(pipe, params, **inputs)
    pipe.unet.delete_adapters("default")
    yield Fixture("denoise_lora", "denoise", params, inputs | named_lora(lora), outputs)


def lora_unet_fixture(pipe: StableDiffusionPipeline) -> Iterator[Fixture]:
    lora = random_lora(pipe.unet, rank=4, seed=6)
    inputs = unet_inputs(pipe, torch.Generator().manual_seed(5))
    reference.set_lora(pipe.unet, lora, alpha=8)
    outputs = {"sample": pipe.unet(**inputs).sample}
    pipe.unet.delete_adapters("default")
    yield Fixture("unet_lora", "unet", {"lora_alpha": 8}, inputs | named_lora(lora), outputs)


def policy_gradient_fixtures(pipe: StableDiffusionPipeline) -> Iterator[Fixture]:
    """The stored log-probabilities are moved a little, so that ratios lie on both sides of the clip range."""
    lora = random_lora(pipe.unet, rank=4, seed=8)
    sampling, noise = rollout_inputs(pipe, steps=4, seed=9)
    reference.set_lora(pipe.unet, lora)
    rollout = reference.denoise(pipe, sampling, **noise)
    pipe.unet.delete_adapters("default")
    generator = torch.Generator().manual_seed(10)
    inputs = named_lora(lora) | {
        "latents": rollout["latents"],
        "log_probs": rollout["log_probs"] + 2e-4 * torch.randn(3, 4, generator=generator),
        "advantages": torch.tensor([1.5, -0.7, 6.0]),
        "timestep_order": torch.stack([torch.randperm(4, generator=generator) for _ in range(3)]),
    }
    for objective in ("ddpo_is", "ddpo_sf"):
        params = sampling | OPTIMIZER_STEP | {"objective": objective}
        outputs = reference.policy_gradient_step(pipe, params, inputs)
        yield Fixture(f"policy_gradient_step_{objective}", "policy_gradient_step", params, inputs, outputs)
        params = params | {"minibatch_size": len(params["prompts"])}
        outputs = reference.policy_gradient_step(pipe, params, inputs)
        yield Fixture(f"policy_gradient_step_{objective}_whole", "policy_gradient_step", params, inputs, outputs)


def rwr_fixtures(pipe: StableDiffusionPipeline) -> Iterator[Fixture]:
    generator = torch.Generator().manual_seed(11)
    shape = latent_shape(pipe, 3)
    pixels = shape[-1] * pipe.vae_scale_factor
    inputs = named_lora(random_lora(pipe.unet, rank=4, seed=12)) | {
        "images": torch.randint(0, 256, (3, pixels, pixels, 3), generator=generator, dtype=torch.uint8),
        "timesteps": torch.tensor([900, 250, 3]),
        "posterior_noise": torch.randn(shape, generator=generator),
        "noise": torch.randn(shape, generator=generator),
    }
    params = OPTIMIZER_STEP | {"prompts": PROMPTS[:3], "guidance_scale": 5.0}
    rewards = torch.tensor([3.0, -4.0, 1.0])
    for name, weights in {
        "dense": reference.rwr_weights(rewards),
        "sparse": reference.sparse_rwr_weights(rewards, percentile=60),
    }.items():
        outputs = reference.rwr_step(pipe, params, inputs | {"weights": weights})
        yield Fixture(f"rwr_step_{name}", "rwr_step", params, inputs | {"weights": weights}, outputs)


def jpeg_fixture(_: StableDiffusionPipeline) -> Iterator[Fixture]:
    generator = torch.Generator().manual_seed(7)
    noise = torch.randint(0, 256, (1, 40, 56, 3), generator=generator, dtype=torch.uint8)
    ramp = torch.arange(40 * 56 * 3).reshape(1, 40, 56, 3).div(7).remainder(256).to(torch.uint8)
    images = torch.cat([noise, ramp, torch.full_like(noise, 128)])
    for quality in (75, 95):
        sizes = []
        for image in images.numpy():
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG", quality=quality)
            sizes.append(buffer.tell())
        params = {"quality": quality}
        yield Fixture(f"jpeg_size_{quality}", "jpeg_size", params, {"images": images}, {"bytes": torch.tensor(sizes)})
