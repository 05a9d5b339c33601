"""DDPO in PyTorch on diffusers and peft, in the fewest words: what the C++ is held against.

Follows arXiv 2305.13301 and ddpo-pytorch. Float32 throughout. B samples, T denoising steps, latent [C,h,w].
"""

import math
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict

LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def encode_prompts(pipe: StableDiffusionPipeline, prompts: list[str]) -> torch.Tensor:
    """[B,L,D]."""
    ids = pipe.tokenizer(
        prompts,
        padding="max_length",
        max_length=pipe.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return pipe.text_encoder(ids)[0].detach()


def set_lora(unet: torch.nn.Module, tensors: dict[str, torch.Tensor], alpha: float | None = None) -> None:
    """Gives the UNet a LoRA from tensors under PEFT's keys (`unet.….lora_A.weight`)."""
    rank = next(value.shape[0] for key, value in tensors.items() if "lora_A" in key)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=alpha or rank, target_modules=LORA_TARGETS))
    set_peft_model_state_dict(unet, {key.removeprefix("unet."): value for key, value in tensors.items()})


def get_lora(unet: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {f"unet.{key}": value.detach().clone() for key, value in get_peft_model_state_dict(unet).items()}


def guided_noise(
    pipe: StableDiffusionPipeline,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    uncond: torch.Tensor,
    cond: torch.Tensor,
    guidance_scale: float,
) -> torch.Tensor:
    """ε_uncond + w (ε_cond − ε_uncond), one forward of [uncond, cond]; timesteps [B]."""
    both = pipe.unet(
        torch.cat([latents, latents]),
        torch.cat([timesteps, timesteps]),
        encoder_hidden_states=torch.cat([uncond, cond]),
    ).sample
    predicted_uncond, predicted_cond = both.chunk(2)
    return predicted_uncond + guidance_scale * (predicted_cond - predicted_uncond)


def ddim_distribution(
    scheduler: DDIMScheduler,
    sample: torch.Tensor,
    model_output: torch.Tensor,
    timesteps: torch.Tensor,
    num_inference_steps: int,
    eta: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [B,C,h,w] and standard deviation [B,1,1,1] of π(x_{t−1} | x_t); timesteps [B]."""
    prev_timesteps = (timesteps - scheduler.config.num_train_timesteps // num_inference_steps).clamp(min=0)
    alpha = scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    alpha_prev = scheduler.alphas_cumprod[prev_timesteps].view(-1, 1, 1, 1)
    if scheduler.config.prediction_type == "epsilon":
        original = (sample - (1 - alpha) ** 0.5 * model_output) / alpha**0.5
        noise = model_output
    elif scheduler.config.prediction_type == "v_prediction":
        original = alpha**0.5 * sample - (1 - alpha) ** 0.5 * model_output
        noise = alpha**0.5 * model_output + (1 - alpha) ** 0.5 * sample
    else:
        raise ValueError(f"prediction_type {scheduler.config.prediction_type}")
    std = eta * ((1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev)) ** 0.5
    mean = alpha_prev**0.5 * original + (1 - alpha_prev - std**2) ** 0.5 * noise
    return mean, std


def log_density(mean: torch.Tensor, std: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """[B]: the mean over a sample's elements of log N(value | mean, std²)."""
    elements = -((value - mean) ** 2) / (2 * std**2) - torch.log(std) - 0.5 * math.log(2 * math.pi)
    return elements.mean(dim=(1, 2, 3))


@torch.no_grad()
def denoise(
    pipe: StableDiffusionPipeline, params: dict[str, Any], latents: torch.Tensor, noise: torch.Tensor
) -> dict[str, torch.Tensor]:
    """x_T [B,C,h,w] and the steps' noise [T,B,C,h,w] to `latents` [B,T+1,…], `log_probs` [B,T] and `images`.

    params: prompts, num_inference_steps, guidance_scale, eta.
    """
    prompts, steps = params["prompts"], params["num_inference_steps"]
    uncond, cond = encode_prompts(pipe, [""] * len(prompts)), encode_prompts(pipe, prompts)
    pipe.scheduler.set_timesteps(steps)
    path, log_probs = [latents], []
    for z, t in zip(noise, pipe.scheduler.timesteps, strict=True):
        timesteps = t.repeat(len(prompts))
        predicted = guided_noise(pipe, path[-1], timesteps, uncond, cond, params["guidance_scale"])
        mean, std = ddim_distribution(pipe.scheduler, path[-1], predicted, timesteps, steps, params["eta"])
        path.append(mean + std * z)
        log_probs.append(log_density(mean, std, path[-1]))
    image = pipe.vae.decode(path[-1] / pipe.vae.config.scaling_factor).sample
    pixels = ((image / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return {
        "latents": torch.stack(path, dim=1),
        "log_probs": torch.stack(log_probs, dim=1),
        "images": pixels.permute(0, 2, 3, 1).contiguous(),
    }


def lora_optimizer(
    unet: torch.nn.Module, params: dict[str, Any], inputs: dict[str, torch.Tensor]
) -> tuple[list[torch.nn.Parameter], torch.optim.AdamW]:
    """Gives the UNet the LoRA of `inputs`, the only thing to be trained, and the AdamW of `params`."""
    lora = {key.removeprefix("lora."): value for key, value in inputs.items() if key.startswith("lora.")}
    unet.requires_grad_(False)
    set_lora(unet, lora, params.get("lora_alpha"))
    parameters = [p for name, p in sorted(unet.named_parameters()) if "lora_" in name]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=params["learning_rate"],
        betas=(params["adam_beta1"], params["adam_beta2"]),
        eps=params["adam_epsilon"],
        weight_decay=params["adam_weight_decay"],
    )
    return parameters, optimizer


def policy_gradient_step(
    pipe: StableDiffusionPipeline, params: dict[str, Any], inputs: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """One optimizer step over a whole batch: a fixture of kind `policy_gradient_step`.

    params: objective (ddpo_is, ddpo_sf), prompts, num_inference_steps, guidance_scale, eta, clip_range, adv_clip,
    learning_rate, adam_beta1, adam_beta2, adam_epsilon, adam_weight_decay, max_grad_norm, minibatch_size and, optionally,
    lora_alpha. inputs: latents [B,T+1,…], log_probs [B,T], advantages [B], timestep_order [B,J] and `lora.<peft key>`.
    Returns `lora.<peft key>`, loss, grad_norm, approx_kl and clip_fraction. The UNet is as before afterwards.
    """
    parameters, optimizer = lora_optimizer(pipe.unet, params, inputs)
    prompts, steps, size = params["prompts"], params["num_inference_steps"], params["minibatch_size"]
    pipe.scheduler.set_timesteps(steps)
    uncond, cond = encode_prompts(pipe, [""] * len(prompts)), encode_prompts(pipe, prompts)
    order = inputs["timestep_order"]
    minibatches = [range(begin, min(begin + size, len(prompts))) for begin in range(0, len(prompts), size)]
    losses, squared_log_ratios, clipped = [], [], []
    for rows in map(list, minibatches):
        advantages = inputs["advantages"][rows].clamp(-params["adv_clip"], params["adv_clip"])
        for column in range(order.shape[1]):
            step = order[rows, column]
            timesteps = pipe.scheduler.timesteps[step]
            x_t, x_prev = inputs["latents"][rows, step], inputs["latents"][rows, step + 1]
            predicted = guided_noise(pipe, x_t, timesteps, uncond[rows], cond[rows], params["guidance_scale"])
            mean, std = ddim_distribution(pipe.scheduler, x_t, predicted, timesteps, steps, params["eta"])
            log_prob = log_density(mean, std, x_prev)
            log_ratio = log_prob - inputs["log_probs"][rows, step]
            ratio = log_ratio.exp()
            if params["objective"] == "ddpo_is":
                limits = 1 - params["clip_range"], 1 + params["clip_range"]
                loss = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(*limits)).mean()
            elif params["objective"] == "ddpo_sf":
                loss = (-advantages * log_prob).mean()
            else:
                raise ValueError(f"objective {params['objective']}")
            (loss / (len(minibatches) * order.shape[1])).backward()
            losses.append(loss.detach())
            squared_log_ratios.append(log_ratio.detach().square().mean())
            clipped.append(((ratio.detach() - 1).abs() > params["clip_range"]).float().mean())
    grad_norm = torch.nn.utils.clip_grad_norm_(parameters, params["max_grad_norm"])
    optimizer.step()
    outputs = {f"lora.{key}": value for key, value in get_lora(pipe.unet).items()}
    outputs["loss"] = torch.stack(losses).mean()
    outputs["grad_norm"] = grad_norm.detach()
    outputs["approx_kl"] = 0.5 * torch.stack(squared_log_ratios).mean()
    outputs["clip_fraction"] = torch.stack(clipped).mean()
    pipe.unet.delete_adapters("default")
    return outputs


def rwr_weights(rewards: torch.Tensor, beta: float = 0.2) -> torch.Tensor:
    """[B]: softmax(β · reward) · B, as jannerm/ddpo, which multiplies by its temperature 1/5."""
    return torch.softmax(rewards * beta, dim=0) * len(rewards)


def sparse_rwr_weights(rewards: torch.Tensor, percentile: float = 90) -> torch.Tensor:
    """[B]: 1 for rewards of at least the percentile, 0 for the others."""
    return (rewards >= torch.quantile(rewards, percentile / 100)).float()


def rwr_step(
    pipe: StableDiffusionPipeline, params: dict[str, Any], inputs: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """One optimizer step over a whole batch: a fixture of kind `rwr_step`.

    params: prompts, guidance_scale, learning_rate, adam_beta1, adam_beta2, adam_epsilon, adam_weight_decay,
    max_grad_norm, minibatch_size and, optionally, lora_alpha. inputs: images [B,H,W,3] uint8, weights [B], timesteps
    [B] int64, posterior_noise and noise [B,C,h,w], and `lora.<peft key>`. The loss is the mean over the samples of
    weight · MSE(ε, guided prediction). Returns `lora.<peft key>`, loss and grad_norm. The UNet is as before afterwards.
    """
    parameters, optimizer = lora_optimizer(pipe.unet, params, inputs)
    prompts, size = params["prompts"], params["minibatch_size"]
    uncond, cond = encode_prompts(pipe, [""] * len(prompts)), encode_prompts(pipe, prompts)
    pixels = inputs["images"].permute(0, 3, 1, 2).float() / 255 * 2 - 1
    with torch.no_grad():
        posterior = pipe.vae.encode(pixels).latent_dist
    original = (posterior.mean + posterior.std * inputs["posterior_noise"]) * pipe.vae.config.scaling_factor
    noised = pipe.scheduler.add_noise(original, inputs["noise"], inputs["timesteps"])
    if pipe.scheduler.config.prediction_type == "v_prediction":
        target = pipe.scheduler.get_velocity(original, inputs["noise"], inputs["timesteps"])
    else:
        target = inputs["noise"]
    loss = torch.zeros(())
    for begin in range(0, len(prompts), size):
        rows = slice(begin, begin + size)
        predicted = guided_noise(
            pipe, noised[rows], inputs["timesteps"][rows], uncond[rows], cond[rows], params["guidance_scale"]
        )
        errors = ((predicted - target[rows]) ** 2).mean(dim=(1, 2, 3))
        part = (inputs["weights"][rows] * errors).sum() / len(prompts)
        part.backward()
        loss += part.detach()
    grad_norm = torch.nn.utils.clip_grad_norm_(parameters, params["max_grad_norm"])
    optimizer.step()
    outputs = {f"lora.{key}": value for key, value in get_lora(pipe.unet).items()}
    pipe.unet.delete_adapters("default")
    return outputs | {"loss": loss, "grad_norm": grad_norm.detach()}
