"""Objects that a run file names as `package.module:name`."""

import importlib
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType

from limbeck.errors import ConfigError, one_line


@contextmanager
def importable(folder: Path, *, first: bool = True) -> Iterator[None]:
    """Let modules that lie in a folder be imported inside the block."""
    entry = str(folder.resolve())
    sys.path.insert(0 if first else len(sys.path), entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def import_object(spec: str, folder: Path | None, *, what: str) -> object:
    """Import what `package.module:name` names.

    Args:
        spec: Written like that.
        folder: Searched first; None to search the current folder, last.
        what: The setting, for messages.

    Raises:
        ConfigError: it is not written like that, or cannot be imported.
    """
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        raise ConfigError(
            f"{what}={spec!r}: expected package.module:name, for example my_teacher:answer."
        )
    try:
        with importable(folder or Path(), first=folder is not None):
            found: object = importlib.import_module(module_name)
            for part in name.split("."):
                found = getattr(found, part)
    except Exception as error:  # a user's module may raise anything when it is imported
        raise ConfigError(
            f"{what}={spec!r} cannot be imported ({type(error).__name__}: {one_line(error)}); "
            f"check the name, and that {module_name} is installed or lies in "
            f"{folder or Path.cwd()}."
        ) from error
    return found


def source_of(thing: object) -> str | None:
    """The text of the whole file that defines a function or class, or None if there is none."""
    try:
        file = inspect.getsourcefile(thing)  # type: ignore[arg-type]  # TypeError says no
        return Path(file).read_text() if file else None
    except (TypeError, OSError):
        return None


def plain_source(function: object) -> str | None:
    """The source file, where name and file together determine what the function does."""
    # Closures of one factory share name and source but not what they captured, and so would be
    # served each other's answers.
    plain = isinstance(function, FunctionType) and not function.__closure__
    return source_of(function) if plain and "<lambda>" not in full_name(function) else None


def full_name(thing: object) -> str:
    """Module and qualified name of a function or class."""
    module = getattr(thing, "__module__", "?")
    return f"{module}:{getattr(thing, '__qualname__', type(thing).__qualname__)}"
