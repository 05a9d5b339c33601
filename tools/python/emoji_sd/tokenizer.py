"""A byte-pair vocabulary of the CLIP kind, learned from the prompts until each word is a token.

The order of the vocabulary is CLIP's: 256 bytes, the same with the end-of-word mark, one token a
merge, then the two special tokens.
"""

import json
from collections import Counter
from pathlib import Path

from transformers import CLIPTokenizer
from transformers.models.clip.tokenization_clip import bytes_to_unicode

from emoji_sd.prompts import all_prompts

END_OF_WORD = "</w>"
START_OF_TEXT, END_OF_TEXT = "<|startoftext|>", "<|endoftext|>"
MAX_LENGTH = 16


def learn_merges(texts):
    """Merges the most frequent pair (the first in alphabetical order among equals), until no pair
    is left: Sennrich et al., arXiv 1508.07909, section 3.2."""
    words = Counter(word for text in texts for word in text.split())
    spelled = {word: (*word[:-1], word[-1] + END_OF_WORD) for word in words}
    merges = []
    while True:
        pairs = Counter()
        for word, symbols in spelled.items():
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += words[word]
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = {word: _merge(symbols, best) for word, symbols in spelled.items()}


def _merge(symbols, pair):
    merged, i = [], 0
    while i < len(symbols):
        if symbols[i : i + 2] == pair:
            merged.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            merged.append(symbols[i])
            i += 1
    return tuple(merged)


def make_tokenizer(folder):
    """Writes vocab.json and merges.txt into `folder`; returns the CLIPTokenizer that reads them."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    merges = learn_merges(all_prompts())
    letters = list(bytes_to_unicode().values())
    tokens = letters + [letter + END_OF_WORD for letter in letters]
    tokens += [first + second for first, second in merges]
    tokens += [START_OF_TEXT, END_OF_TEXT]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2"] + [f"{first} {second}" for first, second in merges]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        unk_token=END_OF_TEXT,
        bos_token=START_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=MAX_LENGTH,
    )


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
