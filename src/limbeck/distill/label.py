"""Buy answers and nothing else: the first half of the main job.

What is asked, in which order and under which budget is what `distill` does, in the same folder and
under the same name in the ledger. So a `distill` that follows goes on from here and buys nothing.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.data import Splits
from limbeck.distill.acquire import Acquisition, Purchased, buy_answers
from limbeck.distill.buying import Tally, has_ended
from limbeck.distill.config import DistillConfig
from limbeck.distill.folder import LABEL_FILE, START, Listener, RunFolder, ignore
from limbeck.distill.questions import check_budget, content_questions
from limbeck.distill.round_sizes import check_no_rounds
from limbeck.distill.run import make_teacher, run_id
from limbeck.distill.staging import stage
from limbeck.distill.teacher import asked_by
from limbeck.ledger import Spending, SqliteLedger
from limbeck.storage import atomic_path
from limbeck.teachers.imports import importable

_EXPORT_ROWS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Labelling:
    """What a purchase came to.

    Args:
        tallies: A split each, of this call.
        spending: What the run has spent in all, earlier calls included.
        pool_answers: Pool rows that have an answer.
        out, ledger: Folder of the run, and where the answers are.
        answers: Parquet file of the pool's answers, where one was asked for.
        short: What ended before all chosen pool rows were asked about, in words; else empty.
        open: Whether the same command would buy the rest if it had more to spend.
    """

    tallies: tuple[Tally, ...]
    spending: Spending
    pool_answers: int
    out: Path
    ledger: Path
    answers: Path | None
    short: str = ""
    open: bool = False

    @property
    def rate(self) -> float:
        """Questions asked a second in this call; 0 where none was asked."""
        asked = sum(tally.asked for tally in self.tallies)
        seconds = sum(tally.seconds for tally in self.tallies if tally.asked)
        return asked / seconds if seconds > 0 else 0.0

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values; money in millionths of the currency."""
        spent = self.spending
        return {
            "splits": [asdict(tally) for tally in self.tallies],
            "pool_answers": self.pool_answers,
            "short": self.short,
            "answers_a_second": self.rate,
            "spent": {
                "answered": spent.answered,
                "failed": spent.failed,
                "unknown": spent.unknown,
                "money": spent.money.micros,
                "currency": spent.money.currency,
            },
            "out": str(self.out),
            "ledger": str(self.ledger),
            "answers": None if self.answers is None else str(self.answers),
        }

    def text(self) -> str:
        """One table, and what to do next."""
        names = ("rows", "cached", "bought", "failed", "no reply")
        lines = [f"{'':10}" + "".join(f"  {name:>10}" for name in names)]
        for tally in self.tallies:
            counts = (tally.rows, tally.cached, tally.bought, tally.failed, tally.unanswered)
            lines.append(f"{tally.split:10}" + "".join(f"  {count:10,}" for count in counts))
        spent = self.spending
        unknown = f", {spent.unknown:,} unknown (perhaps billed)" if spent.unknown else ""
        lines += [
            "",
            f"price     {spent.money} for {spent.answered:,} answers of this run, "
            f"{spent.failed:,} failed{unknown}",
            f"rate      {self.rate:,.0f} questions a second"
            if self.rate
            else "rate      none asked",
            f"ledger    {self.ledger}",
            *([] if self.answers is None else [f"answers   {self.answers}"]),
            *([f"short     {self.short}"] if self.short else []),
            *(["more      raise what ended and run the same command again"] if self.open else []),
            f"next      limbeck distill {self.out / LABEL_FILE}",
        ]
        return "\n".join(lines)


def label(
    config: DistillConfig, listener: Listener = ignore, *, answers: Path | None = None
) -> Labelling:
    """See to it that validation, test and pool rows have answers in the ledger.

    Args:
        config: What to ask, whom, and what may be spent. Settings of students are not looked at.
            When `config.out` holds a purchase that was stopped, it goes on.
        listener: Told what happens.
        answers: Parquet file to write the answered pool rows to, with a column `prob_<class>` for
            each class: what the teacher `table` reads.

    Raises:
        LimbeckError: as `distill` raises it before it trains.

    Cost: memory for one batch of rows, and 24 bytes a pool row that stays.
    """
    check_no_rounds(config)
    from accelerate import Accelerator

    accelerator = Accelerator()
    folder = RunFolder(config.out, listener, writes=accelerator.is_main_process)
    folder.check(config)
    folder.log(START, f"run folder {folder.root}")
    code = importable(config.code)
    with code, folder.collecting_warnings(), SqliteLedger(config.ledger) as ledger:
        with accelerator.main_process_first():
            splits = stage(config, folder)
            if config.teacher.kind == "fit" and not folder.claimed:
                check_budget(config, content_questions(splits), None)
            folder.claim(config, file=LABEL_FILE)
        teacher = make_teacher(config, splits, folder, accelerator)
        engine = asked_by(config, splits, folder, teacher)
        with accelerator.main_process_first(), engine as asked:
            task = Acquisition(config, splits, asked, ledger, folder, run_id(folder))
            bought = buy_answers(task)
        if answers is not None and accelerator.is_main_process:
            write_answers(answers, splits, bought)
    folder.log("done", f"{len(bought.pool_rows):,} pool rows have an answer")
    return Labelling(
        tallies=bought.tallies,
        spending=bought.spending,
        pool_answers=len(bought.pool_rows),
        out=config.out,
        ledger=config.ledger,
        answers=answers,
        short=bought.short,
        open=bool(bought.short) and not has_ended(folder, "pool"),
    )


def write_answers(path: Path, splits: Splits, bought: Purchased) -> None:
    """Write the answered pool rows and their probabilities as Parquet, a few thousand at a time."""
    assert splits.pool is not None
    inputs = list(splits.schema.inputs)
    names = [f"prob_{name}" for name in splits.schema.classes]
    fields = [splits.pool.table.schema.field(name) for name in inputs]
    schema = pa.schema([*fields, *(pa.field(name, pa.float32()) for name in names)])
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for batch in _answered(splits, bought, inputs, schema):
            writer.write_batch(batch)


def _answered(
    splits: Splits, bought: Purchased, inputs: list[str], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    assert splits.pool is not None
    for start in range(0, len(bought.pool_rows), _EXPORT_ROWS):
        rows = bought.pool_rows[start : start + _EXPORT_ROWS]
        taken = splits.pool.take(rows)
        probs = bought.book.read(bought.asked.pool[rows]).probs.numpy()
        columns = [taken.column(name) for name in inputs]
        columns += [pa.array(column) for column in probs.T]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
