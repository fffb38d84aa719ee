"""Rows as a person reads them."""

from collections.abc import Mapping

from limbeck.data.images import describe


def row_text(values: Mapping[str, object]) -> str:
    """Values of a row's inputs in one line: one column alone, or each with its name."""
    if len(values) == 1:
        return _short(next(iter(values.values())))
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items())


def _short(value: object) -> str:
    if isinstance(value, bytes):
        return describe(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
