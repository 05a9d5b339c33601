"""The tokenizer of emoji-sd: a vocabulary learned from the prompts until each word is a token."""

from pathlib import Path

from emoji_sd.prompts import all_prompts
from reference import clip_bpe

MAX_LENGTH = 16


def make_tokenizer(folder):
    """Writes vocab.json and merges.txt into `folder`; returns the CLIPTokenizer that reads them."""
    return clip_bpe.write_tokenizer(Path(folder), clip_bpe.learn_merges(all_prompts()), MAX_LENGTH)


def token_ids(tokenizer, texts):
    """int64 (n, MAX_LENGTH), padded as StableDiffusionPipeline pads."""
    encoded = tokenizer(
        texts,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    return encoded.input_ids
