"""Writes the golden files of CLIP's tokenizer and text encoder, computed with transformers.

    python tools/python/goldens/make_clip_goldens.py

Under tests/goldens/clip:
    multilingual/              a small tokenizer with merges inside letters of several bytes, whose pad token
                               is an ordinary character and which has an added token
    tokens_VOCABULARY.json     [{text, input_ids}] of CLIPTokenizer (without ftfy), for that tokenizer and
                               for emoji-sd's
    SHAPE/                     a tiny random CLIPTextModel as save_pretrained writes it, weights in fp16
    SHAPE.safetensors          fixture of kind text_encoder on it, computed in float32
"""

import importlib.util
import json
import sys
from pathlib import Path

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

ROOT = Path(__file__).resolve().parents[3]
GOLDENS = ROOT / "tests" / "goldens" / "clip"
sys.path.insert(0, str(ROOT / "tools" / "python"))

from parity.fixture import write_fixture  # noqa: E402
from reference import clip_bpe  # noqa: E402
from reference.tiny_models import randomize  # noqa: E402
from reference.tricky_texts import TEXTS  # noqa: E402

CORPUS = """a cat an ant the cat's café élan naïve Ünïcödé the dog isn't we've they'll größe straße кошка собака
γάτα ネコ ねこ 猫 犬 고양이 🐈 🐈 🐜 12 2024 !! ... &amp; &lt;"""
SHAPES = {
    # SD 1.x's.
    "quick_gelu": dict(
        hidden_act="quick_gelu",
        vocab_size=40,
        max_position_embeddings=9,
        hidden_size=16,
        intermediate_size=40,
        num_attention_heads=4,
        num_hidden_layers=3,
    ),
    # OpenCLIP's, with another epsilon.
    "gelu": dict(
        hidden_act="gelu",
        vocab_size=23,
        max_position_embeddings=6,
        hidden_size=24,
        intermediate_size=32,
        num_attention_heads=2,
        num_hidden_layers=2,
        layer_norm_eps=1e-3,
    ),
}


def write_tokens(name: str, tokenizer: CLIPTokenizer) -> None:
    ids = tokenizer(TEXTS, padding="max_length", truncation=True).input_ids
    rows = [json.dumps({"text": text, "input_ids": row}) for text, row in zip(TEXTS, ids, strict=True)]
    (GOLDENS / f"tokens_{name}.json").write_text("[\n" + ",\n".join(rows) + "\n]\n")


def write_text_encoder(name: str, config: dict, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = CLIPTextModel(CLIPTextConfig(**config, bos_token_id=0, eos_token_id=1, pad_token_id=1)).eval()
    randomize(model.requires_grad_(False), generator)
    model.half().save_pretrained(GOLDENS / name)
    model.float()
    shape = (3, config["max_position_embeddings"])
    ids = torch.randint(0, config["vocab_size"], shape, generator=generator)
    outputs = {"last_hidden_state": model(ids).last_hidden_state}
    write_fixture(GOLDENS / f"{name}.safetensors", "text_encoder", {}, {"input_ids": ids}, outputs)


def main() -> None:
    if importlib.util.find_spec("ftfy") is not None:
        sys.exit("ftfy is installed: CLIPTokenizer would clean texts in another way")
    torch.set_num_threads(1)
    merges = clip_bpe.learn_merges([CORPUS], limit=120)
    tokenizer = clip_bpe.write_tokenizer(GOLDENS / "multilingual", merges, model_max_length=48, pad_token="!")
    tokenizer.add_tokens(["<painting>"])
    tokenizer.save_pretrained(GOLDENS / "multilingual")
    write_tokens("multilingual", tokenizer)
    write_tokens("emoji_sd", CLIPTokenizer.from_pretrained(ROOT / "assets" / "models" / "emoji-sd" / "tokenizer"))
    for seed, (name, config) in enumerate(SHAPES.items()):
        write_text_encoder(name, config, seed)


if __name__ == "__main__":
    main()
