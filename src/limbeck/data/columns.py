"""Columns of whatever type a file had, made into the few types that Limbeck works with.

Text and categories become large_string without nulls (a missing string is the empty one), numbers
become float64 (a missing number is NaN), images large_binary (the bytes of a file), labels class
names (a missing label is null).
"""

from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from limbeck.data.cells import image_column
from limbeck.data.schema import Schema
from limbeck.errors import DataError

STRING = pa.large_string()
NUMBER = pa.float64()


def normalise(batch: pa.RecordBatch, schema: Schema, *, where: str) -> pa.RecordBatch:
    """Pick the inputs of a task out of rows and give them their types.

    Args:
        batch: Rows with at least the input columns.
        schema: What the columns are.
        where: Name of the file or argument, used in messages.

    Returns:
        The input columns in the order of `schema.inputs`.

    Raises:
        DataError: a column is missing, of a type that cannot be used, or holds infinity.
    """
    check_columns(batch.schema.names, schema.inputs, where=where)
    arrays = [_input_column(batch.column(name), name, schema, where) for name in schema.inputs]
    return pa.RecordBatch.from_arrays(arrays, names=list(schema.inputs))


def _input_column(column: pa.Array, name: str, schema: Schema, where: str) -> pa.Array:
    if name in schema.image:
        return image_column(column, name, where=where)
    if name in schema.numeric:
        return number_column(column, name, where=where)
    return string_column(column, name, where=where).fill_null("")


def check_columns(have: Sequence[str], want: Sequence[str], *, where: str) -> None:
    """Refuse rows that lack a column, naming the nearest one that is there.

    Raises:
        DataError: names the first missing column, the nearest and all columns.
    """
    for name in want:
        if name not in have:
            hint = f" (did you mean '{near}'?)" if (near := nearest(name, have)) else ""
            raise DataError(
                f"{where} has no column '{name}'{hint}; its columns are {list(have)}: "
                f"name one of these or add the column."
            )


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The most similar of `names`, ignoring case, or None when nothing is similar."""
    lowered = {other.lower(): other for other in names}
    close = get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.5)
    return lowered[close[0]] if close else None


def string_column(column: pa.Array, name: str, *, where: str) -> pa.LargeStringArray:
    """A column as large_string, missing values as nulls; 1.0 and 1 are both "1"."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_floating(kind):
        numbers = column.to_numpy(zero_copy_only=False).astype(np.float64)
        column = pa.array(numbers, from_pandas=True)
        whole = np.isnan(numbers) | ((numbers % 1 == 0) & (np.abs(numbers) < 2**53))
        if whole.all():
            column = column.cast(pa.int64())
    elif pa.types.is_nested(kind):
        raise DataError(
            f"{where}: column '{name}' holds {kind}, expected one string a row; "
            f"join its parts into a string or leave the column out."
        )
    try:
        return column.cast(STRING)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"{where}: column '{name}' holds {kind} that cannot be read as text ({error}); "
            f"store it as UTF-8 strings."
        ) from error


def number_column(column: pa.Array, name: str, *, where: str) -> pa.DoubleArray:
    """A column as float64, missing values as NaN.

    Raises:
        DataError: a value is infinite or is no number.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = _parsed_numbers(column, name, where=where)
    elif not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    ):
        raise DataError(
            f"{where}: column '{name}' holds {kind}, expected numbers; "
            f"convert it to numbers or leave it out."
        )
    numbers = column.cast(NUMBER, safe=False).fill_null(np.nan)
    infinite = np.isinf(numbers.to_numpy(zero_copy_only=False))
    if infinite.any():
        raise DataError(
            f"{where}: column '{name}' holds {int(infinite.sum())} infinite values "
            f"(first: {numbers[int(infinite.argmax())].as_py()}), expected finite numbers; "
            f"leave a value empty where it is unknown."
        )
    return numbers


def label_column(column: pa.Array, name: str, *, where: str) -> pa.LargeStringArray:
    """A column of labels as class names; null where a label is missing or empty.

    Raises:
        DataError: labels are fractions, as in a regression task.
    """
    if pa.types.is_floating(column.type):
        numbers = column.to_numpy(zero_copy_only=False).astype(np.float64)
        fractions = numbers[np.isfinite(numbers) & (numbers % 1 != 0)]
        if len(fractions):
            raise DataError(
                f"{where}: label column '{name}' holds the fraction {fractions[0]:g}, expected "
                f"class names; Limbeck classifies, so name the column that holds the classes."
            )
    names = pc.utf8_trim_whitespace(string_column(column, name, where=where))
    return pc.if_else(pc.equal(names, ""), pa.scalar(None, STRING), names)


def kept_column(column: pa.Array) -> pa.Array:
    """A column that is carried along but is no input: numbers as float64, strings large."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_string(kind):
        return column.cast(STRING)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column.cast(NUMBER, safe=False)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return column.cast(pa.list_(NUMBER), safe=False)
    return column


def blank_rows(batch: pa.RecordBatch, schema: Schema) -> NDArray[np.bool_]:
    """Rows whose text columns are all empty or white space, bool, shape (n,).

    A row with an image has something to look at, whatever its texts.
    """
    blank = np.full(batch.num_rows, bool(schema.text) and not schema.image)
    for name in schema.text:
        trimmed = pc.utf8_trim_whitespace(batch.column(name))
        blank &= pc.equal(trimmed, "").to_numpy(zero_copy_only=False)
    return blank


def _parsed_numbers(column: pa.Array, name: str, *, where: str) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(column)
    known = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, trimmed.type), trimmed)
    try:
        return known.cast(NUMBER)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{where}: numeric column '{name}' holds text ({error}), expected numbers; "
            f"list it under text or category instead, or clean it."
        ) from error
