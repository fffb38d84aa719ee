"""The run folder: where each file of a run lies, and what happened when.

The folder is enough to resume the run and to audit it. `run.toml` is written first; a folder whose
`run.toml` differs from the command is refused, so that two experiments never mix. A folder that has
only been labelled holds `label.toml`, and leaves open how students will be trained.
"""

import hashlib
import json
import math
import re
import time
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from limbeck.distill.config import DecisionConfig, DistillConfig
from limbeck.engines.config import RayConfig
from limbeck.errors import ConfigError, LimbeckWarning
from limbeck.storage import append_line, write_text
from limbeck.teachers.endpoint_config import FREE as ENDPOINT_KEYS

RUN_FILE = "run.toml"
LABEL_FILE = "label.toml"
START = "start"
WARNING = "warning"
FREE_KEYS = (
    *("out", "ledger", "code", "budget", "money", "engine"),
    *(f"ray.{entry.name}" for entry in fields(RayConfig)),
    *(f"decision.{entry.name}" for entry in fields(DecisionConfig)),
    *(f"teacher.endpoint.{name}" for name in ENDPOINT_KEYS),
    *("search.trials", "search.workers"),
)
"""Settings that a resumed run may change: where things lie, what more may be spent, where the
teacher is asked, what mistakes cost, which shapes no arm, and how long a search goes on."""
_MEMBER = re.compile(r"(?<=^teacher\.)teachers\.\d+\.")
"""What sets a setting of an ensemble's teacher off from the same setting of a teacher alone."""
LABEL_KEYS = ("data.", "teacher.", "buy.", "seed", "ask_test")
"""Settings that shape which answers are bought: all that a purchase alone ties a folder to."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run.

    Args:
        stage: Part of the run, such as "data", "answers" or the name of an arm.
        message: One line for a person.
        done: Units of the stage that are finished.
        total: All units of the stage, or 0 when it has none.
        detail: Numbers that a program may want.
        note: A few words to show beside the numbers.
    """

    stage: str
    message: str
    done: int = 0
    total: int = 0
    detail: Mapping[str, float | int | str] = field(default_factory=dict)
    note: str = ""


Listener = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Listen to nothing."""


class RunFolder:
    """Paths of a run, and its log of events.

    Args:
        root: The folder; made when it is not there.
        listener: Told of every event, logged or not.
        writes: False in the helper processes of a distributed run, which only read.
    """

    def __init__(self, root: Path, listener: Listener = ignore, *, writes: bool = True) -> None:
        self.root = root
        self.data = root / "data"
        self.encoded = root / "encoded"
        self.checkpoints = root / "checkpoints"
        self.selections = root / "selections"
        self.teacher = root / "teacher"
        self.search = root / "search"
        self.student = root / "student"
        self.metrics = root / "metrics.json"
        self.report = root / "report.html"
        self.events = root / "events.jsonl"
        self._listener = listener
        self._writes = writes

    @property
    def claimed(self) -> bool:
        """Whether a run has begun here to spend or to train; its settings are then final."""
        return any((self.root / name).exists() for name in (RUN_FILE, LABEL_FILE))

    def claim(self, config: DistillConfig, *, file: str = RUN_FILE) -> None:
        """Write `run.toml`: from now on the folder belongs to these settings.

        Args:
            file: RUN_FILE, or LABEL_FILE for a purchase alone, which binds fewer settings.
        """
        self.check(config)
        if self._writes and not (self.root / file).exists():
            write_text(self.root / file, to_toml(config))

    def check(self, config: DistillConfig) -> None:
        """Make sure that the folder is free, or belongs to a run with these settings.

        Raises:
            ConfigError: the folder holds a run with other settings; some are named.
        """
        for file, keys in ((RUN_FILE, ("",)), (LABEL_FILE, LABEL_KEYS)):
            if not (self.root / file).exists():
                continue
            before = _comparable(tomllib.loads((self.root / file).read_text()))
            found = _differences(before, _comparable(_plain(config)))
            differing = [key for key in found if key.startswith(keys)]
            if differing:
                raise ConfigError(
                    f"{self.root} holds a run with another {', '.join(differing[:3])}; "
                    f"choose another folder with --out, or delete this one to start anew."
                )

    def log(self, stage: str, message: str, **detail: float | int | str) -> None:
        """Keep an event in `events.jsonl` and tell the listener."""
        event = Event(stage, message, detail=detail)
        if self._writes:
            record = {"at": round(time.time(), 3), "stage": stage, "message": message, **detail}
            append_line(self.events, json.dumps(record, ensure_ascii=False))
        self._listener(event)

    def tell(self, event: Event) -> None:
        """Tell the listener of progress that is not worth a line in the log."""
        self._listener(event)

    @contextmanager
    def collecting_warnings(self) -> Iterator[None]:
        """Log our own warnings instead of showing them; those of other libraries pass."""
        with warnings.catch_warnings():
            warnings.simplefilter("always", LimbeckWarning)
            show = warnings.showwarning

            def keep(
                message: Warning | str,
                category: type[Warning],
                filename: str,
                lineno: int,
                file: TextIO | None = None,
                line: str | None = None,
            ) -> None:
                if issubclass(category, LimbeckWarning):
                    self.log(WARNING, str(message))
                else:
                    show(message, category, filename, lineno, file, line)

            warnings.showwarning = keep
            yield

    def warnings(self) -> tuple[str, ...]:
        """Everything that the run has warned about, each once, in order."""
        found = [event["message"] for event in self._logged() if event["stage"] == WARNING]
        return tuple(dict.fromkeys(found))

    def seconds(self) -> float:
        """Seconds worked so far, over all the times that the run was started."""
        total, last = 0.0, None
        for event in self._logged():
            if event["stage"] != START and last is not None:
                total += event["at"] - last
            last = event["at"]
        return total

    def _logged(self) -> Iterator[dict[str, Any]]:
        if not self.events.exists():
            return
        for line in self.events.read_text().splitlines():
            try:
                yield json.loads(line)
            except ValueError:  # torn by a kill in the middle of the line
                continue


def to_toml(config: DistillConfig) -> str:
    """Write a configuration as TOML that `load_config` reads back to the same object."""
    return "\n".join(_table("", _plain(config))).lstrip() + "\n"


def settings_hash(*parts: object) -> str:
    """Hash of plain values, as 32 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def content_hash(*ids: NDArray[np.uint8]) -> str:
    """Hash of arrays of ids, as 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for part in ids:
        digest.update(len(part).to_bytes(8, "little") + np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _plain(config: DistillConfig) -> dict[str, object]:
    plain = json.loads(json.dumps(asdict(config), default=str))
    assert isinstance(plain, dict)
    return plain


def _table(name: str, values: Mapping[str, object]) -> list[str]:
    lines = [f"\n[{name}]"] if name else []
    lines += [
        f"{_key(key)} = {_value(value)}"
        for key, value in values.items()
        if not isinstance(value, dict) and value is not None and not _is_tables(value)
    ]
    for key, value in values.items():
        inner = f"{name}.{_key(key)}" if name else _key(key)
        if isinstance(value, dict) and value:
            lines += _table(inner, value)
        elif _is_tables(value):
            assert isinstance(value, list)
            for one in value:
                # The same lines under another head, which says that it is one of several.
                lines += [f"\n[[{inner}]]", *_table(inner, one)[1:]]
    return lines


def _is_tables(value: object) -> bool:
    """Whether a value is a list of tables, which TOML writes one after the other."""
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _key(name: str) -> str:
    """A key as TOML writes it: in quotes where it holds more than letters, digits, - and _."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _value(value: object) -> str:
    """A plain value as TOML writes it: JSON's way, but for infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def _comparable(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _comparable(value, f"{prefix}{key}.")
        elif _is_tables(value):
            assert isinstance(value, list)
            for number, one in enumerate(value, start=1):
                flat |= _comparable(one, f"{prefix}{key}.{number}.")
        elif value is not None and _MEMBER.sub("", prefix + key) not in FREE_KEYS:
            flat[prefix + key] = value
    return flat


def _differences(before: dict[str, object], now: dict[str, object]) -> list[str]:
    return [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
