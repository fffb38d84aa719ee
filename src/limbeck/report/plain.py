"""Frozen dataclasses to plain JSON values and back, checked on the way in and out.

A record may hold: bool, int, float (finite), str, None, tuples, `dict[str, ...]`, unions with None,
unions of scalars, `Literal` strings and further dataclasses. Nothing else is needed, and pickles
are never written.
"""

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from limbeck.errors import DataError

T = TypeVar("T")


def to_plain(value: object, *, where: str = "record") -> object:
    """Turn a dataclass into dicts, lists and scalars that JSON can hold.

    Raises:
        DataError: a number is NaN or infinite, or a value is of another type; the path names it.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: to_plain(getattr(value, f.name), where=f"{where}.{f.name}")
            for f in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(k): to_plain(v, where=f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(v, where=f"{where}[{i}]") for i, v in enumerate(value)]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DataError(f"{where} is {value}, which JSON cannot hold; give None instead.")
        return value
    raise DataError(
        f"{where} is of type {type(value).__name__}; a record holds plain Python values only, "
        f"so convert arrays with .item() or tuple(x.tolist())."
    )


def from_plain(kind: type[T], value: object, *, where: str = "record") -> T:
    """Build the dataclass that `to_plain` took apart.

    Raises:
        DataError: a field is missing, unknown, or of the wrong type; the path names it.
    """
    return cast(T, _read(kind, value, where))


def _read(kind: Any, value: object, where: str) -> object:
    origin, args = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):
        return _read_union(args, value, where)
    if origin is Literal:
        return _expect(value in args, value, f"one of {', '.join(map(str, args))}", where)
    if origin is tuple:
        return _read_tuple(args, value, where)
    if origin is dict:
        items = _mapping(value, where)
        return {k: _read(args[1], v, f"{where}.{k}") for k, v in items.items()}
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, _mapping(value, where), where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)  # JSON writers may drop the point of 1.0
    return _expect(type(value) is kind, value, getattr(kind, "__name__", str(kind)), where)


def _read_union(args: tuple[Any, ...], value: object, where: str) -> object:
    if value is None and type(None) in args:
        return None
    rest = [a for a in args if a is not type(None)]
    if len(rest) == 1:
        return _read(rest[0], value, where)
    names = " or ".join(a.__name__ for a in rest)
    return _expect(type(value) in rest, value, names, where)


def _read_tuple(args: tuple[Any, ...], value: object, where: str) -> object:
    items = cast(Sequence[object], _expect(isinstance(value, list | tuple), value, "a list", where))
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_read(args[0], v, f"{where}[{i}]") for i, v in enumerate(items))
    _expect(len(items) == len(args), value, f"{len(args)} items", where)
    pairs = zip(args, items, strict=True)
    return tuple(_read(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(pairs))


def _read_dataclass(kind: Any, items: Mapping[str, object], where: str) -> object:
    hints = get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name in items:
        if name not in fields:
            raise DataError(
                f"{where} has an unknown field {name!r}; it was probably written by another "
                f"version of Limbeck, so read it with that version."
            )
    values = {}
    for name, field in fields.items():
        if name in items:
            values[name] = _read(hints[name], items[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise DataError(f"{where}.{name} is missing; write the record again with a new run.")
    return kind(**values)


def _mapping(value: object, where: str) -> Mapping[str, object]:
    return cast(Mapping[str, object], _expect(isinstance(value, dict), value, "an object", where))


def _expect(ok: bool, value: object, what: str, where: str) -> object:
    if not ok:
        raise DataError(f"{where} is {str(value)[:60]!r}; expected {what}. Repair the file.")
    return value
