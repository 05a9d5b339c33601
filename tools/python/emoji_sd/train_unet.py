"""Trains the UNet and the text encoder together on the encoded pool, with an average of both."""

import argparse
import copy
import time
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel

from emoji_sd import checkpoint
from emoji_sd.networks import make_scheduler, make_text_encoder, make_unet
from emoji_sd.prompts import all_prompts
from emoji_sd.schedule import learning_rate
from emoji_sd.tokenizer import make_tokenizer, token_ids


def draw_timesteps(count):
    """Half on the grid of ten sampling steps, a quarter on that of twenty, a quarter anywhere."""
    on_ten = torch.randint(10, (count,)) * 100 + 1
    on_twenty = torch.randint(20, (count,)) * 50 + 1
    share = torch.rand(count)
    rest = torch.where(share < 0.75, on_twenty, torch.randint(1000, (count,)))
    return torch.where(share < 0.5, on_ten, rest)


def loss_weights(alphas_cumprod, timesteps):
    """SNR^(-1/2) within [0.3, 4]. A loss on the noise alone counts the first, noisiest steps too
    little for sampling in ten steps: there an error of the noise is an error of the image
    1/sqrt(SNR) times as large."""
    alpha = alphas_cumprod[timesteps]
    return ((1 - alpha) / alpha).sqrt().clamp(0.3, 4.0)


class Average:
    """Exponential moving average of a module's parameters, shorter in the first steps."""

    def __init__(self, module, decay):
        self.module = copy.deepcopy(module).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, module, step):
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self.module.parameters()), list(module.parameters()), 1 - decay
        )


def make_model(tokenizer, init_from):
    """UNet and text encoder: untrained, or the weights of the pipeline in the folder `init_from`."""
    unet, text_encoder = make_unet(), make_text_encoder(tokenizer)
    if init_from:
        for part, loaded in (
            (unet, UNet2DConditionModel.from_pretrained(init_from, subfolder="unet")),
            (text_encoder, CLIPTextModel.from_pretrained(init_from, subfolder="text_encoder")),
        ):
            part.load_state_dict(loaded.state_dict())
    return torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})


def train(args):
    torch.manual_seed(args.seed)
    work_dir = Path(args.work_dir)
    pool = torch.load(work_dir / "latents.pt", weights_only=True)
    tokenizer = make_tokenizer(work_dir / "tokenizer")
    prompts = token_ids(tokenizer, all_prompts() + [""])
    no_prompt = len(prompts) - 1
    alphas_cumprod = make_scheduler().alphas_cumprod

    model = make_model(tokenizer, args.init_from)
    average = Average(model, args.ema_decay)
    optimizer = torch.optim.AdamW(
        model.parameters(), args.learning_rate, (0.9, 0.99), weight_decay=0.01, fused=True
    )
    path = work_dir / "unet.pt"
    seconds, step = checkpoint.resume(
        path, model=model, average=average.module, optimizer=optimizer
    )
    model["unet"].set_attn_processor(AttnProcessor())  # its backward is faster here than SDPA's
    model["unet"].to(memory_format=torch.channels_last)  # faster on CPUs
    unet = torch.compile(model["unet"]) if args.compile else model["unet"]

    budget = args.minutes * 60
    started = saved = time.monotonic() - seconds
    running = 0.0
    while (seconds := time.monotonic() - started) < budget:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(seconds / budget, args.learning_rate)
        index = torch.randint(len(pool["mean"]), (args.batch,))
        mean, deviation = pool["mean"][index].float(), pool["std"][index].float()
        latents = (mean + deviation * torch.randn_like(mean)) * pool["scaling_factor"]
        labels = pool["labels"][index]
        labels = torch.where(torch.rand(args.batch) < args.prompt_dropout, no_prompt, labels)

        timesteps = draw_timesteps(args.batch)
        alpha = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noise = torch.randn_like(latents)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            texts = model["text_encoder"](prompts[labels]).last_hidden_state
            predicted = unet(noisy, timesteps, texts).sample
        error = (predicted.float() - noise).square().mean((1, 2, 3))
        loss = (loss_weights(alphas_cumprod, timesteps) * error).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        average.update(model, step)
        running += (loss.item() - running) / min(step, 200)
        if step % 200 == 0:
            print(f"{seconds:6.0f} s  step {step}  loss {running:.4f}", flush=True)
        if time.monotonic() - saved > args.save_every:
            saved = time.monotonic()
            checkpoint.save(
                path, seconds, step, model=model, average=average.module, optimizer=optimizer
            )
    checkpoint.save(path, seconds, step, model=model, average=average.module, optimizer=optimizer)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", required=True, help="folder with latents.pt; gets unet.pt")
    parser.add_argument("--init-from", help="a pipeline's folder, whose weights to begin from")
    parser.add_argument("--minutes", type=float, default=60, help="in all, earlier runs included")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--prompt-dropout", type=float, default=0.12)
    parser.add_argument("--ema-decay", type=float, default=0.999)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast, for CPUs with AMX")
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler")
    parser.add_argument("--save-every", type=float, default=120, help="seconds")
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args)


if __name__ == "__main__":
    main()
