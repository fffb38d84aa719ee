"""Cut labelled rows into parts: seeded, stratified by class, equal rows always on one side."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from limbeck.data.ids import distinct
from limbeck.errors import DataError

DEFAULT_SHARE = 0.2
"""Share of the distinct labelled rows that is cut for validation, and for testing."""


def cut(
    ids: NDArray[np.uint8],
    labels: NDArray[np.int64],
    parts: Mapping[str, int],
    classes: tuple[str, ...],
    rng: np.random.Generator,
    *,
    where: str,
) -> dict[str, NDArray[np.bool_]]:
    """Choose rows for parts, class by class in proportion.

    Rows of equal content are one row here and go to one part together (counted in the class of
    the first of them), so that no part can hold a copy of another part's row.

    Args:
        ids: Content ids, uint8, shape (n, 16).
        labels: Class of each row, int64, shape (n,), in [0, C).
        parts: Distinct rows wanted of each part, by name; 0 means a fifth of the distinct rows.
        classes: Class names, for messages.
        rng: Where chance comes from.
        where: Name of the file, for messages.

    Returns:
        The rows of each part, bool, shape (n,), by name. Rows of no part stay labelled; each class
        that is there has at least one row in every part and one that stays.

    Raises:
        DataError: a class has too few distinct rows, or parts are too small or too large.
    """
    first, group = distinct(ids)
    group_class = labels[first]
    counts = np.bincount(group_class, minlength=len(classes))
    wanted = {name: rows or round(DEFAULT_SHARE * len(first)) for name, rows in parts.items()}
    _check_counts(counts, wanted, classes, where)
    shares = {name: apportion(counts, rows) for name, rows in wanted.items()}
    left = counts - sum(shares.values(), np.zeros_like(counts))
    for c in np.flatnonzero((left < 1) & (counts > 0)):
        raise DataError(
            f"{where}: cutting {_listed(wanted)} rows leaves none of the {counts[c]} distinct rows "
            f"of class '{classes[c]}' for training; cut fewer rows or add labelled rows."
        )
    part_of_group = np.full(len(first), -1, np.int64)
    for c in np.flatnonzero(counts):
        members = rng.permutation(np.flatnonzero(group_class == c))
        start = 0
        for number, share in enumerate(shares.values()):
            part_of_group[members[start : start + share[c]]] = number
            start += share[c]
    part = part_of_group[group]
    return {name: part == number for number, name in enumerate(shares)}


def apportion(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Divide `total` seats in proportion to counts, at least one for each that is not 0.

    Largest remainders get the seats that rounding down leaves; ties go to the lower position.

    Args:
        counts: int64, shape (C,), >= 0.
        total: Seats, between the number of positive counts and their sum.

    Returns:
        Seats, int64, shape (C,), summing to `total`.
    """
    exact = counts * total / counts.sum()
    seats: NDArray[np.int64] = np.maximum(
        np.floor(exact).astype(np.int64), (counts > 0).astype(np.int64)
    )
    while seats.sum() < total:
        seats[int(np.argmax(exact - seats))] += 1
    while seats.sum() > total:
        # The guaranteed seats of small classes are paid by those furthest above their share.
        seats[int(np.argmin(np.where(seats > 1, exact - seats, np.inf)))] -= 1
    return seats


def conflicting(ids: NDArray[np.uint8], labels: NDArray[np.int64]) -> tuple[int, int]:
    """Contents that carry more than one label, and the first row of the first of them (or -1)."""
    first, group = distinct(ids)
    differs = labels != labels[first][group]
    groups = np.unique(group[differs])
    return len(groups), int(first[groups[0]]) if len(groups) else -1


def _check_counts(
    counts: NDArray[np.int64], wanted: Mapping[str, int], classes: tuple[str, ...], where: str
) -> None:
    least = len(wanted) + 1
    for c in np.flatnonzero((counts > 0) & (counts < least)):
        raise DataError(
            f"{where}: class '{classes[c]}' has {counts[c]} distinct labelled rows, too few to cut "
            f"{' and '.join(wanted)} from this file (needs {least}); add rows of this class or "
            f"give separate files."
        )
    present = int((counts > 0).sum())
    for name, rows in wanted.items():
        if rows < present:
            raise DataError(
                f"{where}: {rows} rows for {name} cannot hold one of each of the {present} "
                f"classes; set {name}_rows to at least {present}."
            )
    total = int(counts.sum())
    if sum(wanted.values()) > total - present:
        raise DataError(
            f"{where}: {_listed(wanted)} rows were to be cut from {total} distinct labelled rows, "
            f"which leaves fewer than one of each class; cut fewer rows or add labelled rows."
        )


def _listed(wanted: Mapping[str, int]) -> str:
    return " and ".join(f"{rows} {name}" for name, rows in wanted.items())
