"""Fitted encoders in files, so that what takes long to learn from rows is learnt once.

A plan and the run after it, or the members of a teacher, fit the same encoder to the same rows.
The file's name is a hash of everything that the result hangs on; one that cannot be read is
written anew.
"""

import base64
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

import limbeck
from limbeck.data.schema import Schema
from limbeck.errors import LimbeckError
from limbeck.storage import write_json
from limbeck.students.base import Encoder

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_PACKAGES = ("tokenizers", "pillow", "numpy")


@dataclass(frozen=True, slots=True)
class Keep:
    """Where fitted encoders are kept.

    Args:
        folder: Made when it is not there.
        source: Names the content of the rows and their order, such as a hash of their ids.
    """

    folder: Path
    source: str

    def fitted(
        self,
        kind: type[Encoder],
        batches: Iterable[pa.RecordBatch],
        schema: Schema,
        settings: "DataclassInstance",
    ) -> Encoder:
        """The encoder that `kind.fit` gives, read back where it was fitted before.

        Args:
            kind: Its class.
            batches: The rows; not read when it was fitted before.
            schema, settings: As for `Encoder.fit`.
        """
        path = self.folder / f"{kind.kind}-{self._name(kind, schema, settings)}.json"
        kept = _read(kind, path)
        if kept is not None:
            return kept
        made = kind.fit(batches, schema, settings)
        files = {name: base64.b64encode(data).decode() for name, data in made.files().items()}
        write_json(path, {"config": made.to_config(), "files": files})
        return made

    def _name(self, kind: type[Encoder], schema: Schema, settings: "DataclassInstance") -> str:
        versions = [importlib.metadata.version(package) for package in _PACKAGES]
        parts = [
            *(kind.__module__, kind.__qualname__, limbeck.__version__, *versions),
            *(asdict(settings), asdict(schema), self.source),
        ]
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _read(kind: type[Encoder], path: Path) -> Encoder | None:
    """What a file holds, or None where it is missing or cannot be used."""
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_bytes())
        files = {name: base64.b64decode(data) for name, data in kept["files"].items()}
        return kind.from_files(kept["config"], files)
    except (ValueError, KeyError, TypeError, AttributeError, LimbeckError):
        return None
