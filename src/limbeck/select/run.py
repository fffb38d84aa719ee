"""Choose rows from a file of scores: what `limbeck select` does.

The file has one row for each row of the pool, in an order that stays the same from round to round.
Its columns are the student's probabilities (`probs`, or `prob_<class>`), or ready-made gains in
`gain`; for some rules the student's `embedding`, or `teacher_error`, the probability that the
teacher is wrong about the row, as estimated; and `bought`, true where a row was bought or may not
be chosen. A column `id` is copied to what is chosen.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from limbeck.data.readers import Kind, column_names, read_batches
from limbeck.data.sources import find_source
from limbeck.errors import ConfigError, DataError
from limbeck.select import Arrays, Selection, Selector, gains_of, selector_class
from limbeck.select.gains import MEASURES, Measure
from limbeck.select.scoring import Score
from limbeck.storage import sha256, storage_errors, write_bytes

GAIN, ERROR, BOUGHT, ID = "gain", "teacher_error", "bought", "id"


@dataclass(frozen=True, slots=True)
class SelectConfig:
    """What is chosen, and how."""

    scores: Path
    """The file of scores."""
    k: int
    """Rows to choose."""
    rule: str = "rad"
    """Name of a rule of `limbeck.select`."""
    measure: str = ""
    """What is informative: a measure of `limbeck.select.gains`. Default: `gain` where the file has
    it, else margin."""
    teacher_error: float | None = None
    """rad: share of rows that the teacher gets wrong, in [0, 1], from its validation accuracy.
    Default: the mean of the column teacher_error, where the file has it."""
    memory: Path | None = None
    """File that holds what the rule remembers from round to round (.safetensors)."""
    seed: int = 0
    """Seeds what is drawn."""

    def __post_init__(self) -> None:
        if self.k < 0:
            raise ConfigError(f"k={self.k}: must be >= 0 rows.")
        if self.measure and self.measure not in MEASURES:
            raise ConfigError(f"measure={self.measure!r}: must be one of {', '.join(MEASURES)}.")
        if self.teacher_error is not None and not 0 <= self.teacher_error <= 1:
            raise ConfigError(
                f"teacher-error={self.teacher_error}: must be in [0, 1], 1 - validation accuracy."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """What was chosen.

    Args:
        selection: Positions in the file, and their inclusion probabilities.
        gains: Of the rows chosen, float32, shape (k,); None for a rule that looks at none.
        ids: Their `id`s, or None where the file has none.
        candidates: Rows that could be chosen.
    """

    selection: Selection
    gains: Tensor | None
    ids: pa.ChunkedArray | None
    candidates: int

    def table(self) -> pa.RecordBatch:
        """Columns `row`, `id`, `inclusion_probability` and `gain`, those that there are."""
        columns: dict[str, object] = {"row": self.selection.rows.numpy()}
        if self.ids is not None:
            columns[ID] = self.ids.combine_chunks()
        if self.selection.inclusion_probs is not None:
            columns["inclusion_probability"] = self.selection.inclusion_probs.numpy()
        if self.gains is not None:
            columns[GAIN] = self.gains.numpy()
        return pa.RecordBatch.from_pydict(columns)


def choose(config: SelectConfig) -> Chosen:
    """Choose rows, and keep what the rule remembers, the batch itself among it.

    Asked again with the same file and settings it gives the same batch, also from a memory.

    Raises:
        ConfigError: a setting is out of range, or the rule needs what the file does not have.
        DataError: the file cannot be read, or its columns hold no scores.
        StorageError: the memory cannot be read or written.

    Cost: one pass over the file; its numbers are held in memory.
    """
    rule = selector_class(config.rule)()
    columns = _read(config)
    score = _score(config, rule, columns)
    candidates = _candidates(columns, config)
    selection = _from_memory(rule, candidates, columns, score, config)
    gained = None
    if hasattr(rule, "measure"):
        gained = gains_of(candidates, score)[torch.searchsorted(candidates.rows, selection.rows)]
    ids = columns.ids
    if ids is not None:
        ids = ids.take(pa.array(selection.rows.numpy()))
    return Chosen(selection, gained, ids, len(candidates.rows))


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """The file: gains and errors (n,), probabilities (n, C), embeddings, rows that are out, ids."""

    gain: Tensor | None
    error: Tensor | None
    probs: Tensor | None
    embedding: Tensor | None
    bought: Tensor
    ids: pa.ChunkedArray | None


def _read(config: SelectConfig) -> _Columns:
    source = find_source(config.scores)
    known = [GAIN, ERROR, BOUGHT, ID, "probs", "embedding"]
    names = column_names(source.files[0], source.format, known)
    probs = [n for n in names if n == "probs" or n.startswith("prob_") or _numbered(n, "probs")]
    embedding = [n for n in names if n == "embedding" or _numbered(n, "embedding")]
    if GAIN not in names and not probs:
        raise DataError(
            f"{config.scores} has no scores: its columns are {names}; give columns prob_<class> "
            f"(or a list column probs) of the student, or gains in [0, 1] in a column gain."
        )
    numbers = [*probs, *embedding, *(n for n in (GAIN, ERROR) if n in names)]
    lists = {"probs", "embedding"}
    kinds: dict[str, Kind] = {n: "any" if n in lists else "number" for n in numbers}
    kinds |= {n: "any" for n in (BOUGHT, ID) if n in names}
    table = pa.Table.from_batches(list(read_batches(source, kinds)))
    n = table.num_rows
    return _Columns(
        gain=_matrix(table, [GAIN], config.scores)[:, 0] if GAIN in names else None,
        error=_matrix(table, [ERROR], config.scores)[:, 0] if ERROR in names else None,
        probs=_matrix(table, probs, config.scores) if probs else None,
        embedding=_matrix(table, embedding, config.scores) if embedding else None,
        bought=_flags(table, config.scores)
        if BOUGHT in names
        else torch.zeros(n, dtype=torch.bool),
        ids=table.column(ID) if ID in names else None,
    )


def _numbered(name: str, stem: str) -> bool:
    return name.startswith(stem) and name[len(stem) :].isdigit()


def _matrix(table: pa.Table, names: list[str], path: Path) -> Tensor:
    """Columns of numbers, or one of lists, as float32 (n, width)."""
    first = table.column(names[0])
    if len(names) == 1 and pa.types.is_nested(first.type):
        rows = first.cast(pa.large_list(pa.float32())).combine_chunks()
        lengths = np.diff(rows.offsets.to_numpy())
        if rows.null_count or len(set(lengths.tolist())) > 1:
            raise DataError(
                f"{path}: column {names[0]} must hold a list of as many numbers in every row."
            )
        flat = rows.flatten().to_numpy(zero_copy_only=False)
        return torch.from_numpy(flat.copy()).reshape(table.num_rows, -1)
    ordered = sorted(names, key=lambda n: (len(n), n)) if names[0][-1:].isdigit() else names
    columns = [table.column(n).cast(pa.float32()).to_numpy() for n in ordered]
    return torch.from_numpy(np.column_stack(columns).astype(np.float32))


def _flags(table: pa.Table, path: Path) -> Tensor:
    """Which rows are out: booleans, 0 and 1, or the words true and false."""
    values = [str(v).strip().lower() for v in table.column(BOUGHT).to_pylist()]
    known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    known |= {"": False, "none": False}
    for row, value in enumerate(values):
        if value not in known:
            raise DataError(
                f"{path}: row {row} has {value!r} in column {BOUGHT}, expected true or false."
            )
    return torch.tensor([known[value] for value in values], dtype=torch.bool)


def _score(config: SelectConfig, rule: Selector, columns: _Columns) -> Score:
    """What the rule goes by; it is set on rules that go by gains."""
    ready = columns.gain is not None and not config.measure
    if not ready and columns.probs is None:
        raise ConfigError(
            f"measure={config.measure!r} needs class probabilities but {config.scores} has gains "
            f"only; give columns prob_<class>, or leave the measure out."
        )
    score = columns.gain if ready else cast(Measure, config.measure or "margin")
    assert score is not None  # `ready` has seen to it
    if hasattr(rule, "measure"):
        rule.measure = score
    elif "probs" in rule.needs and columns.probs is None:
        raise ConfigError(
            f"the rule {rule.name!r} looks at class probabilities but {config.scores} has gains "
            f"only; give columns prob_<class>."
        )
    return score


def _candidates(columns: _Columns, config: SelectConfig, rows: Tensor | None = None) -> Arrays:
    """Rows that are not bought, or the rows given, with their numbers."""
    if rows is None:
        rows = (~columns.bought).nonzero()[:, 0]
    n = len(columns.bought)
    probs = columns.probs if columns.probs is not None else torch.zeros(n, 0)
    error: float | Tensor | None = config.teacher_error
    if error is None and columns.error is not None:
        error = columns.error[rows]
    return Arrays(
        rows,
        probs[rows],
        None if columns.embedding is None else columns.embedding[rows],
        None if columns.embedding is None else columns.embedding[columns.bought],
        n,
        error,
    )


def _from_memory(
    rule: Selector, candidates: Arrays, columns: _Columns, score: Score, config: SelectConfig
) -> Selection:
    """The batch: the one that the memory holds for this very question, or a new one."""
    asked = _question(config)
    if config.memory is not None and config.memory.exists():
        held, told = _load(config.memory)
        if held.get("question") == asked:
            return Selection(told["chosen"], told.get("inclusion_probs"))
        if held.get("rule") != config.rule or int(held.get("pool", "-1")) != candidates.pool_size:
            raise ConfigError(
                f"{config.memory} remembers {held.get('rule')!r} on {held.get('pool')} rows, "
                f"not {config.rule!r} on {candidates.pool_size}; give another --memory."
            )
        rule.load_state_dict({n[5:]: t for n, t in told.items() if n.startswith("rule.")})
        # What became of the last round's candidates, under the student of now.
        last = _candidates(columns, config, told["rows"])
        rule.observe(told["rows"], gains_of(last, score))
    generator = torch.Generator().manual_seed(config.seed)
    selection = rule.select(candidates, config.k, generator)
    if config.memory is not None:
        _save(config.memory, asked, rule, candidates, selection)
    return selection


def _question(config: SelectConfig) -> str:
    """Names the file's content and the settings."""
    files = [sha256(file) for file in find_source(config.scores).files]
    settings = (config.rule, config.k, config.measure, config.teacher_error, config.seed)
    return hashlib.sha256(repr((files, settings)).encode()).hexdigest()


def _load(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with storage_errors(path), safetensors.safe_open(path, "pt") as file:
            held = dict(file.metadata() or {})
            return held, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 # no dict
    except safetensors.SafetensorError as error:
        raise ConfigError(
            f"{path} is no memory of `limbeck select` ({error}); give another --memory."
        ) from error


def _save(path: Path, asked: str, rule: Selector, candidates: Arrays, selection: Selection) -> None:
    tensors = {f"rule.{name}": t.contiguous() for name, t in rule.state_dict().items()}
    tensors |= {"rows": candidates.rows.contiguous(), "chosen": selection.rows.contiguous()}
    if selection.inclusion_probs is not None:
        tensors["inclusion_probs"] = selection.inclusion_probs.contiguous()
    held = {"question": asked, "rule": rule.name, "pool": str(candidates.pool_size)}
    write_bytes(path, safetensors.torch.save(tensors, held))
