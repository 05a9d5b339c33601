"""Writes the golden files of LLaVA, of language models' tokenizers and of chat templates, computed with transformers.

    python tools/python/goldens/make_llava_goldens.py

Under tests/goldens/llava:
    SHAPE/                   a tiny random model (make_random_llavas.py)
    SHAPE_llama.safetensors  in.input_ids, in.is_token, rows filled up on the left; out.last_hidden_state, out.logits
    SHAPE_KIND.safetensors   fixtures of `ddpo parity`
    tokenizers/NAME/         a tokenizer.json or a tokenizer.model, with what save_pretrained writes beside it
    tokenizers/NAME.json     {encoded: [{text, input_ids, bare}], decoded: [{input_ids, text}]}: `bare` without special
                             tokens around the text, `decoded` without special tokens in it
    chat_templates.json      [{name, template, bos_token, question, text}] of Jinja, or {…, error} where it refuses
"""

import json
import random
import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaTokenizer, LlavaForConditionalGeneration, PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

ROOT = Path(__file__).resolve().parents[3]
GOLDENS = ROOT / "tests" / "goldens" / "llava"
sys.path.insert(0, str(ROOT / "tools" / "python"))

from parity.fixture import write_fixture  # noqa: E402
from parity.llava_fixtures import llava_fixtures  # noqa: E402
from parity.make_random_llavas import (  # noqa: E402
    HEADER_TEMPLATE,
    LLAVA_TEMPLATE,
    byte_level,
    make_llava,
    metaspace,
    sentencepiece_like,
    slow_llama,
)
from parity.text_fixtures import SENTENCES  # noqa: E402
from reference.tricky_texts import TEXTS  # noqa: E402

SPELT_OUT = [
    "USER: <image>\nWhat is this? ASSISTANT:",
    "<image><image> a<image>b <image> c",
    "<s>a</s> <unk> b<pad>",
    "<|begin|>a<|eot|> <|start|>x<|end|>",
    "<note>chess</note>  <note>  chess,chess chessboard",
    "▁a ▁▁ b▁",
    "<0x41> <0xE2>",
    "a  b   c\n\n\nd\t\te ",
]
TOKENIZERS = {
    "sentencepiece_like": lambda folder: sentencepiece_like(),
    "byte_level": lambda folder: byte_level(),
    "metaspace": lambda folder: metaspace(),
    "model_file": lambda folder: slow_llama(folder, legacy=False),
    "model_file_legacy": lambda folder: slow_llama(folder, legacy=True),
    "model_file_no_prefix": lambda folder: slow_llama(
        folder, legacy=False, add_prefix_space=False, add_bos_token=False, add_eos_token=True
    ),
}
CHATML_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for c in message['content'] %}{% if c['type'] == 'image' %}{{ '<image>' }}"
    "{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}{{'<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ALTERNATING_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' }}{% for c in message['content'] %}"
    "{{ '<image>\n' if c.type == 'image' else c.text }}{% endfor %}{{ ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token}}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
# Each asks the question in some way of its own.
TEMPLATES = {
    "llava": LLAVA_TEMPLATE,
    "header": HEADER_TEMPLATE,
    "chatml": CHATML_TEMPLATE,
    "alternating": ALTERNATING_TEMPLATE,
    "white_space": "  {%- if true -%}  a  {%- endif -%}  b\n  {% if true %}\n  c\n  {% endif %}\nd {{- ' e ' -}} f {# g #}\n h\n\n",
    "kept_white_space": "x\n  {%+ if true %}y{% endif %}\n\t{% set z = 1 %}\n{{ z }}\n",
    "filters": "{{ '  Ab ' | trim | upper }}|{{ ['a', 'b'] | join(', ') }}|{{ messages | length }}|{{ missing | default('d') }}|"
    "{{ 'a-b-c'.replace('-', '+') }}|{{ 'abc' | capitalize }}|{{ messages[0].content | first == messages[0]['content'][0] }}|"
    "{{ (messages[0].content | last).text.strip().lower() }}|{{ messages[-1].role | string }}|{{ 'Straße' | length }}",
    "loops": "{% for c in messages[0].content if c.type != 'audio' %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}"
    "{% endfor %};{% for c in messages[0].content | rejectattr('type', 'equalto', 'image') %}{{ loop.first }}{{ c.text }}{% endfor %}",
    "logic": "{{ 1 + 2 * 3 - 4 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 1 == 1 and 2 > 1 }} {{ not 'a' in 'abc' }} {{ 'z' not in 'abc' }} "
    "{{ none is none }} {{ x is defined }} {{ '' or 'b' }} {{ 'a' ~ 1 ~ none }} {{ 'y' if 1 < 2 else 'n' }} {{ 'n' if false }} {{ (1 + 2) * 3 }} {{ 1 - 2 - 3 }}",
    "scopes": "{% set a = 'out' %}{% for c in [1, 2] %}{% set a = 'in' %}{{ a }}{% endfor %}{{ a }}{% if true %}{% set a = 'if' %}{% endif %}{{ a }}",
    "quotes": "{{ \"it's\" }}{{ 'a \"b\"' }}{{ 'tab\\tnew\\nline \\'q\\'' }}{{ '}} %} #}' }}{# }} {% #}",
    "generation": "{% generation %}a{{ 'b' }}{% endgeneration %}c",
    "raises": "{% if messages[0].role == 'user' %}{{ raise_exception('no users here') }}{% endif %}",
    "part_of_undefined": "{{ missing.part }}",
    "unclosed": "{% if true %}a",
    "unknown_tag": "{% frobnicate %}",
    # Of Jinja, and not of ours: has to be refused rather than rendered otherwise.
    "namespace": "{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}",
    "macro": "{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m('a') }}",
    "slice": "{{ 'abc'[1:] }}",
    "chain": "{{ 1 < 2 <= 2 }}",
    "tuple": "{{ (1, 2) | length }}",
    "keyword": "{{ 'x' | default(value='y', boolean=true) }}",
    "include": "{% include 'x' %}",
    "call": "{{ range(3) | list | length }}",
    "division": "{{ 7 // 2 }}",
    "json": "{{ messages | tojson }}",
}
QUESTIONS = ["What is this?", "  <b>'quoted' & \"double\"</b>\n{{ 1 }} {% if %} \\n Äpfel 🐻 "]


def write_model(name: str) -> None:
    folder = make_llava(name, GOLDENS)
    model = LlavaForConditionalGeneration.from_pretrained(
        folder, torch_dtype=torch.float32, attn_implementation="eager"
    ).eval()
    generator = torch.Generator().manual_seed(41)
    ids = torch.randint(3, model.config.text_config.vocab_size - 1, (3, 11), generator=generator)
    is_token = torch.tensor([[i >= padding for i in range(11)] for padding in (0, 4, 10)])
    positions = (is_token.long().cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        hidden = model.model.language_model(
            input_ids=ids, attention_mask=is_token.long(), position_ids=positions
        ).last_hidden_state
        outputs = {"last_hidden_state": hidden, "logits": model.lm_head(hidden)}
    outputs = {key: value * is_token[..., None] for key, value in outputs.items()}
    path = GOLDENS / f"{name}_llama.safetensors"
    write_fixture(path, "llama", {}, {"input_ids": ids, "is_token": is_token}, outputs)
    for fixture in llava_fixtures(folder):
        if fixture.name == "llava_48x48" or (fixture.kind == "tokenize" and name == "tied"):
            fixture.name = f"{name}_{fixture.kind}"
            fixture.write(GOLDENS)


def write_tokenizer(name: str) -> None:
    folder = GOLDENS / "tokenizers" / name
    folder.mkdir(parents=True, exist_ok=True)
    TOKENIZERS[name](folder).save_pretrained(folder)
    # As it reads back.
    tokenizer: PreTrainedTokenizerBase
    if (folder / "tokenizer.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True)
    else:
        tokenizer = LlamaTokenizer.from_pretrained(folder)
    encoded = [
        {
            "text": text,
            "input_ids": tokenizer(text).input_ids,
            "bare": tokenizer(text, add_special_tokens=False).input_ids,
        }
        for text in TEXTS + SENTENCES + SPELT_OUT
    ]
    generator = random.Random(43)
    rows = [[generator.randrange(len(tokenizer)) for _ in range(12)] for _ in range(40)]
    rows += [row["input_ids"] for row in encoded]
    decoded = [{"input_ids": row, "text": tokenizer.decode(row, skip_special_tokens=True)} for row in rows]
    text = json.dumps({"encoded": encoded, "decoded": decoded}, ensure_ascii=True, separators=(",", ":"))
    (GOLDENS / "tokenizers" / f"{name}.json").write_text(text + "\n")


def render(template: str, question: str) -> dict[str, str]:
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    try:
        rendered, _ = render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
        )
    except Exception as error:  # Jinja's own, of several kinds
        return {"error": str(error)}
    return {"text": rendered[0]}


def main() -> None:
    torch.set_num_threads(1)
    for name in ("sentencepiece", "tied"):
        write_model(name)
    for name in TOKENIZERS:
        write_tokenizer(name)
    cases = [
        {"name": name, "template": template, "question": question, **render(template, question)}
        for name, template in TEMPLATES.items()
        for question in QUESTIONS
    ]
    (GOLDENS / "chat_templates.json").write_text(json.dumps(cases, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
