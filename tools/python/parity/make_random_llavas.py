"""Makes LLaVA-1.5 models with random weights, in shapes that exercise the loader.

    python make_random_llavas.py OUT_DIR

Writes OUT_DIR/{grouped,half,tied,sentencepiece}:
    grouped   grouped-query attention; a SentencePiece-like tokenizer.json; chat_template.json; the
              weights under the keys of transformers before 4.52
    half      fp16 in several files under the keys since 4.52; a byte-level tokenizer.json as Llama 3's;
              chat_template.jinja; Llama 3's stretched rotary positions; biases
    tied      the output layer is the embedding; several feature layers with the class token; no chat
              template; bf16; a tokenizer.json with Metaspace
    sentencepiece
              a tokenizer.model alone; fp16 under the keys of transformers before 4.52; images padded to squares
"""

import io
import json
import re
import sys
from collections import Counter
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaTokenizer,
    LlamaTokenizerFast,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from parity.make_random_clips import processor_config  # noqa: E402
from reference.tiny_models import make_all, randomize  # noqa: E402

CORPUS = """a bear playing chess. washing the dishes! riding a bike? USER: ASSISTANT: How many cats are there in
this image? What animal is in this image? The image shows two dogs, three horses and 12 monkeys. Answer concisely:
what is going on in this image? It's a zebra; they're rabbits, we've seen 1234567 of them. def main():\n    return
Ein Fähnchen weht – Äpfel. 这是一只猫。 日本語のテキスト привет мир 🐻♟️""".splitlines()
# llava-hf/llava-1.5-7b-hf's.
LLAVA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# In the manner of Llama 3's, with the white space that a file of its own has.
HEADER_TEMPLATE = """{{- bos_token }}
{%- set system = 'Look closely.' %}
{%- for message in messages %}
    {%- if loop.first and system is defined %}
        {{- '<|start|>system<|end|>\n\n' + system | trim + '<|eot|>' }}
    {%- endif %}
    {%- if message.content is string %}
        {{- message.content }}
    {%- elif not (message.role == 'assistant' or message.role in ['tool']) %}
        {{- '<|start|>' + message['role'] + '<|end|>' }}
        {% for part in message.content %}
            {%- if part.type == 'image' %}<image>{% else %}{{ part['text'] | trim }}{% endif %}

        {% endfor %}
        {{- '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant<|end|>' }}
{%- endif %}
"""
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)

# One model a line of the table.
SHAPES = {
    "grouped": dict(
        vision=dict(
            image_size=32,
            patch_size=8,
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
        ),
        text=dict(
            hidden_size=64,
            intermediate_size=112,
            num_hidden_layers=3,
            num_attention_heads=8,
            num_key_value_heads=2,
            rope_theta=500000.0,
            rms_norm_eps=1e-5,
        ),
        llava={},
        processor=dict(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        dtype=torch.float32,
    ),
    "half": dict(
        vision=dict(
            image_size=30,
            patch_size=7,
            hidden_size=36,
            intermediate_size=50,
            num_hidden_layers=4,
            num_attention_heads=3,
            hidden_act="gelu",
        ),
        text=dict(
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=2,
            num_attention_heads=4,
            head_dim=16,
            attention_bias=True,
            mlp_bias=True,
            rope_scaling={
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        ),
        llava=dict(vision_feature_layer=-1, projector_hidden_act="gelu_pytorch_tanh"),
        processor=dict(size=34, crop_size=30, image_mean=[0.5, 0.4, 0.6], image_std=[0.5, 0.25, 0.3]),
        dtype=torch.float16,
    ),
    "tied": dict(
        vision=dict(
            image_size=20,
            patch_size=5,
            hidden_size=24,
            intermediate_size=60,
            num_hidden_layers=3,
            num_attention_heads=2,
        ),
        text=dict(
            hidden_size=40,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            rope_scaling={"type": "linear", "factor": 2.0},
            tie_word_embeddings=True,
        ),
        llava=dict(
            vision_feature_layer=[-3, 1, -1], vision_feature_select_strategy="full", multimodal_projector_bias=False
        ),
        processor=dict(size={"height": 20, "width": 20}, do_center_crop=True, crop_size={"height": 20, "width": 20}),
        dtype=torch.bfloat16,
    ),
    "sentencepiece": dict(
        vision=dict(
            image_size=24,
            patch_size=8,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=3,
            num_attention_heads=3,
        ),
        text=dict(
            hidden_size=40,
            intermediate_size=56,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
        ),
        llava={},
        processor=dict(
            image_processor_type="LlavaImageProcessor",
            do_pad=True,
            do_center_crop=False,
            size={"height": 24, "width": 24},
        ),
        dtype=torch.float16,
    ),
}


def with_frequent_letters(count: int) -> list[str]:
    """The corpus without all but so many kinds of letters: a trainer's own limit takes one or another of those that
    are equally frequent."""
    counts = Counter("".join(CORPUS))
    rare = sorted(counts, key=lambda letter: (-counts[letter], letter))[count:]
    return [line.translate({ord(letter): None for letter in rare}) for line in CORPUS]


def special(content: str) -> AddedToken:
    return AddedToken(content, normalized=False, special=True)


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """As transformers converts LLaMA's tokenizer.model: byte fallback, and spaces as ▁."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<unk>", "<s>", "</s>"] + byte_tokens, show_progress=False
    )
    tokenizer.train_from_iterator(with_frequent_letters(60), trainer)
    state = json.loads(tokenizer.to_str())
    # The bytes are pieces of the model, not tokens to look for in a text.
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in byte_tokens]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([special("<image>"), special("<pad>")])
    return LlamaTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", padding_side="left")


def byte_level() -> PreTrainedTokenizerFast:
    """As Llama 3's."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([special(t) for t in ("<|begin|>", "<|eot|>", "<|start|>", "<|end|>", "<image>")])
    tokenizer.add_tokens([AddedToken("chess", single_word=True), AddedToken("<note>", lstrip=True, rstrip=True)])
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<|begin|> $A",
                pair="<|begin|> $A <|begin|> $B",
                special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))],
            ),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|eot|>", clean_up_tokenization_spaces=True
    )


def metaspace() -> PreTrainedTokenizerFast:
    """As newer conversions: the ▁ comes from the pre-tokenizer, before the first word only."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"] + byte_tokens, show_progress=False
    )
    tokenizer.train_from_iterator(with_frequent_letters(50), trainer)
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in byte_tokens]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([special("<image>")])
    return LlamaTokenizerFast(tokenizer_object=tokenizer, legacy=False, pad_token="</s>", padding_side="left")


def sentencepiece_model(vocabulary: int = 420) -> bytes:
    """A tokenizer.model as LLaMA's."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocabulary,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        character_coverage=0.98,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def slow_llama(folder: Path, **options) -> LlamaTokenizer:
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    tokenizer = LlamaTokenizer(str(folder / "tokenizer.model"), padding_side="left", **options)
    tokenizer.add_special_tokens({"additional_special_tokens": [special("<image>")], "pad_token": special("<pad>")})
    return tokenizer


TOKENIZERS = {
    "grouped": lambda folder: sentencepiece_like(),
    "half": lambda folder: byte_level(),
    "tied": lambda folder: metaspace(),
    "sentencepiece": lambda folder: slow_llama(folder, legacy=False),
}


def make_tokenizer(name: str, folder: Path) -> PreTrainedTokenizerBase:
    tokenizer = TOKENIZERS[name](folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def old_key(key: str) -> str:
    """The key of transformers before 4.52."""
    key = re.sub(r"^lm_head", "language_model.lm_head", key)
    key = re.sub(r"^model\.language_model\.", "language_model.model.", key)
    return re.sub(r"^model\.(vision_tower|multi_modal_projector)", r"\1", key)


def write_weights(folder: Path, tensors: dict[str, torch.Tensor], shards: int) -> None:
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    keys = sorted(tensors)
    weight_map = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {key: tensors[key] for key in keys[shard::shards]}
        save_file(part, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def make_llava(name: str, out: Path) -> Path:
    """Makes the model of this shape in out/name."""
    shape = SHAPES[name]
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(name, folder)
    vocabulary = len(tokenizer) + 3  # a few rows more than tokens, as in the released models
    ends = [tokenizer.eos_token_id, *range(300, 312)]  # often enough that some replies end early
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**shape["vision"]),
        text_config=LlamaConfig(
            vocab_size=vocabulary, bos_token_id=tokenizer.bos_token_id, eos_token_id=ends, **shape["text"]
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        **shape["llava"],
    )
    model = LlavaForConditionalGeneration(config)
    randomize(model.requires_grad_(False), torch.Generator().manual_seed(50 + list(SHAPES).index(name)))
    model.tie_weights()
    # Wide enough apart that rounding does not choose the token.
    model.get_output_embeddings().weight.mul_(4)
    model.config.torch_dtype = shape["dtype"]
    model.config.save_pretrained(folder)
    model.generation_config.eos_token_id = ends
    model.generation_config.save_pretrained(folder)
    tensors = {key: value.to(shape["dtype"]).contiguous() for key, value in model.state_dict().items()}
    if config.text_config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    if name in ("grouped", "sentencepiece"):
        tensors = {old_key(key): value for key, value in tensors.items()}
    if name == "grouped":
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": LLAVA_TEMPLATE}, indent=2) + "\n")
    if name == "half":
        (folder / "chat_template.jinja").write_text(HEADER_TEMPLATE)
    write_weights(folder, tensors, shards=3 if name == "half" else 1)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor_config(shape["processor"]), indent=2) + "\n")
    return folder


if __name__ == "__main__":
    make_all(__doc__, SHAPES, make_llava)
