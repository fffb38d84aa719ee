"""From the user's files to labelled, validation, test and pool: staged once, disjoint, recorded."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from limbeck.data.config import DataConfig
from limbeck.data.cut import cut
from limbeck.data.dataset import Dataset
from limbeck.data.guess import guess_schema
from limbeck.data.ids import GatheredIds
from limbeck.data.looks import Seen
from limbeck.data.parts import (
    Findings,
    Part,
    class_names,
    class_positions,
    report_repeats,
    separate,
)
from limbeck.data.readers import sample_rows
from limbeck.data.reopen import describe_sources, read_record, settings_of
from limbeck.data.schema import Schema
from limbeck.data.sources import Source, find_source
from limbeck.data.stage import (
    LabelBook,
    Layout,
    copy_rows,
    stage_labelled,
    stage_pool,
    staged_batches,
    typed_batches,
)
from limbeck.errors import DataError
from limbeck.storage import write_json

RECORD = "splits.json"
LABELLED_ROLES = ("labelled", "validation", "test")


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """The rows of a run.

    Args:
        schema: Columns and classes.
        labelled: Rows for training.
        validation: Rows for trust and temperature.
        test: Rows for the last measurement.
        pool: Unlabelled rows, or None when there are none.
        notes: Sentences on what was guessed, left out or repeated, for the user and the report.
        found: Counts behind the notes, such as "pool repeats test".
    """

    schema: Schema
    labelled: Dataset
    validation: Dataset
    test: Dataset
    pool: Dataset | None
    notes: tuple[str, ...]
    found: Mapping[str, int]


def prepare(
    config: DataConfig,
    folder: Path,
    seed: int,
    *,
    keep: Sequence[str] = (),
    restage: bool = False,
) -> Splits:
    """Stage the user's files in a folder, or open what was staged there before.

    Each source is read once. Rows that are also labelled, validation or test rows are left out of
    the pool; rows without a label in the labelled file join it.

    Args:
        config: Files, columns, and how many rows to cut.
        folder: Where `labelled.arrow`, `validation.arrow`, `test.arrow`, `pool.arrow` and
            `splits.json` go. The last is written last: when it is there, all are.
        seed: Of the cut; any non-negative integer.
        restage: Stage anew, rather than refuse, where the folder was staged from other rows or
            settings: nothing depends on its rows yet.
        keep: Columns that are no inputs but that a teacher reads (answers in columns).

    Raises:
        DataError: a file or a column cannot be used, rows are shared between test, validation and
            labelled, or the folder was staged from other rows or settings.
        StorageError: the disk is full or the folder cannot be written.

    Cost: about 2 microseconds a row for short texts; memory for a few batches and 16 to 40 bytes
    a row.
    """
    sources = {
        role: find_source(path)
        for role in (*LABELLED_ROLES, "pool")
        if (path := getattr(config, role)) is not None
        and (Path(path).exists() or restage or not (folder / RECORD).exists())
    }
    settings = settings_of(config, seed, keep)
    if (folder / RECORD).exists():
        try:
            return _open(folder, read_record(folder / RECORD, settings, sources))
        except DataError:
            if not restage:
                raise
            (folder / RECORD).unlink()
    _clean(folder)
    try:
        record = _stage(config, sources, folder, seed, tuple(keep))
    finally:
        _clean(folder)
    write_json(
        folder / RECORD,
        {"settings": settings, "sources": describe_sources(sources), **record},
    )
    return _open(folder, read_record(folder / RECORD, settings, sources))


def _open(folder: Path, saved: Mapping[str, Any]) -> Splits:
    columns = saved["schema"]
    schema = Schema(
        tuple(columns["text"]),
        tuple(columns["numeric"]),
        tuple(columns["category"]),
        columns["label"],
        tuple(columns["classes"]),
        tuple(columns.get("image", ())),  # folders staged before images were read have none
    )
    opened: dict[str, Dataset] = {}
    for role, rows in saved["rows"].items():
        opened[role] = Dataset.open(folder / f"{role}.arrow", schema)
        if len(opened[role]) != rows:
            raise DataError(
                f"{folder / role}.arrow holds {len(opened[role])} rows but {rows} were staged; "
                f"remove {folder} and run the same command again."
            )
    return Splits(
        schema,
        opened["labelled"],
        opened["validation"],
        opened["test"],
        opened.get("pool"),
        tuple(saved["notes"]),
        saved["found"],
    )


def _stage(
    config: DataConfig,
    sources: Mapping[str, Source],
    folder: Path,
    seed: int,
    keep: tuple[str, ...],
) -> dict[str, object]:
    first = sources["labelled"]
    guess = guess_schema(
        sample_rows(first),
        config,
        where=str(first.path),
        answers=keep,
        folder=first.files[0].parent,
    )
    layout = Layout(guess.schema, keep)
    # Labelled rows are never asked about, unless validation or test rows are cut from them.
    own = Layout(guess.schema) if {"validation", "test"} <= set(sources) else layout
    findings = Findings(list(guess.notes))
    book, seen = LabelBook(), Seen()
    parts: dict[str, Part] = {}
    for role in (role for role in LABELLED_ROLES if role in sources):
        path = folder / f"staging-{role}.arrow"
        shape = own if role == "labelled" else layout
        staged, codes = stage_labelled(sources[role], shape, book, path, seen, role=role)
        if role == "labelled":
            classes = class_names(config, book, codes, str(sources[role].path), findings)
        labels = class_positions(codes, book, classes, str(sources[role].path))
        parts[role] = Part(staged, labels, codes >= 0)
    schema = replace(guess.schema, classes=classes)
    unlabelled = ~parts["labelled"].rows
    separate(parts, sources, config, findings)
    _cut(parts, sources, config, schema, seed)
    report_repeats(parts["labelled"], str(first.path), findings)
    rows = {role: int(parts[role].rows.sum()) for role in LABELLED_ROLES}
    for role in LABELLED_ROLES:
        part = parts[role]
        copy_rows(part.staged, part.rows, part.labels, folder / f"{role}.arrow")
    joined = int(unlabelled.sum())
    findings.add(
        "unlabelled in the labelled file",
        joined,
        f"{joined} rows of {first.path} have no label and join the pool.",
    )
    if "pool" in sources or joined:
        staged = parts["labelled"].staged
        batches = _pool_batches(staged, unlabelled, sources.get("pool"), layout, seen)
        rows["pool"] = _stage_pool(parts, batches, schema, folder / "pool.arrow", findings, seen)
    findings.notes += seen.notes()
    return {
        "schema": asdict(schema),
        "rows": rows,
        "notes": findings.notes,
        "found": findings.counts,
    }


def _cut(
    parts: dict[str, Part],
    sources: Mapping[str, Source],
    config: DataConfig,
    schema: Schema,
    seed: int,
) -> None:
    wanted = {
        role: getattr(config, f"{role}_rows")
        for role in ("validation", "test")
        if role not in parts
    }
    if not wanted:
        return
    whole = parts["labelled"]
    rows = np.flatnonzero(whole.rows)
    chosen = cut(
        whole.ids,
        whole.labels[rows],
        wanted,
        schema.classes,
        np.random.default_rng(seed),
        where=str(sources["labelled"].path),
    )
    for role, mask in chosen.items():
        mine = np.zeros_like(whole.rows)
        mine[rows[mask]] = True
        parts[role] = Part(whole.staged, whole.labels, mine)
    for role in chosen:
        whole.rows = whole.rows & ~parts[role].rows


def _stage_pool(
    parts: Mapping[str, Part],
    batches: Iterable[pa.RecordBatch],
    schema: Schema,
    path: Path,
    findings: Findings,
    seen: Seen,
) -> int:
    counts = stage_pool(batches, schema, {role: parts[role].ids for role in LABELLED_ROLES}, path)
    rows = counts.pop("rows")
    blank = counts.pop("blank")
    findings.add("pool blank", blank, f"{blank} pool rows with an empty text were left out.")
    unreadable = counts.pop("unreadable")
    findings.add(
        "pool images that cannot be read",
        unreadable,
        f"{unreadable} pool rows with an image that cannot be read were left out, such as "
        f"{seen.first_fault}.",
    )
    for role, count in counts.items():
        findings.add(
            f"pool repeats {role}",
            count,
            f"{count} pool rows were left out because they are also {role} rows.",
        )
    repeated = rows - int(GatheredIds(Dataset.open(path, schema).content_ids).leads().sum())
    findings.add(
        "pool repeats itself",
        repeated,
        f"{repeated} pool rows repeat another pool row; they are kept and paid for once.",
    )
    return rows


def _pool_batches(
    staged: Dataset,
    unlabelled: NDArray[np.bool_],
    pool: Source | None,
    layout: Layout,
    seen: Seen,
) -> Iterator[pa.RecordBatch]:
    """Rows of the labelled file that have no label, then the rows of the pool file."""
    start = 0
    for batch in staged_batches(staged) if unlabelled.any() else ():
        yield batch.filter(pa.array(unlabelled[start : start + batch.num_rows]))
        start += batch.num_rows
    if pool is not None:
        yield from typed_batches(pool, layout, seen)


def _clean(folder: Path) -> None:
    """Remove what staging needs only while it runs, or what a killed run has left of it."""
    for leftover in (*folder.glob("staging-*.arrow"), *folder.glob(".*.arrow.*.tmp")):
        leftover.unlink(missing_ok=True)
