"""Byte-pair vocabularies of the CLIP kind, learned from a few texts.

The order of the vocabulary is CLIP's: 256 bytes, the same with the end-of-word mark, one token a
merge, then the two special tokens.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from transformers import CLIPTokenizer
from transformers.models.clip.tokenization_clip import bytes_to_unicode

END_OF_WORD = "</w>"
START_OF_TEXT, END_OF_TEXT = "<|startoftext|>", "<|endoftext|>"


def learn_merges(texts: Iterable[str], limit: int | None = None) -> list[tuple[str, str]]:
    """Merges the most frequent pair (the first in alphabetical order among equals), until no pair
    is left or `limit` is reached: Sennrich et al., arXiv 1508.07909, section 3.2."""
    characters = bytes_to_unicode()
    words = Counter(word for text in texts for word in text.split())
    spelled = {}
    for word in words:
        symbols = [characters[byte] for byte in word.encode()]
        spelled[word] = (*symbols[:-1], symbols[-1] + END_OF_WORD)
    merges: list[tuple[str, str]] = []
    while limit is None or len(merges) < limit:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, symbols in spelled.items():
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = {word: _merge(symbols, best) for word, symbols in spelled.items()}
    return merges


def _merge(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged, i = [], 0
    while i < len(symbols):
        if symbols[i : i + 2] == pair:
            merged.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            merged.append(symbols[i])
            i += 1
    return tuple(merged)


def write_tokenizer(
    folder: Path, merges: list[tuple[str, str]], model_max_length: int, pad_token: str = END_OF_TEXT
) -> CLIPTokenizer:
    """Writes vocab.json and merges.txt into `folder`; returns the CLIPTokenizer that reads them."""
    folder.mkdir(parents=True, exist_ok=True)
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
        pad_token=pad_token,
        model_max_length=model_max_length,
    )
