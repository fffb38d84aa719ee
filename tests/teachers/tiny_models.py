"""Classifiers as `save_pretrained` writes them, a few layers of a few numbers, never trained."""

import warnings
from contextlib import contextmanager
from pathlib import Path

import torch

from tests.students import tiny_bert

LABELS = ("no", "maybe", "yes")


@contextmanager
def drawn(seed):
    """Draw weights from a seed, without their package's talk."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        yield


def _named(labels):
    return {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}}


def _spread_out(model):
    """A fresh model says nearly the same of everything: far apart is easier to compare."""
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim > 1 and "norm" not in name.lower():
                weights.mul_(8)
    return model


def bert(folder: Path, seed: int = 0, labels=LABELS, **changes: object) -> Path:
    from transformers import BertConfig, BertForSequenceClassification

    tiny_bert.write(folder)
    settings = {
        "vocab_size": len((folder / "vocab.txt").read_text().splitlines()),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        **_named(labels),
        **changes,
    }
    with drawn(seed):
        model = BertForSequenceClassification(BertConfig(**settings))
        _spread_out(model).save_pretrained(folder)
    return folder


def decoder(folder: Path, seed: int = 0, *, padding: bool = True) -> Path:
    """A GPT-2 with words for tokens, and logits at the last word of a row."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

    words = ["<pad>", "<unk>", *tiny_bert.WORDS]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = {"unk_token": "<unk>"} | ({"pad_token": "<pad>"} if padding else {})
    folder.mkdir(parents=True, exist_ok=True)
    with drawn(seed):
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **marks)
        fast.model_input_names = ["input_ids", "attention_mask"]
        fast.save_pretrained(folder)
        config = GPT2Config(
            vocab_size=len(words), n_positions=64, n_embd=32, n_layer=2, n_head=2,
            bos_token_id=None, eos_token_id=None, pad_token_id=0 if padding else None,
            **_named(LABELS),
        )  # fmt: skip
        _spread_out(GPT2ForSequenceClassification(config)).save_pretrained(folder)
    return folder


def vit(folder: Path, seed: int = 0) -> Path:
    from transformers import ViTConfig, ViTForImageClassification

    config = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
              "intermediate_size": 32, "image_size": 16, "patch_size": 8}  # fmt: skip
    with drawn(seed):
        model = ViTForImageClassification(ViTConfig(**config, **_named(LABELS)))
        _spread_out(model).save_pretrained(folder)
        _processor().save_pretrained(folder)
    return folder


def resnet(folder: Path, seed: int = 0) -> Path:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **_named(LABELS)
    )
    with drawn(seed):
        ResNetForImageClassification(config).save_pretrained(folder)
        _processor().save_pretrained(folder)
    return folder


def _processor():
    from transformers import ViTImageProcessor

    return ViTImageProcessor(size={"height": 16, "width": 16})
