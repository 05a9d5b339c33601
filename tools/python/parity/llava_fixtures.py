"""Expected values of kind `llava`, computed with transformers in float32."""

from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    LlamaTokenizer,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerBase,
)

from parity.clip_fixtures import random_images
from parity.fixture import Fixture
from parity.text_fixtures import prompt_tokens

QUESTIONS = [
    "Answer concisely: what is going on in this image?",
    "How many cats are there?",
    "Was zeigt das Bild – ein Fähnchen, 42 Äpfel?\n  (two lines)",
    "Why?",
]
# Where a folder has no chat template; LLaVA-1.5's own.
DEFAULT_PROMPT = "USER: <image>\n{question} ASSISTANT:"
MAX_NEW_TOKENS = 12
# (height, width)
IMAGE_SIZES = [(48, 48), (33, 70)]


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    if (folder / "tokenizer.json").exists():
        return AutoTokenizer.from_pretrained(folder, use_fast=True)
    return LlamaTokenizer.from_pretrained(folder)


def load_tokenizer_with_padding(folder: Path) -> PreTrainedTokenizerBase:
    """With the padding side of its own."""
    tokenizer = load_tokenizer(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_processor(folder: Path, model: LlavaForConditionalGeneration) -> LlavaProcessor:
    kwargs, _ = LlavaProcessor.get_processor_dict(folder)
    return LlavaProcessor(
        image_processor=AutoImageProcessor.from_pretrained(folder, use_fast=False),
        tokenizer=load_tokenizer(folder),
        patch_size=model.config.vision_config.patch_size,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
        num_additional_image_tokens=1,
        chat_template=kwargs.get("chat_template"),
    )


def render(processor: LlavaProcessor, question: str) -> str:
    template = processor.chat_template or processor.tokenizer.chat_template
    if template is None:
        return DEFAULT_PROMPT.format(question=question)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], chat_template=template, add_generation_prompt=True
    )


def greedy_replies(
    model: LlavaForConditionalGeneration, inputs: dict[str, torch.Tensor], max_new_tokens: int
) -> torch.Tensor:
    """[B,N]: up to and with the end token, then −1."""
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    generated = model.generate(
        **inputs, do_sample=False, max_new_tokens=max_new_tokens, pad_token_id=ends[0]
    )[:, inputs["input_ids"].shape[1] :]
    ended = torch.isin(generated, torch.tensor(ends)).long().cumsum(1)
    after = torch.nn.functional.pad(ended, (1, 0))[:, :-1] > 0
    return generated.masked_fill(after, -1)


@torch.no_grad()
def llava_fixtures(folder: Path) -> Iterator[Fixture]:
    """All questions in one batch, for images of several sizes, and `tokenize`."""
    model = LlavaForConditionalGeneration.from_pretrained(
        folder, torch_dtype=torch.float32, attn_implementation="eager"
    ).eval()
    processor = load_processor(folder, model)
    processor.tokenizer.padding_side = "left"
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    yield prompt_tokens(load_tokenizer_with_padding(folder), padding=True)
    generator = torch.Generator().manual_seed(31)
    for height, width in IMAGE_SIZES:
        images = random_images(len(QUESTIONS), height, width, generator)
        prompts = [render(processor, question) for question in QUESTIONS]
        bos = processor.tokenizer.bos_token
        inputs = processor(
            images=list(images.numpy()),
            text=prompts,
            padding=True,
            add_special_tokens=not (bos and prompts[0].startswith(bos)),
            return_tensors="pt",
        )
        inputs.pop("token_type_ids", None)
        replies = greedy_replies(model, dict(inputs), MAX_NEW_TOKENS)
        params = {"questions": QUESTIONS, "max_new_tokens": MAX_NEW_TOKENS}
        yield Fixture(f"llava_{width}x{height}", "llava", params, {"images": images}, {"token_ids": replies})
