"""Files that go out to people and come back: one line a question, with a column for the label.

A file is CSV, TSV or JSONL by its ending. What comes back may have its lines in another order, some
of them missing, and be saved by a spreadsheet: with a byte-order mark, with semicolons, with other
columns gone. Only `question_id` and `label` are read.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from limbeck.data.ids import ID_BYTES
from limbeck.data.images import FORMATS
from limbeck.errors import ConfigError, DataError
from limbeck.storage import write_bytes, write_text

ENDINGS = (".csv", ".tsv", ".jsonl")
ID, LABEL, QUESTION, CLASSES = "question_id", "label", "question", "classes"
_OWN = (ID, LABEL, QUESTION, CLASSES)
_AS_IT_IS = {"PNG": ".png", "JPEG": ".jpg", "GIF": ".gif", "BMP": ".bmp", "WEBP": ".webp"}
"""Formats that any browser shows; others are written as PNG."""


class Line(NamedTuple):
    """A line that has come back.

    Args:
        number: Where it begins in the file, from 1.
        question: Its question id as written.
        label: Its label as written, without white space around it.
    """

    number: int
    question: str
    label: str


def check_sheet(path: Path) -> None:
    """Refuse a file whose ending says no format that people's files have.

    Raises:
        ConfigError: names the endings.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(
            f"{path} should end in {', '.join(ENDINGS)}; a spreadsheet saves as CSV when asked to."
        )


def write_sheet(
    path: Path,
    ids: NDArray[np.uint8],
    rows: pa.RecordBatch,
    *,
    columns: Sequence[str],
    images: Sequence[str],
    question: str,
    classes: Sequence[str],
) -> None:
    """Write questions with an empty column for the label.

    Args:
        path: .csv, .tsv or .jsonl. Images are written into a folder beside it that is called like
            it, and the file holds their paths.
        ids: Question ids, uint8, shape (n, 16).
        rows: The rows that the questions are about.
        columns: Inputs to show.
        images: Which of them are images.
        question: What people are asked.
        classes: What they may answer.

    Raises:
        ConfigError: the ending is none of these.
        StorageError: a file cannot be written.
    """
    check_sheet(path)
    names = {name: f"input_{name}" if name in _OWN else name for name in columns}
    records = []
    for key, row in zip(ids, rows.select(list(columns)).to_pylist(), strict=True):
        one = written_id(key)
        shown = {
            names[name]: _image_file(path, name, one, value) if name in images else value
            for name, value in row.items()
        }
        records.append(
            {ID: one, **shown, QUESTION: question, CLASSES: " | ".join(classes), LABEL: ""}
        )
    if path.suffix.lower() == ".jsonl":
        lines = (json.dumps(record, ensure_ascii=False) for record in records)
        write_text(path, "".join(f"{line}\n" for line in lines))
        return
    text = io.StringIO(newline="")
    fields = [ID, *names.values(), QUESTION, CLASSES, LABEL]
    writer = csv.DictWriter(
        text, fields, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(records)
    write_text(path, text.getvalue())


def written_id(key: NDArray[np.uint8]) -> str:
    """A question id (16 bytes) as files have it: a letter first, lest it be taken for a number."""
    return f"q{bytes(key).hex()}"


def read_id(text: str) -> bytes | None:
    """The 16 bytes of a question id that a file has, or None where it is none."""
    try:
        key = bytes.fromhex(text.removeprefix("q"))
    except ValueError:
        return None
    return key if text.startswith("q") and len(key) == ID_BYTES else None


def read_sheet(path: Path) -> list[Line]:
    """Read what has come back.

    Raises:
        DataError: the file is not there, is no such file, or lacks a column.
    """
    check_sheet(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}; give the one that came back.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text; save it again with UTF-8 encoding.") from error
    lines = _json_lines(path, text) if path.suffix.lower() == ".jsonl" else _table_lines(path, text)
    return list(lines)


def _table_lines(path: Path, text: str) -> Iterator[Line]:
    head = text.partition("\n")[0]
    mark = max("\t;,", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        for wanted in (ID, LABEL):
            if names.count(wanted) != 1:
                raise DataError(
                    f"{path} has {names.count(wanted) or 'no'} columns {wanted!r}, expected one; "
                    f"its columns are {names}: leave {ID} and {LABEL} in the file as they were."
                )
        places = names.index(ID), names.index(LABEL)
        begin = reader.line_num + 1
        for row in reader:
            if any(cell.strip() for cell in row):
                # A spreadsheet leaves out empty cells at the end of a line.
                cells = [*row, *[""] * (len(names) - len(row))]
                yield Line(begin, cells[places[0]].strip(), cells[places[1]].strip())
            begin = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: {error}; save the file as CSV again."
        ) from error


def _json_lines(path: Path, text: str) -> Iterator[Line]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: no JSON ({error}); correct it.") from error
        if not isinstance(record, dict) or ID not in record:
            raise DataError(f"{path}, line {number}: expected an object with {ID!r} and {LABEL!r}.")
        label = record.get(LABEL)
        yield Line(number, str(record[ID]).strip(), "" if label is None else str(label).strip())


def _image_file(path: Path, column: str, question: str, data: bytes) -> str:
    """Write an image beside the file; give its path from there."""
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        ending = _AS_IT_IS.get(image.format or "", "")
        if not ending:
            with BytesIO() as file:
                plain = image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB")
                plain.save(file, "PNG")
                data, ending = file.getvalue(), ".png"
    place = Path(f"{path.stem}_images") / f"{question}_{column}{ending}"
    write_bytes(path.parent / place, data)
    return str(place)
