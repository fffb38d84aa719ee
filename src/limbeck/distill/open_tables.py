"""Tables of a run file whose keys depend on what is chosen: settings of a student, of objectives,
and what a search tries.

Their values are read here with the types that the file gives them. The parser of all other settings
sees words only, and would take 1 for true and 0.5 for 0 where any type is allowed.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.errors import ConfigError

Value = bool | int | float | str
Table = dict[str, Value]

STUDENT, OBJECTIVE, SEARCH = "student.settings", "objective.settings", "search.options"
OPEN = (STUDENT, OBJECTIVE, SEARCH)


@dataclass(frozen=True, slots=True)
class OpenTables:
    """What was taken out of a file's tables.

    Args:
        student: Settings of the student.
        objectives: Settings of each objective by its name.
        search: Options of settings that a search tries, as they were given.
    """

    student: Table
    objectives: dict[str, Table]
    search: dict[str, object]


def read_toml(path: Path | None) -> dict[str, Any]:
    """The tables of a file; none without a file.

    Raises:
        ConfigError: it is missing or not TOML.
    """
    if path is None:
        return {}
    if not path.is_file():
        raise ConfigError(f"there is no run file {path}; give the path of a TOML file.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also a file that is no UTF-8
        raise ConfigError(f"not valid TOML: {error} (in {path})") from error


def take_tables(data: dict[str, Any]) -> OpenTables:
    """Take the open tables out of a file's tables, changing them.

    Raises:
        ConfigError: one of them is no table, or holds something else than plain values.
    """
    student = _checked(STUDENT, _pop(data, STUDENT))
    objectives = _pop(data, OBJECTIVE)
    return OpenTables(
        student,
        {
            name: _checked(f"{OBJECTIVE}.{name}", _as_table(f"{OBJECTIVE}.{name}", values))
            for name, values in objectives.items()
        },
        dict(_pop(data, SEARCH)),
    )


def take_options(words: Sequence[str], tables: OpenTables) -> list[str]:
    """Put options such as `--student.settings.hidden 32` into the tables; give the other words.

    Raises:
        ConfigError: an option has no value, or no key.
    """
    rest: list[str] = []
    left = iter(words)
    for word in left:
        option, equals, given = word.partition("=")
        table = next((name for name in OPEN if option.startswith(f"--{name}")), None)
        if table is None:
            rest.append(word)
            continue
        value = given if equals else next(left, None)
        owner, _, key = option.removeprefix(f"--{table}").removeprefix(".").rpartition(".")
        if value is None or not key or (owner == "") != (table != OBJECTIVE):
            raise ConfigError(
                f"{option} cannot be used; write --student.settings.<key> <value>, "
                f"--objective.settings.<objective>.<key> <value>, or --search.options.<key> "
                f"'[<value>, <value>]'."
            )
        key = key.replace("-", "_")
        if table == SEARCH:
            tables.search[key] = _read(value)
            continue
        place = tables.student if table == STUDENT else tables.objectives.setdefault(owner, {})
        place[key] = _parsed(value)
    return rest


def _pop(data: dict[str, Any], name: str) -> Mapping[str, Any]:
    outer, inner = name.split(".")
    around = data.get(outer)
    if not isinstance(around, dict) or inner not in around:
        return {}
    return _as_table(name, around.pop(inner))


def _as_table(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{name}={value!r}: must be a table of settings.")
    return value


def _checked(name: str, values: Mapping[str, Any]) -> Table:
    for key, value in values.items():
        if not isinstance(value, Value):
            raise ConfigError(f"{name}.{key}={value!r}: must be a number, a string, true or false.")
    return dict(values)


def _parsed(text: str) -> Value:
    """A word of the command line as TOML would read it; what is no TOML is a string."""
    value = _read(text)
    return value if isinstance(value, Value) else text


def _read(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
