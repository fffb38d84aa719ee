"""Reading the settings of a run: options over the environment over a TOML file over defaults.

A value given as an option wins over the environment (`LIMBECK_TRAIN_STEPS=500`), the environment
over the file, the file over the default.
"""

import difflib
import os
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated

from limbeck.data.config import DataConfig
from limbeck.distill.buy_config import BuyConfig
from limbeck.distill.config import (
    DecisionConfig,
    DistillConfig,
    ObjectiveConfig,
    StudentConfig,
    TrainConfig,
)
from limbeck.distill.open_tables import OPEN, read_toml, take_options, take_tables
from limbeck.distill.search.config import SearchConfig, checked_options
from limbeck.engines.config import RayConfig
from limbeck.errors import ConfigError
from limbeck.teachers.config import TeacherConfig
from limbeck.teachers.endpoint_config import EndpointConfig

PATH_OPTIONS = (
    *("--data.labelled", "--data.pool", "--data.validation", "--data.test"),
    *(
        "--teacher.path",
        "--teacher.weights",
        "--student.settings.path",
        "--search.table",
        "--out",
        "--ledger",
        "--code",
    ),
)
NO_VARIABLES = ("teacher.endpoint.class_names",)
"""Tables with keys of the user's."""
OTHER_VARIABLES = ("LIMBECK_DATA", "LIMBECK_DEBUG")
"""Variables that are no settings: the benchmarks' data, and tracebacks."""
LISTS = ("data.text", "data.numeric", "data.category", "data.image", "data.classes",
         "teacher.classes", "teacher.columns", "teacher.trusted", "objective.arms")  # fmt: skip
REQUIRED = {
    "--budget": ("budget", "--budget"),
    "--data": ("data.labelled", "--labelled"),
    "--data.labelled": ("data.labelled", "--labelled"),
    "--teacher": ("teacher.kind", "--teacher"),
    "--teacher.kind": ("teacher.kind", "--teacher"),
}
"""What has no default, by the parser's name: its key and its option."""
TABLES: dict[str, type] = {
    "data": DataConfig,
    "teacher": TeacherConfig,
    "teacher.endpoint": EndpointConfig,
    "student": StudentConfig,
    "train": TrainConfig,
    "objective": ObjectiveConfig,
    "buy": BuyConfig,
    "search": SearchConfig,
    "decision": DecisionConfig,
    "ray": RayConfig,
}


def load_config(path: Path | None, options: Sequence[str] = ()) -> DistillConfig:
    """Read a run file, with the environment and options of the command line over it.

    Args:
        path: A TOML file, or None when the options say everything.
        options: Command-line words such as `["--train.steps", "500"]`.

    Raises:
        ConfigError: the file is missing or not TOML, a key is unknown (the nearest one is named),
            or a value is refused.
    """
    from cyclopts import App, CycloptsError, MissingArgumentError, Parameter
    from cyclopts.config import Dict

    data = read_toml(path)
    tables = take_tables(data)
    given = take_options(_absolute(options), tables)
    sources = [] if path is None else [Dict(data, use_commands_as_keys=False, source=str(path))]
    app = App(config=sources, help_flags=[], version_flags=[], result_action="return_value")

    @app.default
    def _read(config: Annotated[DistillConfig, Parameter(name="*")]) -> DistillConfig:
        return config

    try:
        config = app([*from_environment(given), *given], exit_on_error=False, print_error=False)
    except MissingArgumentError as error:
        raise ConfigError(_missing(error.argument.name if error.argument else "", path)) from error
    except CycloptsError as error:
        raise ConfigError(_sentence(str(error), path)) from error
    assert isinstance(config, DistillConfig)
    config = replace(
        config,
        student=replace(config.student, settings=tables.student),
        objective=replace(config.objective, settings=tables.objectives),
        search=replace(config.search, options=checked_options(tables.search)),
    )
    return _from_folder(config, Path() if path is None else path.parent)


def _from_folder(config: DistillConfig, folder: Path) -> DistillConfig:
    """Paths in a run file are relative to the file, wherever the command is run."""
    folder = folder.resolve()
    return replace(
        config,
        data=config.data.relative_to(folder),
        teacher=config.teacher.relative_to(folder),
        student=_student_from(config.student, folder),
        search=config.search.relative_to(folder),
        out=(folder / config.out).resolve(),
        ledger=(folder / config.ledger).resolve(),
        code=(folder / config.code).resolve(),
    )


def _student_from(student: StudentConfig, folder: Path) -> StudentConfig:
    """A setting called path is one, whatever the kind of student."""
    path = student.settings.get("path")
    if not isinstance(path, str) or not path:
        return student
    return replace(student, settings={**student.settings, "path": str((folder / path).resolve())})


def from_environment(options: Sequence[str]) -> list[str]:
    """Settings in the environment, as options, less those that an option gives.

    `LIMBECK_TRAIN_STEPS=500` becomes `--train.steps=500`; a list is separated by white space.

    Raises:
        ConfigError: a variable begins with LIMBECK_ but names no setting.
    """
    known = {
        "LIMBECK_" + key.upper().replace(".", "_"): key
        for key in _keys(DistillConfig)
        if key not in OPEN and key not in NO_VARIABLES
    }
    given = {word.split("=")[0].removeprefix("--").replace("-", "_") for word in options}
    words: list[str] = []
    for name, value in sorted(os.environ.items()):
        if not name.startswith("LIMBECK_") or name in OTHER_VARIABLES:
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise ConfigError(f"{name} in the environment is no setting; did you mean {near[0]}?")
        key = known[name]
        if key not in given:
            words += [f"--{key}={part}" for part in (value.split() if key in LISTS else [value])]
    return _absolute(words)


def _keys(table: type, prefix: str = "") -> list[str]:
    """All settings by their dotted names."""
    keys = []
    for entry in fields(table):
        inner = TABLES.get(prefix + entry.name)
        keys += _keys(inner, f"{prefix}{entry.name}.") if inner else [prefix + entry.name]
    return keys


def _absolute(options: Sequence[str]) -> list[str]:
    """Paths in options are relative to where the command is run."""
    words: list[str] = []
    for i, word in enumerate(options):
        name, equals, value = word.partition("=")
        if equals and name in PATH_OPTIONS:
            words.append(f"{name}={Path(value).resolve()}")
        elif i and options[i - 1] in PATH_OPTIONS:
            words.append(str(Path(word).resolve()))
        else:
            words.append(word)
    return words


def _missing(option: str, path: Path | None) -> str:
    key, short = REQUIRED.get(option, (option.removeprefix("--"), option))
    where = f"{key} in {path}" if path is not None else f"{key} in a run file"
    return f"{key} is missing; give it with {short}, or as {where}."


def _sentence(message: str, path: Path | None) -> str:
    source = f" (in {path})" if path is not None and str(path) not in message else ""
    plain = message.replace("TOMLDecodeError:", "not valid TOML:")
    return " ".join(plain.split()) + source
