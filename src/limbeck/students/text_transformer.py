"""Students for text: a small transformer encoder over byte pairs that are learnt from the pool.

It reads words in their order, so it can learn what a bag of n-grams cannot; and it takes far longer
to train. Try `text_bag` first.

Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017, Section 3 (encoder); Xiong et
al., "On Layer Normalization in the Transformer Architecture", ICML 2020, Section 3 (norms inside
the branches). Departures: the mean over tokens is the embedding, and the last matrix of every
branch starts near zero, so that training begins from an averaged embedding.
"""

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.data.schema import Schema
from limbeck.errors import ConfigError
from limbeck.students import tokens
from limbeck.students.bags import bag_sum
from limbeck.students.base import Encoder, Ragged, StudentModule, pad_rows, seeded_linear
from limbeck.students.subwords import TOKENIZER, read_tokenizer, train_tokenizer

_TABLE_STD = 0.02
_BRANCH_SCALE = 0.1
"""Measured on sst2 with all its labels and one seed: 75.7 % correct, against 74.1 % with 1."""


@dataclass(frozen=True, slots=True)
class TextTransformerConfig:
    """Settings of `text_transformer`. The defaults make a student of at most 4.5 MB."""

    vocab: int = 16_384
    """Most token ids, padding and two marks included, in [259, 2**20]; a small pool has fewer."""
    dim: int = 64
    """Width of a token's vector and of the student's embedding, a multiple of `heads`."""
    layers: int = 1
    """Blocks of attention and hidden layer, in [1, 48]. Measured with one seed:
    77.8 % correct on sst2, 79.3 % with two blocks, which take twice the time."""
    heads: int = 4
    """Attention heads of a block, >= 1."""
    hidden_multiple: int = 4
    """Width of a block's hidden layer, in multiples of `dim`, in [1, 16]."""
    max_tokens: int = 256
    """Ids of a row that are read, in [2, 8192]: the first half and the last of a longer row.
    Measured on imdb with one seed and three passes: 85.0 % correct with 256, 83.8 % with 192."""
    dropout: float = 0.3
    """Share of the token vectors, of every branch and of the embedding dropped in training, in
    [0, 1)."""

    recommended_lr: ClassVar[float] = 3e-3
    """Peak learning rate of AdamW in batches of 256 rows. Measured on sst2 with one seed: 77.9 %
    correct, against 75.7 % with 1e-3."""

    def __post_init__(self) -> None:
        _check_range("vocab", self.vocab, 256 + tokens.FIRST, 2**20)
        _check_range("heads", self.heads, 1, 128)
        _check_range("dim", self.dim, self.heads, 4096)
        _check_range("layers", self.layers, 1, 48)
        _check_range("hidden_multiple", self.hidden_multiple, 1, 16)
        _check_range("max_tokens", self.max_tokens, 2, 8192)
        if self.dim % self.heads:
            raise ConfigError(
                f"dim={self.dim} and heads={self.heads}: text_transformer cuts dim evenly among "
                f"the heads; give a multiple, such as dim={self.heads * 32}."
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout}: must be in [0, 1); 0 turns dropout off.")

    @classmethod
    def large(cls) -> Self:
        """A teacher's size: two blocks of 96, 7.3 MB, and four times the work."""
        return cls(dim=96, layers=2, heads=6)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name}={value}: text_transformer needs {name} in [{low}, {high}].")


class TextTransformerEncoder(Encoder):
    """Turns the text columns of a row into token ids of a tokenizer that was trained on rows."""

    kind: ClassVar[str] = "text_transformer"
    portable_packages: ClassVar[tuple[str, ...]] = ("numpy", "tokenizers")
    slow_to_fit: ClassVar[bool] = True

    def __init__(
        self, columns: tuple[str, ...], config: TextTransformerConfig, tokenizer: Tokenizer
    ) -> None:
        """Use `fit` or `from_files`."""
        self.columns = columns
        self.config = config
        self.tokenizer = tokenizer
        self._json = tokenizer.to_str().encode()

    @classmethod
    def fit(cls, batches: Iterable[pa.RecordBatch], schema: Schema, settings: object) -> Self:
        """Train the tokenizer on rows: at most 20,000, evenly spaced (see `subwords`).

        Raises:
            ConfigError: the schema has no text column.
        """
        if not isinstance(settings, TextTransformerConfig):
            raise ConfigError(
                f"text_transformer needs a TextTransformerConfig, got {type(settings).__name__}."
            )
        if not schema.text:
            raise ConfigError(
                f"text_transformer reads text columns but the schema has none (its inputs: "
                f"{', '.join(schema.inputs) or 'nothing'}); use another student, or name a text "
                f"column."
            )
        rows = (
            [tokens.plain_text(text, settings.max_tokens) for text in row]
            for batch in batches
            for row in zip(*(batch.column(n).to_pylist() for n in schema.text), strict=True)
        )
        return cls(schema.text, settings, train_tokenizer(rows, settings.vocab - tokens.FIRST))

    @property
    def vocabulary(self) -> int:
        """Token ids that can occur, padding and marks included."""
        return self.tokenizer.get_vocab_size() + tokens.FIRST

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """uint16 where it holds all ids, which halves a file of encoded rows; else int32."""
        return np.dtype(np.uint16 if self.config.vocab <= 2**16 else np.int32)

    def encode(self, rows: pa.RecordBatch) -> Ragged:
        """Give the token ids of each row; a missing text counts as empty."""
        columns = [rows.column(name).to_pylist() for name in self.columns]
        ids, lengths = tokens.encode_columns(self.tokenizer, columns, self.config.max_tokens)
        return Ragged(ids.astype(self.dtype), lengths)

    def collate(self, rows: Ragged) -> dict[str, Tensor]:
        """Give `ids` int64 (B, longest row), 0 where a row has ended."""
        return {"ids": torch.from_numpy(pad_rows(rows))}

    def to_config(self) -> dict[str, object]:
        """Column names, settings, and the hash of the tokenizer's file."""
        digest = hashlib.sha256(self._json).hexdigest()
        return {"columns": list(self.columns), **asdict(self.config), "tokenizer": digest}

    @classmethod
    def from_config(cls, config: dict[str, object]) -> Self:
        """Refuse: the tokenizer is in a file of its own.

        Raises:
            ConfigError: always; use `from_files`.
        """
        return cls.from_files(config, {})

    def files(self) -> dict[str, bytes]:
        """`tokenizer.json`, as the package `tokenizers` reads it."""
        return {TOKENIZER: self._json}

    @classmethod
    def from_files(cls, config: dict[str, object], files: Mapping[str, bytes]) -> Self:
        """Build the encoder that `to_config` and `files` described.

        Raises:
            ConfigError: the tokenizer is missing, broken, or another one.
        """
        tokenizer = read_tokenizer(files, str(config["tokenizer"]))
        settings = {f.name: config[f.name] for f in fields(TextTransformerConfig)}
        columns = config["columns"]
        if not isinstance(columns, list):
            raise ConfigError(f"columns={columns!r}: text_transformer needs a list of names.")
        made = TextTransformerConfig(**settings)  # type: ignore[arg-type] # JSON values; checked by __post_init__
        return cls(tuple(columns), made, tokenizer)

    def portable_source(self) -> str:
        """The file of token ids and a function that applies it to dicts."""
        return "\n\n".join((inspect.getsource(tokens), _PORTABLE_ENCODE))


_PORTABLE_ENCODE = '''
_TOKENIZER = Tokenizer.from_file(str(Path(__file__).with_name("tokenizer.json")))


def encode(rows: list[dict], encoder: dict) -> np.ndarray:
    """Turn rows into padded token ids, int64 (n, longest row)."""
    columns = [[row[name] for row in rows] for name in encoder["columns"]]
    ids, lengths = encode_columns(_TOKENIZER, columns, encoder["max_tokens"])
    padded = np.zeros((len(rows), max(1, int(lengths.max(initial=0)))), dtype=np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = ids
    return padded
'''.strip()

Attend = Callable[[Tensor], Tensor]
"""Queries, keys and values side by side, shape (..., 3 dim), to what was looked up, (..., dim)."""


class Block(nn.Module):
    """Attention, then a hidden layer; each is added to what came in."""

    def __init__(self, config: TextTransformerConfig, generator: torch.Generator) -> None:
        super().__init__()
        dim, hidden = config.dim, config.hidden_multiple * config.dim
        self.attention_norm = nn.LayerNorm(dim)
        self.query_key_value = seeded_linear(dim, 3 * dim, generator)
        self.out = seeded_linear(dim, dim, generator)
        self.hidden_norm = nn.LayerNorm(dim)
        self.up = seeded_linear(dim, hidden, generator)
        self.down = seeded_linear(hidden, dim, generator)
        self.dropout = nn.Dropout(config.dropout)
        with torch.no_grad():
            self.out.weight *= _BRANCH_SCALE
            self.down.weight *= _BRANCH_SCALE

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """Token vectors (..., dim) to token vectors; `attend` alone knows which form a row."""
        found = attend(self.query_key_value(self.attention_norm(x)))
        x = x + self.dropout(self.out(found))
        hidden = F.gelu(self.up(self.hidden_norm(x)))
        out: Tensor = x + self.dropout(self.down(hidden))
        return out


class TextTransformerModule(StudentModule):
    """Token and position vectors, blocks, a norm, and the mean over a row's tokens."""

    def __init__(
        self,
        encoder: TextTransformerEncoder,
        config: TextTransformerConfig,
        width: int,
        generator: torch.Generator,
    ) -> None:
        """Draw all weights from `generator`; `width` is the head's number of outputs."""
        super().__init__()
        self.settings = config
        self.embedding_dim = config.dim
        self.heads = config.heads

        def table(rows: int) -> nn.Parameter:
            return nn.Parameter(
                torch.empty(rows, config.dim).normal_(std=_TABLE_STD, generator=generator)
            )

        self.table = table(encoder.vocabulary)
        self.positions = table(config.max_tokens)
        self.blocks = nn.ModuleList(Block(config, generator) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.head = seeded_linear(config.dim, width, generator)

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """Embed `ids` (B, L), where 0 is padding, shape (B, dim).

        Only attention sees the padding: everything else runs over the N tokens that there are,
        which saves its share of a minibatch (most of it, where rows differ in length).
        """
        ids = inputs["ids"]
        present = ids != 0
        places = present.flatten().nonzero().squeeze(1)
        attend = AttendPresent(present, places, self.heads)
        token = ids.flatten()[places]
        x = look_up(self.table, token) + look_up(self.positions, places % ids.shape[1])
        x = self._tokens(x, attend)
        return self._pooled(*token_sums(x, present))

    def embed_padded(self, padded: Tensor) -> Tensor:
        """Embed ids (B, L), where 0 is padding, in plain operations on whole rectangles."""
        present = padded != 0
        places = torch.arange(padded.shape[1], device=padded.device)
        x = F.embedding(padded, self.table) + F.embedding(places, self.positions)
        mask = present[:, None, None, :]
        x = self._tokens(x, lambda qkv: attend_within(qkv, self.heads, mask))
        return self._pooled((x * present.unsqueeze(2)).sum(dim=1), present.sum(dim=1))

    def _tokens(self, x: Tensor, attend: Attend) -> Tensor:
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, attend)
        out: Tensor = self.norm(x)
        return out

    def _pooled(self, total: Tensor, counts: Tensor) -> Tensor:
        mean = total / counts.clamp_min(1).to(total.dtype).unsqueeze(1)
        out: Tensor = self.dropout(mean)
        return out


class AttendPresent:
    """Attention within rows over the tokens that there are, which lie one after another.

    Args:
        present: Where a row has a token, bool (B, L).
        places: Of the tokens among all B L, int64 (N,).
        heads: Attention heads.
    """

    def __init__(self, present: Tensor, places: Tensor, heads: int) -> None:
        self.shape, self.places, self.heads = present.shape, places, heads
        self.mask = None if len(places) == present.numel() else present[:, None, None, :]

    def __call__(self, qkv: Tensor) -> Tensor:
        """Queries, keys and values (N, 3 dim) to what was looked up, (N, dim)."""
        rows, length = self.shape
        laid = qkv.new_zeros(rows * length, qkv.shape[1]).index_copy(0, self.places, qkv)
        found = attend_within(laid.view(rows, length, qkv.shape[1]), self.heads, self.mask)
        return found.flatten(0, 1)[self.places]


def attend_within(qkv: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """Attend within rows: (B, L, 3 dim) to (B, L, dim)."""
    rows, length, width = qkv.shape
    split = qkv.view(rows, length, 3, heads, width // (3 * heads))
    q, k, v = split.permute(2, 0, 3, 1, 4)
    found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return found.transpose(1, 2).flatten(2)


def token_sums(x: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of each row's token vectors, (B, dim), and their number, int64 (B,), from (N, dim)."""
    # Tokens lie row by row, so a row's sum is that of a bag of neighbours.
    counts = present.sum(dim=1)
    begins = counts.cumsum(0) - counts
    order = torch.arange(len(x), device=x.device)
    return bag_sum(order, x, begins), counts


def look_up(table: Tensor, rows: Tensor) -> Tensor:
    """Rows of a table by number, int64 (N,), with the gradient of `bags`."""
    return bag_sum(rows, table, torch.arange(len(rows), device=rows.device))
