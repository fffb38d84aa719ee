"""Which pool rows are asked about: drawn uniformly, by distinct question, and written down first.

What is written down before the first row is paid for is read back ever after, so a resumed run asks
about the same rows.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from limbeck.data.ids import GatheredIds, contains
from limbeck.distill.config import DistillConfig
from limbeck.distill.folder import RunFolder
from limbeck.distill.questions import AnswerBook, Questions, count_distinct, open_book
from limbeck.ledger import Ledger
from limbeck.storage import atomic_path
from limbeck.teachers import Teacher

SELECTION = "pool.parquet"
TO_ENCODE = "encoded.parquet"
_GROUP_ROWS = 65_536


def read_selection(folder: RunFolder) -> NDArray[np.int64] | None:
    """Pool rows that were chosen to be asked about, ascending; None before that."""
    path = folder.selections / SELECTION
    if not path.exists():
        return None
    with pq.ParquetFile(path) as file:
        rows = np.empty(file.metadata.num_rows, np.int64)
        start = 0
        for batch in file.iter_batches(_GROUP_ROWS, columns=["row"]):
            rows[start : start + len(batch)] = batch.column(0).to_numpy()
            start += len(batch)
    return rows


def write_selection(
    folder: RunFolder, rows: NDArray[np.int64], share: float | NDArray[np.float64]
) -> None:
    """Write down pool rows to ask about, ascending, and with which probability each was drawn."""
    shares = np.broadcast_to(np.asarray(share, np.float64), rows.shape)
    schema = pa.schema({"row": pa.int64(), "inclusion_probability": pa.float64()})
    with (
        atomic_path(folder.selections / SELECTION) as temporary,
        pq.ParquetWriter(temporary, schema) as writer,
    ):
        for start in range(0, len(rows), _GROUP_ROWS):
            part = rows[start : start + _GROUP_ROWS]
            columns = [pa.array(part), pa.array(shares[start : start + len(part)])]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def rows_to_encode(
    config: DistillConfig,
    asked: Questions,
    teacher: Teacher | None,
    ledger: Ledger,
    folder: RunFolder,
) -> NDArray[np.int64]:
    """Pool rows that the run may come to ask about, ascending; no other is ever chosen.

    In rounds a student looks at all of them, or at some drawn for it. Else they are those that the
    budget would reach if validation and test cost nothing: a longer beginning of the same random
    order. They are written down, so that a resumed run, whose ledger knows more, has the same
    ones; unless its budget was raised meanwhile.
    """
    path, kept = folder.selections / TO_ENCODE, read_selection(folder)
    if folder.claimed and path.exists():
        table = pq.read_table(path)
        rows: NDArray[np.int64] = table.column("row").to_numpy()
        same = table.schema.metadata[b"budget"] == str(config.budget).encode()
        same = same or config.buy.in_rounds
        if same if kept is None else np.isin(kept, rows).all():
            return rows
    if kept is not None:
        return kept
    if config.buy.in_rounds:
        rows = _to_score(config, asked)
    elif config.teacher.kind == "fit":
        # Its answers cost nothing, and which of them are known shows when it is trained.
        rows = np.flatnonzero(GatheredIds(asked.pool).leads())
    else:
        assert teacher is not None
        book = open_book(ledger, teacher, asked)
        rows, _ = _draw(asked.pool, book.costs, config.budget, config.seed)
    with atomic_path(path) as temporary:
        table = pa.table({"row": rows}).replace_schema_metadata({"budget": str(config.budget)})
        pq.write_table(table, temporary)
    return rows


def _to_score(config: DistillConfig, asked: Questions) -> NDArray[np.int64]:
    """Pool rows among which a rule chooses: one of each question, or some of them at random."""
    rows = np.flatnonzero(GatheredIds(asked.pool).leads())
    count = config.buy.candidates
    if not 0 < count < len(rows):
        return rows
    return np.sort(np.random.default_rng(config.seed).choice(rows, count, replace=False))


def draw_pool(
    config: DistillConfig, asked: Questions, book: AnswerBook | None, *, left: int
) -> NDArray[np.int64]:
    """Pool rows that a run would choose now, ascending; without a book no answer is known.

    Args:
        config: The seed.
        asked: Questions of all splits.
        book: Tells which are answered.
        left: Answers that may be bought for the pool.
    """

    def all_new(_: GatheredIds, places: NDArray[np.bool_]) -> NDArray[np.uint8]:
        return places.view(np.uint8) * np.uint8(len(asked.members) or 1)

    costs = all_new if book is None else book.costs
    return _draw(asked.pool, costs, left, config.seed)[0]


def draw_as_if_new(config: DistillConfig, asked: Questions) -> tuple[NDArray[np.int64], float]:
    """Draw pool rows for the whole budget as if the ledger were empty.

    A run alone gets more pool rows where its ledger knows some already. Runs that are compared
    must not: the second would learn from more rows than the first, and how many would depend on
    which of them was quicker.

    Args:
        config: Budget and seed.
        asked: Questions of all splits.

    Returns:
        Pool rows, ascending, and the share of distinct questions that they are.
    """
    before = [asked.validation, *([asked.test] if config.ask_test else [])]
    first = np.concatenate(before)
    each = len(asked.members) or 1
    left = config.budget - each * count_distinct(first)

    def costs(ids: GatheredIds, places: NDArray[np.bool_]) -> NDArray[np.uint8]:
        new = ids.without(places, lambda block: contains(first, block))
        return new.view(np.uint8) * np.uint8(each)

    return _draw(asked.pool, costs, left, config.seed)


def choose_pool(
    config: DistillConfig,
    ids: NDArray[np.uint8],
    book: AnswerBook,
    folder: RunFolder,
    *,
    left: int,
    within: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Choose pool rows to ask about; drawn once and read back ever after.

    Args:
        config: The seed.
        ids: Questions of all pool rows, uint8, shape (n, 16).
        book: Tells which are answered already.
        folder: Where the choice is written down.
        left: Answers that may still be bought for the pool.
        within: Rows to choose from, int64. Default: all.

    Returns:
        Positions in the pool, int64, ascending.
    """
    kept = read_selection(folder)
    if kept is not None:
        return kept
    rows, share = _draw(ids, book.costs, left, config.seed)
    if within is not None:
        # More only where another run has bought answers meanwhile. What is left is the shorter of
        # two beginnings of one random order, so it is as uniform a sample.
        share *= np.isin(rows, within).mean()
        rows = rows[np.isin(rows, within)]
    write_selection(folder, rows, share)
    return rows


def _draw(
    ids: NDArray[np.uint8],
    costs: Callable[[GatheredIds, NDArray[np.bool_]], NDArray[np.uint8]],
    budget: int,
    seed: int,
) -> tuple[NDArray[np.int64], float]:
    """Walk through distinct questions in random order until the budget is reached.

    Questions met on the way that are answered already cost nothing, so a ledger of earlier runs
    makes the same budget reach further; the sample stays uniform.
    """
    lazy = GatheredIds(ids)
    leads = lazy.leads()
    cost = costs(lazy, leads)
    order = np.flatnonzero(leads)
    np.random.default_rng(seed).shuffle(order)
    count = len(order)
    if int(cost.sum(dtype=np.int64)) > budget:
        total = np.cumsum(cost[order], dtype=np.int32)
        count = int(np.searchsorted(total, budget, side="right"))
    chosen = order if count == len(order) else order[:count].copy()
    chosen.sort()
    return chosen, count / len(order)
