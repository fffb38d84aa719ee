"""Look at every image once before anything is spent: what cannot be used is found here."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from limbeck.data.cells import BYTES, fault_of
from limbeck.data.images import Look, look_at_all
from limbeck.data.workers import map_with_help


@dataclass(slots=True)
class Seen:
    """What the images of a run are like.

    Args:
        first_fault: The first image that could not be used and why, or "".
    """

    first_fault: str = ""
    _modes: dict[str, dict[str, None]] = field(default_factory=dict)
    _bounds: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)

    def add(self, name: str, one: Look) -> None:
        """Count an image of a column."""
        self._modes.setdefault(name, {})[one.mode] = None
        w, h, big_w, big_h = self._bounds.get(name, (one.width, one.height, 0, 0))
        self._bounds[name] = (
            min(w, one.width), min(h, one.height), max(big_w, one.width), max(big_h, one.height),
        )  # fmt: skip

    def notes(self) -> Iterator[str]:
        """One sentence an image column on sizes and colours."""
        for name, (w, h, big_w, big_h) in self._bounds.items():
            modes = sorted(self._modes[name])
            colours = f"mode {modes[0]}" if len(modes) == 1 else f"modes {', '.join(modes)}"
            if (w, h) == (big_w, big_h):
                size = f"are {w} x {h} pixels"
            else:
                size = f"are {w} to {big_w} pixels wide and {h} to {big_h} high"
            mixed = "; the student converts them" if len(modes) > 1 or "to" in size else ""
            yield f"images in '{name}' {size}, {colours}{mixed}."


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """Rows whose images have been looked at.

    Args:
        batch: The rows; images as bytes, null where one cannot be used.
        faults: What is wrong with such an image, in words, by row of the batch.
    """

    batch: pa.RecordBatch
    faults: dict[int, str]


def looked_at(
    batches: Iterable[pa.RecordBatch], names: Sequence[str], seen: Seen, *, where: str
) -> Iterator[Looked]:
    """Decode the images of rows, in worker processes where there are many.

    Args:
        batches: Rows with cells in their image columns.
        names: The image columns.
        seen: Learns what the images are like.
        where: Name of the source, used in messages.

    Raises:
        LimbeckError: a worker was killed.

    Cost: 30 microseconds for an image of 28 x 28 pixels, 8 ms for a photograph of 2 megapixels;
    memory for a batch a worker.
    """
    if not names:
        yield from (Looked(batch, {}) for batch in batches)
        return
    rest = iter(batches)
    waiting: deque[pa.RecordBatch] = deque()

    def images() -> Iterator[list[bytes | None]]:
        for batch in rest:
            waiting.append(batch)
            cells = [pc.struct_field(batch.column(name), "bytes") for name in names]
            yield [data for column in cells for data in column.to_pylist()]

    first = 0
    for looks in map_with_help(look_at_all, images()):
        batch = waiting.popleft()
        yield _judged(batch, names, looks, seen, where, first)
        first += batch.num_rows


def _judged(
    batch: pa.RecordBatch,
    names: Sequence[str],
    looks: Sequence[Look],
    seen: Seen,
    where: str,
    first: int,
) -> Looked:
    faults: dict[int, str] = {}
    rows = batch.num_rows
    for number, name in enumerate(names):
        at = batch.schema.get_field_index(name)
        data, paths = batch.column(at).flatten()
        usable = np.ones(rows, bool)
        for row, one in enumerate(looks[number * rows : (number + 1) * rows]):
            if one.fault is None:
                seen.add(name, one)
                continue
            usable[row] = False
            path = paths[row].as_py()
            if data[row].is_valid:
                fault = f"{path or f'row {first + row} of {where}'}: {one.fault}"
            else:
                fault = fault_of(path, first + row)
            faults.setdefault(row, fault)
            seen.first_fault = seen.first_fault or fault
        good = data if usable.all() else pc.if_else(pa.array(usable), data, pa.scalar(None, BYTES))
        batch = batch.set_column(at, name, good)
    return Looked(batch, faults)
