"""`assets/models/emoji-bert`: a small BERT whose token similarities tell the prompts apart. Trained
as the BERTScore that it will be used for: among the sentences of a batch, the one that says the same
as "The image contains a cat" has to have the highest F1."""

import argparse
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertModel, BertTokenizerFast

from emoji_sd.prompts import (
    ACTIVITIES,
    ANIMALS,
    COUNT_WORDS,
    activity_prompt,
    all_prompts,
    animal_prompt,
    counting_prompt,
)

FRAMES = (
    "The image contains {}", "{}", "{}.", "There is {} in this image", "The image shows {}",
    "This is a picture of {}", "In this image, {} can be seen", "an emoji of {}",
)  # fmt: skip


def other_texts():
    """Words that a reply may hold beside the prompts'."""
    return [
        "what is going on in this image", "the background is blue red green yellow white black",
        "one zero many some of the and with on in at by sitting standing looking",
        "he she it they is are was were has have no not",
        *"abcdefghijklmnopqrstuvwxyz0123456789.,!?'-",
    ]  # fmt: skip


def make_tokenizer(work_dir):
    texts = all_prompts() + [frame.format("") for frame in FRAMES] + other_texts()
    learned = BertWordPieceTokenizer(lowercase=True)
    learned.train_from_iterator(texts, vocab_size=700, min_frequency=1, show_progress=False)
    Path(work_dir).mkdir(parents=True, exist_ok=True)
    learned.save_model(str(work_dir))
    return BertTokenizerFast(vocab_file=f"{work_dir}/vocab.txt", model_max_length=64)


def make_bert(tokenizer):
    return BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=192,
            max_position_embeddings=64,
            pad_token_id=tokenizer.pad_token_id,
        ),
        add_pooling_layer=False,
    )


def random_prompt(rng):
    animal = rng.choice(ANIMALS)
    kind = rng.randrange(3)
    if kind == 1:
        return activity_prompt(animal, rng.choice(ACTIVITIES))
    if kind == 2:
        return counting_prompt(animal, rng.choice(list(COUNT_WORDS)))
    return animal_prompt(animal)


def bert_f1(model, tokenizer, left, right):
    """BERTScore's F1 of every text of `left` with every one of `right`, without idf."""

    def tokens(texts):
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        hidden = model(batch.input_ids, batch.attention_mask).last_hidden_state
        special = (batch.input_ids == tokenizer.cls_token_id) | (
            batch.input_ids == tokenizer.sep_token_id
        )
        return F.normalize(hidden, dim=-1), batch.attention_mask.bool() & ~special

    (a, a_mask), (b, b_mask) = tokens(left), tokens(right)
    similarity = torch.einsum("itd,jsd->ijts", a, b)
    similarity = similarity.masked_fill(~a_mask[:, None, :, None], -1)
    similarity = similarity.masked_fill(~b_mask[None, :, None, :], -1)
    of_left = (similarity.amax(3) * a_mask[:, None]).sum(2) / a_mask.sum(1)[:, None]
    of_right = (similarity.amax(2) * b_mask[None]).sum(2) / b_mask.sum(1)[None]
    # The harmonic mean has a pole where untrained tokens point away from each other.
    of_left, of_right = of_left.clamp(min=0.05), of_right.clamp(min=0.05)
    return 2 * of_left * of_right / (of_left + of_right)


def train(model, tokenizer, steps, rate, rng):
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * (1 - step / steps)
        prompts = list({random_prompt(rng) for _ in range(48)})
        said = [rng.choice(FRAMES).format(prompt) for prompt in prompts]
        wanted = [rng.choice(FRAMES[:2]).format(prompt) for prompt in prompts]
        logits = 20 * bert_f1(model, tokenizer, said, wanted)
        labels = torch.arange(len(prompts))
        loss = F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}  loss {loss.item():.4f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", required=True)
    parser.add_argument("--out", required=True, help="folder of the model")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = make_tokenizer(args.work_dir)
    model = make_bert(tokenizer)
    train(model, tokenizer, args.steps, args.learning_rate, random.Random(args.seed))
    model.to(torch.float16).save_pretrained(args.out, safe_serialization=True)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
