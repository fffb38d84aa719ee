"""Where rows come from: a file, a folder of parts, or a pattern such as `logs/2024-*.parquet`."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from limbeck.data.folders import FLAT, find_images
from limbeck.data.images import ENDINGS
from limbeck.errors import DataError

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".npz": "npz",
}
"""File endings that can be read, and the format that each stands for."""


@dataclass(frozen=True, slots=True)
class Source:
    """Files of one format that together hold the rows.

    Args:
        path: What the user wrote.
        files: The files, sorted by name; rows are read in this order.
        format: One of parquet, csv, tsv, jsonl, arrow, npz, images, images by class.
    """

    path: Path
    files: tuple[Path, ...]
    format: str


def find_source(path: Path) -> Source:
    """Find the files that a path means.

    Args:
        path: A file, a folder with parts of one format, a folder of images (by class or not), or a
            pattern with `*`, `?` or `[...]`.

    Raises:
        DataError: nothing is there, the ending is unknown, formats are mixed, or a file is empty.
    """
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if _is_part(file)]
        if not files:
            return _image_source(path)
    elif path.is_file():
        files = [path]
    elif any(mark in path.name for mark in "*?["):
        files = [file for file in sorted(path.parent.glob(path.name)) if file.is_file()]
        if not files:
            raise DataError(f"no file matches {path}; check the pattern and the folder.")
    else:
        raise DataError(_missing(path))
    formats = {_format(file) for file in files}
    if len(formats) > 1:
        raise DataError(
            f"{path} holds files of several formats ({', '.join(sorted(formats))}), expected one; "
            f"use a pattern such as {path.parent if path.is_file() else path}/*.parquet."
        )
    # An empty image is reported with the other images that cannot be used.
    for file in files if FLAT not in formats else ():
        if file.stat().st_size == 0:
            raise DataError(f"{file} is empty (0 bytes), expected rows; write the file again.")
    return Source(path, tuple(files), formats.pop())


def _image_source(folder: Path) -> Source:
    found = find_images(folder)
    if found is None:
        raise DataError(
            f"folder {folder} holds no file that can be read, and no images; {_endings()}, images "
            f"in {', '.join(ENDINGS)}."
        )
    return Source(folder, tuple(found[0]), found[1])


def _is_part(file: Path) -> bool:
    hidden = file.name.startswith((".", "_"))
    return file.is_file() and not hidden and file.suffix.lower() in FORMATS


def _format(file: Path) -> str:
    ending = file.suffix.lower()
    if ending in FORMATS:
        return FORMATS[ending]
    if ending in ENDINGS:
        return FLAT
    hint = {
        ".json": "write one object a line and call it .jsonl",
        ".gz": "unpack it first",
        ".zip": "unpack it first",
        ".zst": "unpack it first",
        ".xlsx": "save the sheet as CSV",
        ".txt": "save it as CSV with a header line",
    }.get(ending, "convert it")
    raise DataError(f"{file} ends in '{ending}', which cannot be read; {hint} ({_endings()}).")


def _endings() -> str:
    return "files may end in " + ", ".join(FORMATS)


def _missing(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"{path} does not exist, nor does the folder {folder}; check the path."
    names = sorted(file.name for file in folder.iterdir())
    close = get_close_matches(path.name, names, n=3, cutoff=0.5)
    if close:
        return f"{path} does not exist; did you mean {' or '.join(close)} in {folder}?"
    readable = [name for name in names if Path(name).suffix.lower() in FORMATS][:5]
    seen = f"the folder holds {', '.join(readable)}" if readable else "the folder holds no data"
    return f"{path} does not exist ({seen}); check the name."
