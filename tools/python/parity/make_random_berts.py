"""Makes BERT, RoBERTa and DeBERTa encoders with random weights, in shapes that exercise the loader.

    python make_random_berts.py OUT_DIR

Writes OUT_DIR/{bert,bert_cased,roberta,deberta,deberta_absolute}, each with the files of its slow tokenizer:
    bert              lower case; float32 under the prefix of a model with a head, with the old names of norms; the
                      others are fp16 where nothing else is said
    bert_cased        accents and case kept, ideographs not split; another activation
    roberta           byte-level BPE; positions that start after the padding's number; a token with white space of
                      its own; several files
    deberta           as deberta-xlarge-mnli: both kinds of relative attention and no absolute positions
    deberta_absolute  one kind, over few offsets; absolute positions; token types; embeddings of another width; bf16
"""

import json
import re
import sys
from pathlib import Path

import torch
from tokenizers import AddedToken, ByteLevelBPETokenizer, normalizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
    DebertaConfig,
    DebertaForSequenceClassification,
    DebertaModel,
    DebertaTokenizer,
    PreTrainedTokenizer,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaTokenizer,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from parity.make_random_llavas import CORPUS, write_weights  # noqa: E402
from reference.tiny_models import make_all, randomize  # noqa: E402

MAX_LENGTH = 40  # of a sentence, in tokens
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]

# One model a line of the table.
SHAPES = {
    "bert": dict(
        model=BertForSequenceClassification,
        config=BertConfig(
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=MAX_LENGTH,
        ),
        dtype=torch.float32,
    ),
    "bert_cased": dict(
        model=BertModel,
        config=BertConfig(
            hidden_size=36,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=40,
            max_position_embeddings=MAX_LENGTH + 7,
            hidden_act="gelu_new",
            type_vocab_size=1,
            layer_norm_eps=1e-3,
        ),
        dtype=torch.float16,
    ),
    "roberta": dict(
        model=RobertaForMaskedLM,
        config=RobertaConfig(
            hidden_size=40,
            num_hidden_layers=3,
            num_attention_heads=5,
            intermediate_size=64,
            max_position_embeddings=MAX_LENGTH + 2,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
        ),
        dtype=torch.float16,
    ),
    "deberta": dict(
        model=DebertaForSequenceClassification,
        config=DebertaConfig(
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=MAX_LENGTH,
            relative_attention=True,
            max_relative_positions=-1,
            position_biased_input=False,
            pos_att_type="c2p|p2c",
            type_vocab_size=0,
        ),
        dtype=torch.float16,
    ),
    "deberta_absolute": dict(
        model=DebertaModel,
        config=DebertaConfig(
            hidden_size=36,
            embedding_size=20,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=44,
            max_position_embeddings=MAX_LENGTH,
            relative_attention=True,
            max_relative_positions=6,
            position_biased_input=True,
            pos_att_type=["p2c"],
            type_vocab_size=2,
        ),
        dtype=torch.bfloat16,
    ),
}


def word_piece(folder: Path, *, lower_case: bool, **options) -> PreTrainedTokenizer:
    """Its vocabulary: letters, most words and some of their ends. (A trainer's depends on the order of a hash map.)"""
    normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    words = {word for line in CORPUS for word in re.findall(r"\w+|[^\w\s]", normalizer.normalize_str(line))}
    letters = {letter for word in words for letter in word}
    ends = {f"##{word[-size:]}" for word in words for size in (2, 3) if len(word) > size}
    tokens = sorted(letters | {f"##{letter}" for letter in letters} | ends | set(sorted(words)[::2]))
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in BERT_SPECIAL + tokens))
    return BertTokenizer(
        str(folder / "vocab.txt"), do_lower_case=lower_case, model_max_length=MAX_LENGTH, **options
    )


def byte_level(folder: Path, special_tokens: list[str]) -> tuple[str, str]:
    """The paths of vocab.json and merges.txt."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(CORPUS, vocab_size=340, min_frequency=1, special_tokens=special_tokens, show_progress=False)
    return tuple(tokenizer.save_model(str(folder)))


def make_tokenizer(name: str, folder: Path) -> PreTrainedTokenizer:
    if name == "bert":
        tokenizer = word_piece(folder, lower_case=True)
        tokenizer.add_tokens([AddedToken("Chess", single_word=True, normalized=True), "<note>"])
        return tokenizer
    if name == "bert_cased":
        return word_piece(folder, lower_case=False, tokenize_chinese_chars=False, strip_accents=False)
    if name == "roberta":
        tokenizer = RobertaTokenizer(*byte_level(folder, ROBERTA_SPECIAL), model_max_length=MAX_LENGTH)
        tokenizer.add_tokens([AddedToken("<note>", lstrip=True, rstrip=True)])
        return tokenizer
    return DebertaTokenizer(*byte_level(folder, BERT_SPECIAL), model_max_length=MAX_LENGTH)


def keep_tokens_apart(model: torch.nn.Module) -> None:
    """Random layers add to all tokens of a sentence much the same, so that their cosines would all be 1: attention
    is made sharper, and what a layer adds, smaller."""
    for name, parameter in model.named_parameters():
        if re.search(r"(query|key|in_proj|pos_proj|pos_q_proj)\.weight$", name):
            parameter.mul_(2)
        elif "output.dense" in name or name.endswith("bias"):
            parameter.mul_(0.5)


def stored_key(name: str, key: str) -> str:
    if name == "bert":
        return key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return key


def make_bert(name: str, out: Path) -> Path:
    """Makes the model of this shape in out/name."""
    shape = SHAPES[name]
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(name, folder)
    tokenizer.save_pretrained(folder)
    config = shape["config"]
    config.vocab_size = len(tokenizer) + 3
    config.pad_token_id = tokenizer.pad_token_id
    model = shape["model"](config)
    randomize(model.requires_grad_(False), torch.Generator().manual_seed(70 + list(SHAPES).index(name)))
    keep_tokens_apart(model)
    model.config.torch_dtype = shape["dtype"]
    model.config.save_pretrained(folder)
    tensors = {stored_key(name, key): value for key, value in model.state_dict().items()}
    # What the weight is tied to is stored once, as save_pretrained does.
    tensors.pop("lm_head.decoder.weight", None)
    tensors.pop("lm_head.decoder.bias", None)
    tensors = {
        key: value.to(shape["dtype"]).contiguous() if value.is_floating_point() else value
        for key, value in tensors.items()
    }
    write_weights(folder, tensors, shards=2 if name == "roberta" else 1)
    write_baseline(folder, layers=config.num_hidden_layers)
    return folder


def write_baseline(folder: Path, layers: int) -> None:
    """In the layout of bert-score's own files, with made-up numbers."""
    lines = ["LAYER,P,R,F"]
    lines += [f"{i},{0.11 + 0.07 * i:.6f},{0.13 + 0.05 * i:.6f},{0.12 + 0.06 * i:.6f}" for i in range(layers + 1)]
    (folder / "baseline.tsv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    make_all(__doc__, SHAPES, make_bert)
