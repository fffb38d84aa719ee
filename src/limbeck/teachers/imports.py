"""Objects that a run file names as `package.module:name`."""

import importlib
import inspect
import sys
from pathlib import Path

from limbeck.errors import ConfigError


def import_object(spec: str, folder: Path, *, what: str) -> object:
    """Import what `package.module:name` names; `folder` is searched first.

    Raises:
        ConfigError: it is not written like that, or cannot be imported.
    """
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        raise ConfigError(
            f"{what}={spec!r}: expected package.module:name, for example my_teacher:answer."
        )
    sys.path.insert(0, str(folder.resolve()))
    try:
        found: object = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # a user's module may raise anything when it is imported
        raise ConfigError(
            f"{what}={spec!r} cannot be imported ({type(error).__name__}: {error}); check the "
            f"name, and that {module_name} is installed or lies in {folder}."
        ) from error
    finally:
        sys.path.remove(str(folder.resolve()))
    return found


def source_of(thing: object) -> str | None:
    """The text of the whole file that defines a function or class, or None if there is none."""
    try:
        file = inspect.getsourcefile(thing)  # type: ignore[arg-type]  # TypeError says no
        return Path(file).read_text() if file else None
    except (TypeError, OSError):
        return None


def full_name(thing: object) -> str:
    """Module and qualified name of a function or class."""
    module = getattr(thing, "__module__", "?")
    return f"{module}:{getattr(thing, '__qualname__', type(thing).__qualname__)}"
