"""Writes the golden files of the text encoders and of BERTScore, computed with transformers and bert-score.

    python tools/python/goldens/make_bert_goldens.py

Under tests/goldens/bert:
    SHAPE/                  a tiny random encoder (make_random_berts.py)
    SHAPE.safetensors       in.input_ids, in.is_token, rows filled up on the right; out.hidden_states.N
    SHAPE_tokens.json       [{text, input_ids}] of bert-score's sent_encode
    SHAPE_KIND.safetensors  fixtures of `ddpo parity`
"""

import json
import sys
from pathlib import Path

import torch
from bert_score.utils import get_tokenizer, sent_encode
from transformers import AutoModel

ROOT = Path(__file__).resolve().parents[3]
GOLDENS = ROOT / "tests" / "goldens" / "bert"
sys.path.insert(0, str(ROOT / "tools" / "python"))

from parity.fixture import write_fixture  # noqa: E402
from parity.make_random_berts import SHAPES, make_bert  # noqa: E402
from parity.text_fixtures import SENTENCES, bert_fixtures  # noqa: E402
from reference.tricky_texts import TEXTS  # noqa: E402

SPELT_OUT = [
    "a [CLS] b [SEP] c [MASK] d [PAD] [UNK]",
    "[SEP]",
    "<s>a</s> <mask> b<mask>c <pad> <unk>",
    "<note>chess</note>  <note>  Chess chess,chess chessboard Chess",
    "[mask] [Mask] <MASK>",
]


@torch.no_grad()
def write_encoder(name: str) -> None:
    folder = make_bert(name, GOLDENS)
    for extra in ("vocab.txt", "vocab.json", "merges.txt"):
        assert not (folder / extra).exists() or (folder / extra).stat().st_size < 10_000
    tokenizer = get_tokenizer(str(folder))
    model = AutoModel.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="eager").eval()
    rows = [sent_encode(tokenizer, sentence) for sentence in (SENTENCES[2], SENTENCES[0], "")]
    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    is_token = torch.tensor([[i < len(row) for i in range(width)] for row in rows])
    hidden = model(input_ids=ids, attention_mask=is_token.long(), output_hidden_states=True).hidden_states
    # What stands where there is no token has no meaning.
    outputs = {f"hidden_states.{i}": state * is_token[..., None] for i, state in enumerate(hidden)}
    write_fixture(
        GOLDENS / f"{name}.safetensors", "hidden_states", {}, {"input_ids": ids, "is_token": is_token}, outputs
    )
    tokens = [{"text": text, "input_ids": sent_encode(tokenizer, text)} for text in TEXTS + SENTENCES + SPELT_OUT]
    (GOLDENS / f"{name}_tokens.json").write_text(json.dumps(tokens, ensure_ascii=True, separators=(",", ":")) + "\n")
    wanted = {f"bertscore_layer_{len(hidden) - 1}", "bertscore_rescaled"}
    if name == "bert":
        wanted.add("tokenize")
    for fixture in bert_fixtures(folder):
        if fixture.name in wanted:
            fixture.name = f"{name}_{fixture.name.replace(f'_layer_{len(hidden) - 1}', '')}"
            fixture.write(GOLDENS)


def main() -> None:
    torch.set_num_threads(1)
    for name in SHAPES:
        write_encoder(name)


if __name__ == "__main__":
    main()
