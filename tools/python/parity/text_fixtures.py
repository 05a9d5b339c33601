"""Expected values of kind `bertscore`, computed with bert-score, and of `tokenize` for folders in transformers'
layout."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from bert_score import score
from bert_score.utils import get_tokenizer, sent_encode
from transformers import CLIPTokenizer, PreTrainedTokenizerBase

from parity.fixture import Fixture

SENTENCES = [
    "a bear playing chess",
    "The image contains a bear playing chess",
    "The image shows two dogs, three horses and 12 monkeys.",
    "It's a zebra; they're rabbits, we've seen 1234567 of them!",
    "  Leading, trailing\tand   inner white space \n",
    "Ein Fähnchen weht – Äpfel. Straße ΣΊΣΥΦΟΣ İstanbul café café",
    "这是一只猫。 日本語のテキスト привет мир",
    "🐻♟️ bear emoji 👩‍🚀 family",
    "no-break\u00a0space, zero\u200bwidth, soft\u00adhyphen, ideographic\u3000space",
    "<note> chess Chess chessboard <note>x",
    "https://example.org/a_b?c=d&e=%20 user@example.org #tag $5.00 50% (a) [b] {c}",
    "don't can't I'll we'd 'quoted' \"double\" back`tick ''two''",
    "x" * 120,
    "?!?",
    " ".join(["the quick brown fox jumps over the lazy dog"] * 8),  # more tokens than fit
]
# Beside all neighbours of the list above: the same, an empty one on either side or both, and white space.
FURTHER_PAIRS = [
    ("a bear playing chess", "a bear playing chess"),
    ("", "a cat"),
    ("a cat", ""),
    ("", ""),
    ("   \n", "a cat"),
    ("?", "a cat riding a bike in the rain"),
]


def pairs() -> tuple[list[str], list[str]]:
    """Candidates and references."""
    neighbours = list(zip(SENTENCES, SENTENCES[1:] + SENTENCES[:1]))
    candidates, references = zip(*(neighbours + FURTHER_PAIRS))
    return list(candidates), list(references)


def bert_scores(folder: Path, layer: int, baseline: Path | None = None, batch_size: int = 64) -> dict[str, torch.Tensor]:
    candidates, references = pairs()
    precision, recall, f1 = score(
        candidates,
        references,
        model_type=str(folder),
        num_layers=layer,
        device="cpu",
        batch_size=batch_size,
        lang="en",
        rescale_with_baseline=baseline is not None,
        baseline_path=str(baseline) if baseline else None,
    )
    return {"precision": precision, "recall": recall, "f1": f1}


def padded(rows: list[list[int]], padding: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [padding] * (width - len(row)) for row in rows])


def sentence_tokens(folder: Path) -> Fixture:
    """As bert-score cuts sentences."""
    tokenizer = get_tokenizer(str(folder))
    rows = [sent_encode(tokenizer, sentence) for sentence in SENTENCES]
    return Fixture(
        "tokenize", "tokenize", {"prompts": SENTENCES}, {}, {"input_ids": padded(rows, tokenizer.pad_token_id)}
    )


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, **options) -> Fixture:
    """As the tokenizer itself cuts and pads them."""
    ids = tokenizer(SENTENCES, return_tensors="pt", **options).input_ids
    return Fixture("tokenize", "tokenize", {"prompts": SENTENCES}, {}, {"input_ids": ids})


def clip_tokens(folder: Path) -> Iterator[Fixture]:
    if (folder / "vocab.json").exists():
        tokenizer = CLIPTokenizer.from_pretrained(folder)
        yield prompt_tokens(tokenizer, padding="max_length", truncation=True)


@torch.no_grad()
def bert_fixtures(folder: Path) -> Iterator[Fixture]:
    """Every layer, and the last one rescaled where the folder has a baseline."""
    yield sentence_tokens(folder)
    candidates, references = pairs()
    params = {"candidates": candidates, "references": references}
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    for layer in range(layers + 1):
        scores = bert_scores(folder, layer)
        yield Fixture(f"bertscore_layer_{layer}", "bertscore", params | {"num_layers": layer}, {}, scores)
    baseline = folder / "baseline.tsv"
    if baseline.exists():
        scores = bert_scores(folder, layers, baseline)
        rescaled = params | {"num_layers": layers, "baseline": baseline.name}
        yield Fixture("bertscore_rescaled", "bertscore", rescaled, {}, scores)
