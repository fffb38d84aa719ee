"""Every exception and warning of Limbeck.

A message says what was wrong (the value), what was expected, and how to mend it, in one sentence.
The command line prints that sentence and leaves with `exit_code`; only `--debug` shows a traceback.
"""

from typing import ClassVar


class LimbeckError(Exception):
    """Anything that Limbeck refuses or fails to do."""

    exit_code: ClassVar[int] = 1


class ConfigError(LimbeckError, ValueError):
    """A setting has a value that cannot be used."""

    exit_code = 2


class WaitingError(ConfigError):
    """People have questions to answer before the run can go on."""


class ShapeError(LimbeckError, ValueError):
    """A tensor has the wrong shape or dtype."""

    exit_code = 2


class DataError(LimbeckError, ValueError):
    """A file or a table cannot be used as it is."""

    exit_code = 2


class AnswerError(LimbeckError, ValueError):
    """A teacher's answer is not a probability vector over the task's classes."""

    exit_code = 2


class StudentError(LimbeckError, ValueError):
    """A student folder is incomplete, changed since it was written, or of another version."""

    exit_code = 2


class ExportError(StudentError):
    """A student cannot be written in another form; the student itself is whole."""


class StorageError(LimbeckError, OSError):
    """A file cannot be written or read: full disk, read-only folder, broken file."""

    exit_code = 2


class MissingExtraError(LimbeckError, ImportError):
    """An optional package is not installed; the message is the install line."""

    exit_code = 2


class TeacherError(LimbeckError, RuntimeError):
    """The teacher could not answer."""


class WorkerLostError(TeacherError):
    """Whatever computed the answers died before it gave them; the questions may be put again."""


class BudgetError(LimbeckError, RuntimeError):
    """The budget of answers or of money is spent."""

    exit_code = 3


class LimitError(BudgetError):
    """The limit that a ledger has for all runs together is spent."""


class LimbeckWarning(UserWarning):
    """Something works, but probably not as intended."""


def missing_extra(package: str, extra: str) -> MissingExtraError:
    """Build the error that names the install line of an optional package."""
    return MissingExtraError(
        f"{package} is not installed; run: pip install 'limbeck[{extra}]' (it is an optional part)."
    )


def one_line(error: Exception) -> str:
    """What an error of somebody else's code says, in one line of 300 characters at most."""
    return " ".join(str(error).split())[:300]
