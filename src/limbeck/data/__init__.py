"""Files in, rows with ids out.

Names are loaded when they are first used: a command that only needs `DataConfig` to print its help
waits for neither Arrow nor numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limbeck.data.columns import check_columns, nearest
    from limbeck.data.config import DataConfig
    from limbeck.data.dataset import Dataset
    from limbeck.data.guess import Guess, guess_schema
    from limbeck.data.ids import contains, content_ids, distinct, question_ids, row_ids
    from limbeck.data.images import check_image
    from limbeck.data.readers import read_batches, sample_rows
    from limbeck.data.schema import Schema
    from limbeck.data.sources import Source, find_source
    from limbeck.data.splits import Splits, prepare
    from limbeck.data.tables import as_batch, as_table
    from limbeck.data.workers import ordered_map

__all__ = [
    "DataConfig",
    "Dataset",
    "Guess",
    "Schema",
    "Source",
    "Splits",
    "as_batch",
    "as_table",
    "check_columns",
    "check_image",
    "contains",
    "content_ids",
    "distinct",
    "find_source",
    "guess_schema",
    "nearest",
    "ordered_map",
    "prepare",
    "question_ids",
    "read_batches",
    "row_ids",
    "sample_rows",
]

_HOMES = {
    "columns": ("check_columns", "nearest"),
    "config": ("DataConfig",),
    "dataset": ("Dataset",),
    "guess": ("Guess", "guess_schema"),
    "ids": ("contains", "content_ids", "distinct", "question_ids", "row_ids"),
    "images": ("check_image",),
    "readers": ("read_batches", "sample_rows"),
    "schema": ("Schema",),
    "sources": ("Source", "find_source"),
    "splits": ("Splits", "prepare"),
    "tables": ("as_batch", "as_table"),
    "workers": ("ordered_map",),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
