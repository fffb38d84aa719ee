"""Find a method by name: ours from a dict, a user's from an entry point.

A package of yours adds a method of some kind (`objectives`, `students`, `teachers`, ...) with

    [project.entry-points."limbeck.objectives"]
    my_loss = "my_package.my_module:MyLoss"
"""

import difflib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar, cast

from limbeck.errors import ConfigError

T = TypeVar("T")


def lookup(kind: str, builtin: Mapping[str, T], name: str) -> T:
    """Find what is registered as `name`; a built-in name cannot be taken over.

    Args:
        kind: Plural of the kind, such as "objectives"; the entry-point group is `limbeck.<kind>`.
        builtin: What Limbeck itself registers.
        name: What is asked for.

    Returns:
        The entry of `builtin`, or the object that the entry point names (taken to be of the same
        type: the conformance suite of the kind checks what a type checker cannot).

    Raises:
        ConfigError: nothing has this name, or its entry point cannot be loaded.
    """
    if name in builtin:
        return builtin[name]
    point = _plugins(kind).get(name)
    if point is None:
        known = names(kind, builtin)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown name {name!r} in {kind}: {hint}Known: {', '.join(known)}.")
    try:
        return cast(T, point.load())
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{name!r} in {kind} is registered as {point.value} but cannot be loaded ({error}); "
            f"repair or uninstall the package that registers it."
        ) from error


def names(kind: str, builtin: Mapping[str, object]) -> tuple[str, ...]:
    """All names that `lookup` finds: built-in ones in their order, then users' own, sorted."""
    return (*builtin, *sorted(set(_plugins(kind)) - set(builtin)))


def _plugins(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"limbeck.{kind}")}
