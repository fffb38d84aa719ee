"""JSON Lines, one object a line, read with the exact line of every fault.

Lines are parsed by the standard library: a column may be missing on some lines and hold numbers on
others, which column-wise parsers infer wrongly from their first block.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import pyarrow as pa

from limbeck.errors import DataError

_SHOWN = 40


def names(file: Path, wanted: set[str]) -> list[str]:
    """Keys of the file's objects, read until all of `wanted` have been seen."""
    seen: dict[str, None] = {}
    for _, row in _objects(file):
        seen |= dict.fromkeys(row)
        if wanted <= seen.keys():
            break
    return list(seen)


def sample(file: Path, rows: int) -> pa.Table:
    """The first rows with the types that Arrow sees; a column of mixed types becomes strings."""
    objects = [row for _, row in islice(_objects(file), rows)]
    keys = dict.fromkeys(key for row in objects for key in row)
    return pa.table({key: mixed_column([row.get(key) for row in objects]) for key in keys})


def batches(file: Path, kinds: Mapping[str, str], rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of at most `rows` rows with the columns of `kinds`; a missing key is a null.

    Raises:
        DataError: a line is no JSON object, or a value does not fit its column.
    """
    lines = _objects(file)
    while chunk := list(islice(lines, rows)):
        arrays = [_column(file, chunk, name, kind) for name, kind in kinds.items()]
        yield pa.RecordBatch.from_arrays(arrays, names=list(kinds))


def mixed_column(values: list[object]) -> pa.Array:
    """An Arrow array of Python values; strings where they have no common type."""
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([as_string(value) for value in values], pa.large_string())


def as_string(value: object) -> str | None:
    """A value as text: 1.0 and 1 are both "1", true is "true"."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value) if isinstance(value, (bool, int, float)) else str(value)


def _objects(file: Path) -> Iterator[tuple[int, dict[str, object]]]:
    with file.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            # A byte order mark may open the file; json.loads refuses it.
            text = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
            if not text:
                continue
            try:
                row = json.loads(text)
            except ValueError as error:
                raise DataError(
                    f"{file}, line {number}: not JSON ({error}): expected one object a line, such "
                    f'as {{"text": "...", "label": "..."}}; repair the line.'
                ) from error
            if not isinstance(row, dict):
                raise DataError(
                    f"{file}, line {number}: holds a {type(row).__name__}, expected an object "
                    f'such as {{"text": "...", "label": "..."}}; write one object a line.'
                )
            yield number, row


def _column(
    file: Path, chunk: list[tuple[int, dict[str, object]]], name: str, kind: str
) -> pa.Array:
    values = [row.get(name) for _, row in chunk]
    if kind == "any":
        return mixed_column(values)
    if kind in ("string", "image"):
        for (number, _), value in zip(chunk, values, strict=True):
            if isinstance(value, (list, dict)):
                raise DataError(
                    f"{file}, line {number}: '{name}' holds {str(value)[:_SHOWN]}, expected one "
                    f"string; join its parts into a string."
                )
        return pa.array([as_string(value) for value in values], pa.large_string())
    try:
        return pa.array(values, pa.float64(), from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        parsed = [_number(file, n, name, v) for (n, _), v in zip(chunk, values, strict=True)]
        return pa.array(parsed, pa.float64())


def _number(file: Path, line: int, name: str, value: object) -> float | None:
    try:
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        return float(value)  # type: ignore[arg-type]  # what does not convert is caught below
    except (TypeError, ValueError):
        raise DataError(
            f"{file}, line {line}: '{name}' holds {str(value)[:_SHOWN]!r}, expected a number; "
            f"clean it, or list the column under text or category."
        ) from None
