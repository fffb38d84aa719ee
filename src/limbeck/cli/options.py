"""Options that several commands about a run have in common."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from limbeck.cli.console import NO_RUN_FILE

if TYPE_CHECKING:
    from limbeck.distill.config import DistillConfig

Settings = Annotated[Sequence[str], Parameter(parse=False)]


def short_options(
    labelled: Path | None,
    pool: Path | None,
    test: Path | None,
    teacher: str | None,
    budget: int | None,
    out: Path | None,
) -> dict[str, str | int | Path | None]:
    """Keys of a run file that have a short option, with what was given."""
    return {
        "data.labelled": labelled,
        "data.pool": pool,
        "data.test": test,
        "teacher.kind": teacher,
        "budget": budget,
        "out": out,
    }


def load_run(
    run_file: Path | None, short: dict[str, str | int | Path | None], settings: Sequence[str]
) -> "DistillConfig":
    """Settings of a run: options over the file over the defaults.

    Raises:
        ConfigError: a key is unknown or a value is refused.
    """
    from limbeck.distill.run_file import load_config

    words = [
        word
        for name, value in short.items()
        if value is not None
        for word in (f"--{name}", str(value))
    ]
    file = None if run_file is None or str(run_file) == NO_RUN_FILE else run_file
    return load_config(file, [*words, *settings])
