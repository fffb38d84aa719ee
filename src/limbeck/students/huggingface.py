"""A model folder of Hugging Face as a student for text, fine-tuned with a head of our own.

The folder holds what `save_pretrained` writes: `config.json`, weights in safetensors, and the
tokenizer's files. Nothing is fetched, no code of the folder is run, and pickled weights are
refused. The student's folder holds all that it needs, so the model's folder may go. Needs the
extra `text`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from limbeck.data.schema import Schema
from limbeck.errors import ConfigError, one_line
from limbeck.students import rng
from limbeck.students.base import Encoder, Ragged, StudentModule, pad_rows, seeded_linear
from limbeck.students.foreign import refuse_shared
from limbeck.students.model_folder import (
    check_folder,
    read_architecture,
    read_model,
    read_tokenizer_of,
    require_transformers,
)
from limbeck.students.subwords import TOKENIZER, read_tokenizer

ARCHITECTURE = "architecture.json"
_POOLINGS = ("mean", "cls")


@dataclass(frozen=True, slots=True)
class HuggingfaceConfig:
    """Settings of `huggingface`."""

    path: str = ""
    """Folder of the model, in a run file relative to it. No default."""
    pooling: Literal["mean", "cls"] = "mean"
    """The embedding: the mean over a row's last hidden states, or the first of them."""
    max_tokens: int = 128
    """Tokens of a row that are read, marks included, in [3, 8192]; the rest is ignored."""
    dropout: float = 0.1
    """Share of the embedding dropped in training, in [0, 1), beside what the model itself drops."""

    recommended_lr: ClassVar[float] = 5e-5
    """Peak learning rate of AdamW: the upper end of Devlin et al., "BERT", NAACL 2019, A.3."""

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError(
                "the student huggingface needs student.settings.path, the folder of a model; give "
                "it."
            )
        if self.pooling not in _POOLINGS:
            raise ConfigError(f"pooling={self.pooling!r}: huggingface knows 'mean' and 'cls'.")
        if not 3 <= self.max_tokens <= 8192:
            raise ConfigError(
                f"max_tokens={self.max_tokens}: huggingface needs max_tokens in [3, 8192]."
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout}: must be in [0, 1); 0 turns dropout off.")

    @classmethod
    def large(cls) -> Self:
        """There is none.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a model folder has no larger form; name another kind.")


class HuggingfaceEncoder(Encoder):
    """Turns the text columns of a row into token ids, as the model's own tokenizer does."""

    kind: ClassVar[str] = "huggingface"
    portable_packages: ClassVar[tuple[str, ...]] = ("numpy", "tokenizers")

    def __init__(
        self,
        columns: tuple[str, ...],
        tokenizer: Tokenizer,
        architecture: dict[str, Any],
        *,
        marks: dict[str, Any],
        weights: Path | None,
    ) -> None:
        """Use `fit` or `from_files`; `weights` is the folder of pretrained weights, if any."""
        self.columns = columns
        self.tokenizer = tokenizer
        self.architecture = architecture
        self.marks = marks
        self.weights = weights
        self._json = tokenizer.to_str().encode()

    @classmethod
    def fit(cls, batches: Iterable[pa.RecordBatch], schema: Schema, settings: object) -> Self:
        """Read configuration and tokenizer of the model folder; `batches` is not read.

        Raises:
            ConfigError: the schema has no text column, or the folder cannot be used.
            MissingExtraError: transformers is not installed.
        """
        if not isinstance(settings, HuggingfaceConfig):
            raise ConfigError(
                f"huggingface needs a HuggingfaceConfig, got {type(settings).__name__}."
            )
        if not schema.text:
            raise ConfigError(
                f"huggingface reads text columns but the schema has none (its inputs: "
                f"{', '.join(schema.inputs) or 'nothing'}); use another student, or name a text "
                f"column."
            )
        require_transformers()
        folder = Path(settings.path)
        check_folder(folder)
        architecture = read_architecture(folder)
        tokenizer, marks = read_tokenizer_of(folder, settings.max_tokens)
        if tokenizer.get_vocab_size() > architecture["vocab_size"]:
            raise ConfigError(
                f"the tokenizer in {folder} has {tokenizer.get_vocab_size()} tokens but the model "
                f"knows {architecture['vocab_size']}; they do not belong together."
            )
        return cls(schema.text, tokenizer, architecture, marks=marks, weights=folder)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """uint16 where it holds all ids, which halves a file of encoded rows; else int32."""
        return np.dtype(np.uint16 if self.architecture["vocab_size"] < 2**16 else np.int32)

    def encode(self, rows: pa.RecordBatch) -> Ragged:
        """Give each row's token ids plus one, since 0 is padding; a missing text is empty."""
        columns = [rows.column(name).to_pylist() for name in self.columns]
        between = self.marks["between"]
        texts = [between.join(text or "" for text in row) for row in zip(*columns, strict=True)]
        # A tokenizer without marks gives nothing for an empty text, and nothing has no mean.
        ids = [e.ids or [self.marks["empty"]] for e in self.tokenizer.encode_batch_fast(texts)]
        values = np.array([token + 1 for row in ids for token in row], dtype=self.dtype)
        return Ragged(values, np.array([len(row) for row in ids], dtype=np.int64))

    def collate(self, rows: Ragged) -> dict[str, Tensor]:
        """Give `ids` int64 (B, longest row), 0 where a row has ended."""
        return {"ids": torch.from_numpy(pad_rows(rows))}

    def to_config(self) -> dict[str, object]:
        """Column names, marks, and the hash of the tokenizer's file."""
        digest = hashlib.sha256(self._json).hexdigest()
        return {"columns": list(self.columns), "marks": self.marks, "tokenizer": digest}

    @classmethod
    def from_config(cls, config: dict[str, object]) -> Self:
        """Refuse: tokenizer and architecture are in files of their own.

        Raises:
            ConfigError: always; use `from_files`.
        """
        return cls.from_files(config, {})

    def files(self) -> dict[str, bytes]:
        """`tokenizer.json`, and the model's configuration."""
        architecture = json.dumps(self.architecture, indent=1, sort_keys=True)
        return {TOKENIZER: self._json, ARCHITECTURE: architecture.encode()}

    @classmethod
    def from_files(cls, config: dict[str, object], files: Mapping[str, bytes]) -> Self:
        """Build the encoder that `to_config` and `files` described.

        Raises:
            ConfigError: a file is missing or broken.
        """
        columns, marks = config["columns"], config["marks"]
        if not isinstance(columns, list) or not isinstance(marks, dict):
            raise ConfigError(f"columns={columns!r} and marks={marks!r}: a list and a table.")
        tokenizer = read_tokenizer(files, str(config["tokenizer"]))
        if ARCHITECTURE not in files:
            raise ConfigError(f"{ARCHITECTURE} is missing, without which there is no model")
        architecture = json.loads(files[ARCHITECTURE])
        return cls(tuple(columns), tokenizer, architecture, marks=marks, weights=None)

    def portable_source(self) -> str:
        """A function that applies the tokenizer to dicts."""
        return _PORTABLE_ENCODE


_PORTABLE_ENCODE = '''
"""Token ids plus one, as the tokenizer beside this file gives them; 0 is padding."""

import numpy as np
from tokenizers import Tokenizer

_TOKENIZER = Tokenizer.from_file(str(Path(__file__).with_name("tokenizer.json")))


def encode(rows: list[dict], encoder: dict) -> np.ndarray:
    """Turn rows into padded token ids, int64 (n, longest row)."""
    marks = encoder["marks"]
    texts = [marks["between"].join(row[name] or "" for name in encoder["columns"]) for row in rows]
    ids = [found.ids or [marks["empty"]] for found in _TOKENIZER.encode_batch(texts)]
    padded = np.zeros((len(rows), max((len(row) for row in ids), default=1)), dtype=np.int64)
    for place, row in zip(padded, ids):
        place[: len(row)] = np.array(row) + 1
    return padded
'''.strip()


class HuggingfaceModule(StudentModule):
    """The model without its own head, a pooling, and a head of ours."""

    rows_at_once: ClassVar[int] = 64

    def __init__(
        self,
        encoder: HuggingfaceEncoder,
        config: HuggingfaceConfig,
        width: int,
        generator: torch.Generator,
    ) -> None:
        """Read the pretrained weights, where the encoder has some; draw the rest from `generator`.

        Raises:
            ConfigError: the weights do not fit, or the model cannot read rows of `max_tokens`.
            MissingExtraError: transformers is not installed.
        """
        super().__init__()
        require_transformers()
        # The path is of no use to whoever gets the student, and may tell more than it should.
        self.settings = replace(config, path=Path(config.path).name or config.path)
        self.pooling = config.pooling
        self.padding = int(encoder.marks["padding"])
        seed = int(torch.randint(2**62, (1,), generator=generator))
        with rng.isolated(seed):
            self.model = read_model(encoder.architecture, encoder.weights)
        refuse_shared(self.model, f"the model in {config.path}")
        self.embedding_dim = int(self.model.config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.head = seeded_linear(self.embedding_dim, width, generator)
        if encoder.weights is not None:
            self._try(config)

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """Embed `ids` (B, L), where 0 is padding, shape (B, embedding_dim)."""
        ids = inputs["ids"]
        # Their code cannot shape what has no rows.
        return self.embed_padded(ids) if len(ids) else torch.zeros(0, self.embedding_dim)

    def embed_padded(self, padded: Tensor) -> Tensor:
        """Embed token ids plus one (B, L), where 0 is padding."""
        present = padded != 0
        ids = torch.where(present, padded - 1, self.padding)
        states: Tensor = self.model(input_ids=ids, attention_mask=present.long()).last_hidden_state
        if self.pooling == "cls":
            pooled = states[:, 0]
        else:
            weights = present.unsqueeze(2).to(states.dtype)
            pooled = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)
        out: Tensor = self.dropout(pooled)
        return out

    def _try(self, config: HuggingfaceConfig) -> None:
        """Run the longest row that can come: a model has only so many positions."""
        rows = torch.ones(1, config.max_tokens, dtype=torch.int64)
        training = self.training
        try:
            with torch.no_grad(), rng.isolated(0):
                self.eval()
                self.embed_padded(rows)
        except Exception as error:  # models of others raise whatever they like
            raise ConfigError(
                f"the model in {config.path} cannot read rows of max_tokens={config.max_tokens} "
                f"({type(error).__name__}: {one_line(error)}); lower max_tokens."
            ) from error
        finally:
            self.train(training)
