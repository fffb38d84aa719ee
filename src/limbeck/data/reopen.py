"""The record of a staged folder: does it belong to these settings and these files?"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from limbeck.data.config import DataConfig
from limbeck.data.folders import BY_CLASS, FLAT
from limbeck.data.sources import Source
from limbeck.errors import DataError
from limbeck.storage import sha256

_PATHS = ("labelled", "pool", "validation", "test")


def settings_of(config: DataConfig, seed: int, keep: Sequence[str]) -> dict[str, object]:
    """What decides which rows are staged, as plain JSON values; paths are compared by content."""
    values = {name: value for name, value in asdict(config).items() if name not in _PATHS}
    given = [name for name in _PATHS if getattr(config, name) is not None]
    settings = {**values, "files": given, "seed": seed, "keep": sorted(keep)}
    return cast(dict[str, object], json.loads(json.dumps(settings)))


def describe_sources(sources: Mapping[str, Source]) -> dict[str, list[dict[str, object]]]:
    """Name, size, time of change and hash of every file of every source.

    A folder of images is described as one: name, size and time of change of all its files.
    """
    return {
        role: [_image_list(source)]
        if source.format in (FLAT, BY_CLASS)
        else [
            {
                "path": str(file),
                "bytes": file.stat().st_size,
                "changed_ns": file.stat().st_mtime_ns,
                "sha256": sha256(file),
            }
            for file in source.files
        ]
        for role, source in sources.items()
    }


def _image_list(source: Source) -> dict[str, object]:
    listed = hashlib.sha256()
    total = 0
    for file in source.files:
        stat = file.stat()
        total += stat.st_size
        name = f"{file.parent.name}/{file.name}" if source.format == BY_CLASS else file.name
        listed.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return {
        "path": str(source.path),
        "images": len(source.files),
        "bytes": total,
        "sha256": listed.hexdigest(),
    }


def read_record(
    path: Path, settings: Mapping[str, object], sources: Mapping[str, Source]
) -> dict[str, Any]:
    """Read `splits.json` and compare it with what the user asks for now.

    Sources that are gone are not missed: their rows are staged.

    Raises:
        DataError: the record cannot be read, or settings or files have changed since.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        was, files = record["settings"], record["sources"]
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{path} is damaged ({error}); remove the folder {path.parent} and run again."
        ) from error
    for name, value in settings.items():
        # A setting that a folder was staged before had its default, which is empty.
        if was.get(name) != value and (name in was or value):
            raise DataError(
                f"{path.parent} was staged with {name} = {was.get(name)!r} but {name} = {value!r} "
                f"is asked for now; use a new folder, or the settings of before."
            )
    for role, source in sources.items():
        _check_unchanged(path.parent, source, files.get(role, []))
    return record


def _check_unchanged(folder: Path, source: Source, before: Sequence[Mapping[str, object]]) -> None:
    if source.format in (FLAT, BY_CLASS):
        now = _image_list(source)
        same = [old.get("sha256") for old in before] == [now["sha256"]]
        files: tuple[Path, ...] = ()
    else:
        same = len(source.files) == len(before)
        files = source.files
    for file, old in zip(files, before, strict=False):
        stat = file.stat()
        touched = (stat.st_size, stat.st_mtime_ns) != (old["bytes"], old["changed_ns"])
        # A copied file has a new time but the same bytes: only then is it read again.
        if touched and (stat.st_size != old["bytes"] or sha256(file) != old["sha256"]):
            same = False
    if not same:
        raise DataError(
            f"{source.path} has changed since {folder} was staged from it; use a new folder for "
            f"the new rows, or put the old file back."
        )
