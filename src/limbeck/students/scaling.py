"""Columns of numbers and categories to features of one scale, in numpy alone.

Nothing but numpy is imported here, because an exported student carries this file word for word
in its `example.py`. A column is described by plain values:

- a number by `name`, `mean`, `std` and `missing`: it becomes (x - mean) / std, or 0 where x is
  missing (null, NaN, or beyond 1e100 in size); if `missing` is true, that is if some value was
  missing when the scale was learnt, a feature follows that is 1 where x is missing;
- a category by `name` and `values`: it becomes one feature for each value and one for all others;
  a missing category is the empty string.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HUGE = 1e100
_LIMIT = 1e4  # standard deviations: a slip of the keyboard must not become an infinite float32


def is_known(numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell numbers from missing ones; beyond 1e100 the square of a number is no float64."""
    known: NDArray[np.bool_] = np.abs(numbers) <= _HUGE
    return known


def column_width(column: Mapping[str, Any]) -> int:
    """Features that a column becomes."""
    if "values" in column:
        return len(column["values"]) + 1
    return 2 if column["missing"] else 1


def scale_rows(
    table: Mapping[str, NDArray[Any]], columns: Sequence[Mapping[str, Any]]
) -> NDArray[np.float32]:
    """Turn n rows into features.

    Args:
        table: Values of each column, shape (n,): numbers or None, strings or None.
        columns: The description of each column, in the order of the features.

    Returns:
        float32, shape (n, sum of `column_width`).
    """
    parts = []
    for column in columns:
        values = table[column["name"]]
        parts += _one_hot(values, column) if "values" in column else _scaled(values, column)
    return np.concatenate(parts, axis=1, dtype=np.float32)


def _scaled(values: NDArray[Any], column: Mapping[str, Any]) -> list[NDArray[np.float64]]:
    numbers = values.astype(np.float64)  # None becomes NaN
    missing = ~is_known(numbers)
    scaled = (np.where(missing, column["mean"], numbers) - column["mean"]) / column["std"]
    parts = [scaled.clip(-_LIMIT, _LIMIT)]
    if column["missing"]:
        parts.append(missing.astype(np.float64))
    return [part[:, None] for part in parts]


def _one_hot(values: NDArray[Any], column: Mapping[str, Any]) -> list[NDArray[np.float64]]:
    known = column["values"]
    place = {value: i for i, value in enumerate(known)}
    one_hot = np.zeros((len(values), len(known) + 1))
    where = [place.get("" if value is None else value, len(known)) for value in values]
    one_hot[np.arange(len(values)), where] = 1
    return [one_hot]
