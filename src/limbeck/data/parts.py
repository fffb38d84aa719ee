"""Labelled rows on their way into splits: which classes they have and whom they belong to."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from limbeck.data.columns import nearest
from limbeck.data.config import DataConfig
from limbeck.data.cut import conflicting
from limbeck.data.dataset import Dataset
from limbeck.data.ids import contains, distinct
from limbeck.data.images import describe
from limbeck.data.sources import Source
from limbeck.data.stage import LabelBook
from limbeck.errors import DataError, LimbeckWarning

_SHOWN = 60


@dataclass(slots=True)
class Part:
    """Labelled rows on their way into a split: all rows of a staged file and which of them."""

    staged: Dataset
    labels: NDArray[np.int64]
    rows: NDArray[np.bool_]

    @property
    def ids(self) -> NDArray[np.uint8]:
        """Content ids of the rows that belong to the split, uint8, shape (m, 16)."""
        return self.staged.content_ids[self.rows]


@dataclass(slots=True)
class Findings:
    """What was found on the way: sentences for the user and the counts behind them."""

    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, key: str, count: int, note: str) -> None:
        """Keep a count, and its sentence unless the count is 0."""
        self.counts[key] = count
        if count:
            self.notes.append(note)


def class_names(
    config: DataConfig,
    book: LabelBook,
    codes: NDArray[np.int64],
    where: str,
    findings: Findings,
) -> tuple[str, ...]:
    """The classes in order: as given, else those met, numbers by value and names by alphabet."""
    met = list(book.codes)
    if len(met) < 2:
        raise DataError(
            f"{where} holds one class only ('{met[0]}' in {int((codes >= 0).sum())} rows), "
            f"expected at least two; add labelled rows of the other classes."
        )
    if config.classes:
        absent = [name for name in config.classes if name not in book.codes]
        findings.add(
            "classes without labelled rows",
            len(absent),
            f"no labelled row has class {', '.join(absent)}: the student cannot learn it from "
            f"labels.",
        )
        return config.classes
    if all(_is_integer(name) for name in met):
        return tuple(sorted(met, key=lambda name: (int(name), name)))
    return tuple(sorted(met))


def class_positions(
    codes: NDArray[np.int64], book: LabelBook, classes: tuple[str, ...], where: str
) -> NDArray[np.int64]:
    """Class of each row from the book's codes; -1 stays -1."""
    position = {name: i for i, name in enumerate(classes)}
    for name, code in book.codes.items():
        if name not in position and (codes == code).any():
            near = nearest(name, classes)
            hint = f" (did you mean '{near}'?)" if near else ""
            raise DataError(
                f"{where}: {int((codes == code).sum())} rows have label '{name}'{hint}, which is "
                f"none of the classes {list(classes)}; correct the labels, or name all classes "
                f"with classes."
            )
    table = np.array([position.get(name, -1) for name in book.codes] + [-1], np.int64)
    return table[codes]


def separate(
    parts: dict[str, Part],
    sources: Mapping[str, Source],
    config: DataConfig,
    findings: Findings,
) -> None:
    """Refuse, or with the user's word drop, rows that two labelled files share."""
    pairs = (
        ("test", "labelled", "test rows must be unseen in training"),
        ("test", "validation", "test rows must be unseen in calibration"),
        ("labelled", "validation", "trust must be fitted on rows that nobody has trained on"),
    )
    for winner, loser, why in pairs:
        if winner not in parts or loser not in parts:
            continue
        part = parts[loser]
        shared = part.rows & contains(parts[winner].ids, part.staged.content_ids)
        count = int(shared.sum())
        if count and not config.drop_test_overlap:
            row = int(np.argmax(shared))
            raise DataError(
                f"{count} rows of {sources[loser].path} ({loser}) are also in "
                f"{sources[winner].path}, such as row {row}: "
                f"{_preview(part.staged, row)}; {why}: remove them, or set drop_test_overlap = "
                f"true to drop them from the {loser} rows."
            )
        part.rows = part.rows & ~shared
        findings.add(
            f"{loser} repeats {winner}",
            count,
            f"{count} {loser} rows were dropped because they are also {winner} rows.",
        )
        if count and not part.rows.any():
            raise DataError(
                f"no {loser} row is left after dropping those that are also {winner} rows; "
                f"give files with different rows."
            )


def report_repeats(part: Part, where: str, findings: Findings) -> None:
    rows = np.flatnonzero(part.rows)
    ids = part.ids
    count, example = conflicting(ids, part.labels[rows])
    repeated = len(rows) - len(distinct(ids)[0])
    findings.add(
        "labelled repeats itself",
        repeated,
        f"{repeated} labelled rows repeat another labelled row; they are kept.",
    )
    if not count:
        return
    note = (
        f"{count} contents in {where} carry different labels in different rows, such as "
        f"{_preview(part.staged, int(rows[example]))}; correct or remove them."
    )
    findings.add("labelled contradicts itself", count, note)
    warnings.warn(note, LimbeckWarning, stacklevel=2)


def _preview(staged: Dataset, row: int) -> str:
    values = staged.take(np.array([row])).to_pylist()[0]
    shown = ", ".join(
        f"{name}={describe(value) if isinstance(value, bytes) else repr(value)}"
        for name, value in values.items()
    )
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "..."


def _is_integer(name: str) -> bool:
    return name.removeprefix("-").isdecimal()
