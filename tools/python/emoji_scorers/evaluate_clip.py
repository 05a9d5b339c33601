"""How well the CLIP's head follows its rule on held-out scenes, and how often the picture's own prompt
is the nearest of all single animals' prompts."""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTokenizer

from emoji_scorers.train_clip import PROJECTION, AestheticHead, head_r2
from emoji_scorers.vision import to_pixels
from emoji_sd.prompts import ANIMALS, animal_prompt


@torch.no_grad()
def retrieval(model, tokenizer, pictures, animals):
    prompts = [animal_prompt(animal) for animal in ANIMALS]
    tokens = tokenizer(prompts, padding="max_length", return_tensors="pt")
    texts = F.normalize(model.get_text_features(**tokens), dim=-1)
    images = F.normalize(model.get_image_features(to_pixels(pictures)), dim=-1)
    return ((images @ texts.T).argmax(1) == animals).float().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--work-dir", required=True, help="folder of held-out.pt")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = CLIPModel.from_pretrained(args.model, torch_dtype=torch.float32).eval()
    head = AestheticHead(PROJECTION).eval()
    head.load_state_dict(
        {k: v.float() for k, v in load_file(f"{args.model}/aesthetic_head.safetensors").items()}
    )
    held_out = torch.load(Path(args.work_dir) / "held-out.pt", weights_only=True)
    print(f"R² of the head against its rule: {head_r2(model, head, held_out['pictures']):.3f}")
    alone = (held_out["labels"][:, 1] == 0) & (held_out["labels"][:, 2] == 0)
    model.eval()
    share = retrieval(
        model,
        CLIPTokenizer.from_pretrained(args.model),
        held_out["pictures"][alone],
        held_out["labels"][alone, 0],
    )
    print(f"the right one of {len(ANIMALS)} animals: {100 * share:.1f} % of {alone.sum()}")


if __name__ == "__main__":
    main()
