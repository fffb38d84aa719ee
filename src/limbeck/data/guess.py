"""Guess what the columns of a file are, and say why.

A guess is shown to the user before anything is spent and stands in the report; naming one input
column in the settings turns guessing of inputs off.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from limbeck.data.cells import as_cells, is_bytes, is_cell
from limbeck.data.columns import STRING, check_columns
from limbeck.data.config import DataConfig
from limbeck.data.images import ENDINGS, check_image
from limbeck.data.schema import Schema
from limbeck.errors import DataError

LABEL_NAMES = ("label", "labels", "class", "target", "sentiment", "category", "y")
TEXT_NAMES = ("text", "sentence", "review", "content", "body", "message", "comment", "document")
ID_NAMES = ("id", "index", "idx", "uuid", "guid", "key", "row", "row_id", "__index_level_0__", "")
MOST_CATEGORIES = 64
"""A string column with more distinct values than this is no category."""
_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
_LONG_TEXT = 20
_LONG_CATEGORY = 40
_LISTED = 4
_TRIED = 20
_INPUTS = ("text", "numeric", "category", "image")
_ANSWER = "it holds the teacher's answers"


@dataclass(frozen=True, slots=True)
class Guess:
    """What columns were taken to be.

    Args:
        schema: The columns; `classes` is empty until the labels have been read.
        notes: One sentence a guessed or ignored column, for the user and the report.
    """

    schema: Schema
    notes: tuple[str, ...]


def guess_schema(
    sample: pa.Table,
    config: DataConfig,
    *,
    where: str,
    answers: Sequence[str] = (),
    folder: Path = Path(),
) -> Guess:
    """Find the label and the input columns, as named in the settings or as they look.

    Args:
        sample: The first rows of the labelled file.
        config: Names that the user gave; they are never second-guessed.
        where: Name of the file, used in messages.
        answers: Columns that hold a teacher's answers: a student that read them would learn to copy
            the teacher, and could not be used without it.
        folder: What paths of images are relative to.

    Raises:
        DataError: a named column is missing or holds answers, or nothing looks like a label or an
            input.
    """
    names = sample.schema.names
    label, notes = _label(names, config.label, where)
    if config.text or config.numeric or config.category or config.image:
        schema = Schema(config.text, config.numeric, config.category, label, (), config.image)
        check_columns(names, schema.inputs, where=where)
        _refuse_answers(schema.inputs, answers)
        return Guess(schema, notes)
    roles = {name: _role(sample.column(name), name, folder) for name in names if name != label}
    roles |= {name: ("ignore", _ANSWER) for name in answers if name in roles}
    return _inputs(roles, label, notes, where)


def _refuse_answers(inputs: Sequence[str], answers: Sequence[str]) -> None:
    both = [name for name in inputs if name in answers]
    if both:
        raise DataError(
            f"column '{both[0]}' is named as an input but holds the teacher's answers; a student "
            f"that reads them learns nothing of its own, so name other columns."
        )


def _label(names: Sequence[str], given: str, where: str) -> tuple[str, tuple[str, ...]]:
    if given:
        check_columns(names, [given], where=where)
        return given, ()
    lowered = {name.lower(): name for name in reversed(names)}
    for candidate in LABEL_NAMES:
        if candidate in lowered:
            name = lowered[candidate]
            return name, (f"'{name}' is taken as the label because of its name.",)
    raise DataError(
        f"{where} has no column that is called like a label ({', '.join(LABEL_NAMES)}); its "
        f"columns are {list(names)}: name the label column with label."
    )


def _inputs(
    roles: dict[str, tuple[str, str]], label: str, notes: tuple[str, ...], where: str
) -> Guess:
    picked: dict[str, list[str]] = {role: [] for role in (*_INPUTS, "string")}
    ignored: list[str] = []
    for name, (role, _) in roles.items():
        picked.get(role, ignored).append(name)
    said = [*notes, *_sentences(ignored, roles, "{} ignored: {}.")]
    if picked["image"]:
        said += _beside_images(picked, roles)
    if not any(picked[role] for role in _INPUTS):
        # Short strings in many forms are the only thing there is: they are the text.
        picked["text"], picked["string"] = picked["string"], []
    said += _sentences(picked["string"], roles, "{} ignored: {}; name it under text if it matters.")
    if picked["text"]:
        unread = picked["numeric"] + picked["category"]
        said += _sentences(
            unread, roles, "{} ignored because there is text ({}); name it to use it."
        )
        picked["numeric"], picked["category"] = [], []
    for role in _INPUTS:
        said += _sentences(picked[role], roles, "{} taken as " + role + ": {}.")
    if not any(picked[role] for role in _INPUTS):
        raise DataError(
            f"{where} has no column that looks like an input beside the label '{label}' "
            f"({' '.join(said)}); name input columns under text, numeric, category or image."
        )
    schema = Schema(
        tuple(picked["text"]),
        tuple(picked["numeric"]),
        tuple(picked["category"]),
        label,
        (),
        tuple(picked["image"]),
    )
    return Guess(schema, tuple(said))


def _beside_images(
    picked: dict[str, list[str]], roles: dict[str, tuple[str, str]]
) -> Iterator[str]:
    """One image column is read and nothing else, since most students of images read no more."""
    first, *further = picked["image"]
    form = "{} ignored because '" + first + "' holds images ({}); name it to use it."
    for role in ("text", "numeric", "category", "string"):
        yield from _sentences(picked[role], roles, form)
        picked[role] = []
    yield from _sentences(further, roles, form)
    picked["image"] = [first]


def _sentences(names: Sequence[str], roles: dict[str, tuple[str, str]], form: str) -> Iterator[str]:
    """One sentence for all columns with the same reason: a table may have hundreds."""
    by_reason: dict[str, list[str]] = {}
    for name in names:
        by_reason.setdefault(roles[name][1], []).append(name)
    for reason, group in by_reason.items():
        if len(group) <= _LISTED:
            said = ", ".join(f"'{name}'" for name in group)
        else:
            said = f"{len(group)} columns ('{group[0]}', '{group[1]}', ... '{group[-1]}')"
        yield form.format(said + (" is" if len(group) == 1 else " are"), reason)


def _role(column: pa.ChunkedArray, name: str, folder: Path) -> tuple[str, str]:
    """A column's role (text, numeric, category, string, image, ignore) and the reason in words."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    values = column.drop_null()
    if len(values) == 0:
        return "ignore", "it is empty"
    if name.lower() in LABEL_NAMES:
        return "ignore", "it is called like a label and could give the answer away"
    if pa.types.is_boolean(kind):
        return "category", "true or false"
    if pa.types.is_integer(kind) and _counts_rows(values, name):
        return "ignore", "it numbers the rows"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "numeric", "numbers"
    if is_cell(kind) or is_bytes(kind):
        return _bytes_role(values, name)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _path_role(values, folder) or _string_role(values.cast(STRING), name)
    if pa.types.is_temporal(kind):
        return "ignore", f"dates and times ({kind}) are not read"
    return "ignore", f"values of type {kind} are not read"


def _bytes_role(values: pa.ChunkedArray, name: str) -> tuple[str, str]:
    first = as_cells(values.slice(0, _TRIED), name, where="sample").to_pylist()
    if any(cell["bytes"] is None or check_image(cell["bytes"]) is None for cell in first):
        return "image", "bytes or paths of image files"
    return "ignore", f"values of type {values.type} that are no images are not read"


def _path_role(values: pa.ChunkedArray, folder: Path) -> tuple[str, str] | None:
    """The role of strings that all end like image files; None for other strings."""
    paths = [value.strip() for value in values.to_pylist() if value.strip()]
    if not paths or not all(path.lower().endswith(ENDINGS) for path in paths):
        return None
    if any((folder / path).is_file() for path in paths[:_TRIED]):
        return "image", "paths of image files"
    return "ignore", f"its values end like image files, but there is no {folder / paths[0]}"


def _string_role(values: pa.ChunkedArray, name: str) -> tuple[str, str]:
    distinct = len(pc.unique(values))
    lengths = pc.utf8_length(values)
    mean, longest = pc.mean(lengths).as_py(), pc.max(lengths).as_py()
    if name.lower() in TEXT_NAMES:
        return "text", "its name says so"
    all_distinct = distinct == len(values) and distinct > 1
    if all_distinct and (_called_id(name) or _UUID.fullmatch(values[0].as_py())):
        return "ignore", "it identifies the rows"
    if distinct <= min(MOST_CATEGORIES, len(values) // 2) and longest <= _LONG_CATEGORY:
        return "category", f"{distinct} distinct short strings"
    if mean >= _LONG_TEXT or pc.mean(_words(values)).as_py() >= 3:
        return "text", f"strings of {mean:.0f} characters on average"
    return "string", f"{distinct} distinct short strings, neither text nor categories"


def _words(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.list_value_length(pc.utf8_split_whitespace(values))


def _called_id(name: str) -> bool:
    lowered = name.lower()
    return lowered in ID_NAMES or lowered.endswith("_id") or lowered.startswith("unnamed:")


def _counts_rows(values: pa.ChunkedArray, name: str) -> bool:
    numbers = values.to_numpy()
    if len(numbers) < 2 or len(np.unique(numbers)) < len(numbers):
        return False
    return _called_id(name) or bool((np.diff(numbers.astype(np.float64)) == 1).all())
