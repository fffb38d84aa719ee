"""A model folder as `save_pretrained` writes it, 2 layers and 32 numbers wide, never trained."""

import tempfile
import warnings
from functools import cache
from pathlib import Path

WORDS = [
    "good",
    "bad",
    "not",
    "all",
    "at",
    "fine",
    "film",
    "the",
    "word",
    "中",
    "文",
    "!",
    ",",
    "ok",
]


def write(folder: Path, **changes: object) -> Path:
    """Write configuration, weights and a WordPiece vocabulary."""
    import torch
    from transformers import BertConfig, BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters]
    pieces += [f"##{letter}" for letter in letters]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    settings = {
        "vocab_size": len(pieces),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        **changes,
    }
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        BertModel(BertConfig(**settings)).save_pretrained(folder)
    return folder


@cache
def shared() -> str:
    """One folder for all tests of a process."""
    keep = tempfile.TemporaryDirectory(prefix="tiny_bert_")
    _KEPT.append(keep)
    return str(write(Path(keep.name)))


_KEPT: list[tempfile.TemporaryDirectory[str]] = []
