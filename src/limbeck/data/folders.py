"""Folders of images: flat, or one sub-folder a class."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from limbeck.data.images import ENDINGS
from limbeck.errors import DataError

FLAT, BY_CLASS = "images", "images by class"
"""Formats of a source: images alone, or images in the folders of their classes."""
IMAGE, LABEL = "image", "label"
"""Columns that a folder of images has."""


def is_image(file: Path) -> bool:
    """Whether a path is a file that is called like an image."""
    return file.suffix.lower() in ENDINGS and not _hidden(file) and file.is_file()


def find_images(folder: Path) -> tuple[list[Path], str] | None:
    """The images of a folder, sorted by name, and which of the two formats it has.

    Returns:
        None when the folder holds neither images nor folders of images.

    Raises:
        DataError: images lie in several levels, or a class folder has none.
    """
    entries = sorted(folder.iterdir())
    flat = [entry for entry in entries if is_image(entry)]
    inner = {
        entry: [file for file in sorted(entry.iterdir()) if is_image(file)]
        for entry in entries
        if entry.is_dir() and not _hidden(entry)
    }
    nested = [file for files in inner.values() for file in files]
    if flat and nested:
        raise DataError(
            f"{folder} holds images of its own ({flat[0].name}) and folders of images "
            f"({nested[0].parent.name}), expected one folder a class or images alone; move the "
            f"images into class folders, or give the folders one by one."
        )
    if flat:
        return flat, FLAT
    _check_classes(folder, inner)
    return (nested, BY_CLASS) if nested else None


def names(form: str) -> list[str]:
    """Names of the columns."""
    return [IMAGE, LABEL] if form == BY_CLASS else [IMAGE]


def batches(files: Sequence[Path], columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Paths of images and names of their folders, at most `rows` at a time."""
    for start in range(0, len(files), rows):
        part = files[start : start + rows]
        values = {
            IMAGE: [str(file.absolute()) for file in part],
            LABEL: [file.parent.name for file in part],
        }
        yield pa.RecordBatch.from_arrays(
            [pa.array(values[name], pa.large_string()) for name in columns], names=list(columns)
        )


def _check_classes(folder: Path, inner: dict[Path, list[Path]]) -> None:
    for entry, files in inner.items():
        deeper = next((path for path in sorted(entry.iterdir()) if _holds_images(path)), None)
        if deeper is not None:
            raise DataError(
                f"{folder} holds images below its class folders (in {deeper}), expected them in "
                f"{folder}/<class>/; give the folder whose sub-folders are the classes."
            )
        if not files and any(inner.values()):
            raise DataError(
                f"class folder {entry} holds no image, expected files that end in "
                f"{', '.join(ENDINGS)}; add images or remove the folder."
            )


def _holds_images(path: Path) -> bool:
    return path.is_dir() and not _hidden(path) and any(map(is_image, path.iterdir()))


def _hidden(path: Path) -> bool:
    return path.name.startswith((".", "_"))
