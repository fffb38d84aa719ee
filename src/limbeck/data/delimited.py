"""CSV and TSV, streamed by Arrow with declared types, with the line of the first bad row."""

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from limbeck.errors import DataError

_BLOCK_BYTES = 4 << 20
"""What Arrow parses at a time: bounds memory, and the longest row that can be read."""


@contextmanager
def opened(
    file: Path, form: str, types: Mapping[str, pa.DataType] | None = None
) -> Iterator["pa.csv.CSVStreamingReader"]:
    """Open a file for streaming; without types all columns come, as the first block looks.

    Args:
        file: The file.
        form: "csv" or "tsv".
        types: The columns to read, in this order, and their types.

    Raises:
        DataError: a row is malformed or does not fit the types, here or while it is read.
    """
    from pyarrow import csv as arrow_csv

    try:
        with arrow_csv.open_csv(
            file,
            read_options=arrow_csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            parse_options=arrow_csv.ParseOptions(
                delimiter=_delimiter(form), newlines_in_values=True
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict(types or {}), include_columns=list(types or ())
            ),
        ) as reader:
            yield reader
    except pa.ArrowInvalid as error:
        raise DataError(_fault(file, form, types or {}, str(error))) from error


def batches(file: Path, form: str, kinds: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
    """Stream columns as strings, numbers, or (kind "any") whichever their first block looks like.

    Raises:
        DataError: a row is malformed or holds text where a number should be.
    """
    types = {name: pa.float64() if k == "number" else pa.string() for name, k in kinds.items()}
    if "any" in kinds.values():
        with opened(file, form) as reader:
            guessed = {field.name: field.type for field in reader.schema}
        for name in (name for name, kind in kinds.items() if kind == "any"):
            # Whole numbers in the first block may be followed by fractions: float64 holds both.
            seen = guessed[name]
            number = pa.types.is_integer(seen) or pa.types.is_floating(seen)
            types[name] = pa.float64() if number else pa.string()
    with opened(file, form, types) as reader:
        yield from reader


def _fault(file: Path, form: str, types: Mapping[str, pa.DataType], said: str) -> str:
    """Find the line of the first bad row; Arrow does not count lines while it streams."""
    if "straddling" in said:
        return (
            f"{file} holds a row longer than {_BLOCK_BYTES >> 20} MB, often a quote that is never "
            f"closed; close the quote or shorten the row."
        )
    mark = _delimiter(form)
    try:
        with file.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.reader(handle, delimiter=mark)
            header = next(reader)
            numbers = [i for i, name in enumerate(header) if types.get(name) == pa.float64()]
            for row in reader:
                where = f"{file}, line {reader.line_num}"
                if row and len(row) != len(header):
                    return (
                        f"{where}: {len(row)} values, expected {len(header)} "
                        f"({', '.join(header)}); quote values that hold a {mark!r} or a line break."
                    )
                for i in (i for i in numbers if row and not _is_number(row[i])):
                    return (
                        f"{where}: column '{header[i]}' holds {row[i]!r}, expected a number; "
                        f"clean it, or list the column under text or category."
                    )
    except UnicodeDecodeError:
        return f"{file} is not UTF-8 text; save it again with UTF-8 encoding."
    except (csv.Error, StopIteration):
        pass  # the general message below is the best that can be said
    return f"{file} is not a readable {form.upper()} file ({said}); repair it or export it again."


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return value.strip().lower() in ("", "na", "n/a", "null", "none", "#n/a", "nan", "-nan")
    return True


def _delimiter(form: str) -> str:
    return "\t" if form == "tsv" else ","
