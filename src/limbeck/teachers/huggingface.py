"""A local model folder of Hugging Face as a teacher: a classifier of text or of images.

The folder holds what `save_pretrained` writes. Nothing is fetched, no code of the folder is run,
and pickled weights need your word. Needs the extra `text`.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn

from limbeck.data.images import FORMATS
from limbeck.data.schema import Schema
from limbeck.errors import ConfigError, LimbeckError, LimbeckWarning, one_line
from limbeck.storage import sha256
from limbeck.students.model_folder import (
    check_folder,
    load_image_processor,
    load_tokenizer,
    read_classifier,
    read_tokenizer_of,
    require_transformers,
)
from limbeck.teachers.base import Head
from limbeck.teachers.head import HeadInput, find_head, weights_of
from limbeck.teachers.local import LocalTeacher, Said, fingerprint_of

USUAL_MAX_TOKENS = 512
"""Most tokens of a row that are read where nothing else is said."""
_BATCH_TOKENS = 16_384
_MOST_TEXTS, _MOST_IMAGES = 256, 64
_PAIR = 2
_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json",
          "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
          "*.model", "preprocessor_config.json", "processor_config.json")  # fmt: skip
"""What the answers depend on; checkpoints of a trainer and read-me files are not among it."""

Inputs = Mapping[str, Tensor]


class _Reader(Protocol):
    """Turns rows into batches of model inputs."""

    settings: tuple[str, ...]

    def batches(self, rows: pa.RecordBatch) -> Iterator[tuple[NDArray[np.int64], Inputs]]:
        """Positions and inputs of one batch after the other; each row is in one of them."""

    def probes(self) -> list[Inputs]:
        """Inputs to try the model on before anything is asked."""


class HuggingfaceTeacher(LocalTeacher):
    """A fine-tuned classifier of transformers as a teacher.

    Rows are asked in batches of about one length and come back in their own order. On a GPU the
    model computes in bfloat16 where the GPU can, else in float16. The embedding is the input of
    the linear layer that gives the logits.

    Args:
        folder: The model's folder.
        schema: The task, for the kinds of the columns.
        columns: One text column, two that are read as a pair, or one image column. Default: the
            inputs.
        classes: Names in the order of the outputs. Default: the model's `id2label`.
        max_tokens: Tokens of a row that are read; 0 for what the model can read, 512 at most.
        pickled_weights: Open weights that are no safetensors.
        device: Where it computes. Default: a GPU where there is one.

    Raises:
        ConfigError: the folder cannot be used, or does not fit the columns.
        MissingExtraError: transformers is not installed.

    A model whose logits come from no single linear layer has no embedding, and a warning says so.
    """

    def __init__(
        self,
        folder: Path,
        schema: Schema,
        *,
        columns: Sequence[str] = (),
        classes: Sequence[str] = (),
        max_tokens: int = 0,
        pickled_weights: bool = False,
        device: str | None = None,
    ) -> None:
        require_transformers()
        self.name = f"huggingface teacher {folder.name}"
        word = "teacher.pickled_weights"
        if not pickled_weights or not list(folder.glob("*.bin")):
            check_folder(folder, setting="teacher.path", word=word)
        self.columns = tuple(columns) or schema.inputs
        images = _sees_images(self.columns, schema, self.name)
        self._model = read_classifier(folder, images=images)
        self.classes = _class_names(self._model.config, classes, self.name)
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._model.to(self._device)
        self._reader: _Reader
        if images:
            self._reader = _Images(folder, self.columns[0], self._model.config)
        else:
            self._reader = _Texts(folder, self.columns, self._model.config, max_tokens, self.name)
        self._layer = self._try()
        self.embeds = self._layer is not None
        self._input = HeadInput(self._layer)
        self.fingerprint = fingerprint_of(
            "huggingface",
            *(part for file in _files_of(folder) for part in (file.name, sha256(file))),
            "|",
            *self.classes,
            "|",
            *self.columns,
            "|",
            *self._reader.settings,
        )

    def say(self, rows: pa.RecordBatch) -> Said:
        """Run the model over rows, without gradients."""
        probs = torch.zeros(rows.num_rows, len(self.classes))
        parts: list[tuple[NDArray[np.int64], Tensor]] = []
        for places, inputs in self._reader.batches(rows):
            with torch.inference_mode(), self._precision():
                logits = self._run(inputs)
            probs[places] = torch.softmax(logits.float(), dim=-1).cpu()
            if (embedding := self._input.taken(logits)) is not None:
                parts.append((places, embedding.float().cpu()))
        if not parts:
            return Said(probs)
        embeddings = torch.zeros(rows.num_rows, parts[0][1].shape[1])
        for places, embedding in parts:
            embeddings[places] = embedding
        return Said(probs, embeddings)

    def head(self, rows: pa.RecordBatch) -> Head | None:
        """The layer that gives the logits; `rows` are not looked at."""
        return None if self._layer is None else weights_of(self._layer)

    def _run(self, inputs: Inputs) -> Tensor:
        out = self._model(**{name: tensor.to(self._device) for name, tensor in inputs.items()})
        logits: Tensor = out.logits
        return logits

    def _precision(self) -> AbstractContextManager[object]:
        if self._device.type != "cuda":
            return nullcontext()
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return torch.autocast("cuda", dtype=dtype)

    def _try(self) -> nn.Linear | None:
        """Run the model on what is hardest for it, and find the layer that gives the logits."""
        head = None
        try:
            for inputs in self._reader.probes():
                head = find_head(self._model, partial(self._run, inputs))
        except LimbeckError:
            raise
        except Exception as error:  # models of others raise whatever they like
            raise ConfigError(
                f"{self.name} cannot read its inputs ({type(error).__name__}: {one_line(error)}); "
                f"for text, lower teacher.max_tokens; else save model, tokenizer and image "
                f"processor again into one folder."
            ) from error
        if head is None:
            warnings.warn(
                f"{self.name} ({type(self._model).__name__}) has no linear layer that gives its "
                f"logits, so its answers have no embedding; objectives that need one cannot be "
                f"used.",
                LimbeckWarning,
                stacklevel=3,
            )
        return head


class _Texts:
    """One text column, or two as a pair, through the model's own tokenizer."""

    def __init__(
        self, folder: Path, columns: tuple[str, ...], config: Any, max_tokens: int, name: str
    ) -> None:
        found = load_tokenizer(folder)
        self._limit = max_tokens or _usual_limit(found, config)
        self._tokenizer: Tokenizer
        self._tokenizer, marks = read_tokenizer_of(folder, self._limit)
        self._columns, self._name = columns, name
        self._empty = int(marks["empty"])
        self._types = "token_type_ids" in found.model_input_names
        if config.pad_token_id is None:
            # A decoder tells the end of a row by it.
            config.pad_token_id = found.pad_token_id
        self._padding = config.pad_token_id
        self._cut = 0
        self.settings: tuple[str, ...] = (str(self._limit),)

    def batches(self, rows: pa.RecordBatch) -> Iterator[tuple[NDArray[np.int64], Inputs]]:
        columns = [rows.column(name).to_pylist() for name in self._columns]
        texts = [tuple(text or "" for text in row) for row in zip(*columns, strict=True)]
        plain = texts if len(columns) == _PAIR else [text for (text,) in texts]
        encoded = self._tokenizer.encode_batch(plain)
        self._count_cut(sum(bool(one.overflowing) for one in encoded))
        ids = [one.ids or [self._empty] for one in encoded]
        types = [one.type_ids or [0] for one in encoded]
        lengths = np.array([len(row) for row in ids], np.int64)
        order = np.argsort(lengths, kind="stable")
        for places in self._cuts(order, lengths):
            yield places, self._padded([ids[i] for i in places], [types[i] for i in places])

    def probes(self) -> list[Inputs]:
        """A short row, and the longest that can come: a model has only so many positions."""
        text = "a" if len(self._columns) == 1 else ("a", "a")
        short = self._tokenizer.encode(*((text,) if isinstance(text, str) else text))
        ids, types = short.ids or [self._empty], short.type_ids or [0]
        long = (ids * self._limit)[: self._limit]
        return [self._padded([long], [[0] * len(long)]), self._padded([ids], [types])]

    def _cuts(
        self, order: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> Iterator[NDArray[np.int64]]:
        """Cut rows, ordered by length, into batches of so many tokens, padding included."""
        start = 0
        while start < len(order):
            longest = lengths[order[start : start + _MOST_TEXTS]]
            fits = int((longest * np.arange(1, len(longest) + 1) <= _BATCH_TOKENS).sum())
            # Without a mark for padding, the end of a shorter row could not be seen.
            size = 1 if self._padding is None else max(1, fits)
            yield order[start : start + size]
            start += size

    def _padded(self, ids: Sequence[list[int]], types: Sequence[list[int]]) -> Inputs:
        longest = max(len(row) for row in ids)
        tokens = torch.full((len(ids), longest), self._padding or 0)
        mask, kinds = torch.zeros_like(tokens), torch.zeros_like(tokens)
        for i, (row, kind) in enumerate(zip(ids, types, strict=True)):
            tokens[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
            kinds[i, : len(kind)] = torch.tensor(kind)
        inputs = {"input_ids": tokens, "attention_mask": mask}
        return inputs | {"token_type_ids": kinds} if self._types else inputs

    def _count_cut(self, more: int) -> None:
        """Warn of rows that were cut, once for each power of ten."""
        before, self._cut = self._cut, self._cut + more
        if self._cut and (before == 0 or int(math.log10(self._cut)) > int(math.log10(before))):
            warnings.warn(
                f"{self._name}: {self._cut:,} rows so far are longer than {self._limit} tokens and "
                f"were cut at their end; raise teacher.max_tokens if the model can read more.",
                LimbeckWarning,
                stacklevel=2,
            )


class _Images:
    """An image column through the model's own image processor."""

    def __init__(self, folder: Path, column: str, config: Any) -> None:
        self._processor = load_image_processor(folder)
        self._column = column
        self._mode = "L" if getattr(config, "num_channels", 3) == 1 else "RGB"
        self.settings: tuple[str, ...] = ()

    def batches(self, rows: pa.RecordBatch) -> Iterator[tuple[NDArray[np.int64], Inputs]]:
        files = rows.column(self._column).to_pylist()
        for start in range(0, len(files), _MOST_IMAGES):
            images = [self._opened(data) for data in files[start : start + _MOST_IMAGES]]
            yield np.arange(start, start + len(images)), self._pixels(images)

    def probes(self) -> list[Inputs]:
        return [self._pixels([Image.new(self._mode, (48, 32), 100)])]

    def _opened(self, data: bytes) -> Image.Image:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                return image.convert(self._mode)

    def _pixels(self, images: list[Image.Image]) -> Inputs:
        return dict(self._processor(images=images, return_tensors="pt"))


def _usual_limit(tokenizer: Any, config: Any) -> int:
    """What tokenizer and model say that they can read, at most `USUAL_MAX_TOKENS`."""
    known = [USUAL_MAX_TOKENS, tokenizer.model_max_length]
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        # RoBERTa and its kin count positions from behind the mark for padding.
        shifted = config.model_type in _SHIFTED and config.pad_token_id is not None
        known.append(positions - (config.pad_token_id + 1 if shifted else 0))
    return int(min(known))


_SHIFTED = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "longformer", "data2vec-text",
            "roberta-prelayernorm", "mpnet", "ibert", "xmod")  # fmt: skip


def _sees_images(columns: tuple[str, ...], schema: Schema, name: str) -> bool:
    """Whether the columns are one of images; else they must be one or two of text.

    Raises:
        ConfigError: they are neither.
    """
    if len(columns) == 1 and columns[0] in schema.image:
        return True
    if not 1 <= len(columns) <= _PAIR or not set(columns) <= set(schema.text):
        raise ConfigError(
            f"{name} would see {list(columns)}, expected one text column, two of them as a pair, "
            f"or one image column; name them in teacher.columns (text: {list(schema.text)}, "
            f"images: {list(schema.image)})."
        )
    return False


def _class_names(config: Any, named: Sequence[str], name: str) -> tuple[str, ...]:
    """Names of the outputs in order.

    Raises:
        ConfigError: the model tells no classes apart, or nobody has named them.
    """
    labels = [str(config.id2label[i]) for i in range(config.num_labels)]
    if getattr(config, "problem_type", None) in ("multi_label_classification", "regression"):
        raise ConfigError(
            f"{name} was trained for {config.problem_type}, expected one class a row; give a "
            f"model whose outputs exclude each other."
        )
    if named:
        if len(named) != len(labels):
            raise ConfigError(
                f"teacher.classes={list(named)} names {len(named)} classes but {name} has "
                f"{len(labels)} outputs; name each, in their order."
            )
        return tuple(named)
    if labels == [f"LABEL_{i}" for i in range(len(labels))]:
        raise ConfigError(
            f"{name} calls its {len(labels)} classes {', '.join(labels)}, which says nothing; name "
            f"them in teacher.classes, in the order of its outputs."
        )
    return tuple(labels)


def _files_of(folder: Path) -> list[Path]:
    found = {file for pattern in _FILES for file in folder.glob(pattern) if file.is_file()}
    return sorted(found - set(folder.glob("training_args.bin")))
