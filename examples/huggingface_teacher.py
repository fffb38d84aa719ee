"""A model folder of Hugging Face as the teacher: a tiny BERT, made and trained on the spot.

    python examples/huggingface_teacher.py        # writes into runs/example_huggingface

It needs the extra `text`. With a model of yours all you need is its folder and the last part.
"""

import random
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
from transformers.utils import logging

from distill_reviews import BAD, GOOD, THINGS, files_in, review
from limbeck.distill.config import DistillConfig, ObjectiveConfig, TrainConfig
from limbeck.distill.run import distill
from limbeck.teachers.config import TeacherConfig

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word: enough for reviews that were made up."""
    vocabulary = {word: i for i, word in enumerate([*MARKS, *GOOD, *BAD, *THINGS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), MARKS, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def train_teacher(folder: Path) -> None:
    """Fine-tune on rows of its own, and save what `huggingface` reads."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        id2label={0: "neg", 1: "pos"},
        label2id={"neg": 0, "pos": 1},
    )
    model = BertForSequenceClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rng = random.Random(1)
    for _ in range(60):
        texts, labels = zip(*(review(rng) for _ in range(32)), strict=True)
        inputs = tokenizer(list(texts), padding=True, return_tensors="pt")
        wanted = torch.tensor([config.label2id[name] for name in labels])
        loss = model(**inputs, labels=wanted).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main(folder: Path) -> None:
    """Make files and teacher, distil."""
    if not (folder / "teacher/config.json").exists():
        train_teacher(folder / "teacher")
    config = DistillConfig(
        data=files_in(folder),
        teacher=TeacherConfig(kind="huggingface", path=folder / "teacher"),
        budget=3000,
        train=TrainConfig(steps=100, evaluations=3),
        objective=ObjectiveConfig(arms=("labels", "soft_kd")),
        onnx=False,
        out=folder / "run",
        ledger=folder / "ledger.sqlite",
    )
    print(distill(config).text())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example_huggingface"))
