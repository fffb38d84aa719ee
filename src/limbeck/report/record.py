"""Everything that one run's report shows; `metrics.json` is `record.to_dict()`.

A part that is None was not measured; the report then says why its section is empty (`missing`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np
from numpy.typing import ArrayLike

from limbeck.errors import ConfigError
from limbeck.report.embeddings import Embeddings
from limbeck.report.plain import from_plain, to_plain
from limbeck.report.purchase import Purchase
from limbeck.report.results import Decision, Deferral, Evaluation, TrustCheck, Verdict
from limbeck.report.search import SearchView

FORMAT = 1
Part = Literal["trust", "deferral", "decision", "cost", "size", "disagreements"]


@dataclass(frozen=True, slots=True)
class MarginBin:
    """Validation rows with a teacher margin in [low, high): how many answers were right, wrong."""

    low: float
    high: float
    right: int
    wrong: int


@dataclass(frozen=True, slots=True)
class TrustView:
    """The fitted trust and the data under it.

    Args:
        margins, alpha: Knots of alpha(margin), both rising, equally many.
        bins: The validation rows.
        lower: Floor of alpha.
        k: The truth is taken to be among the teacher's top k.
        check: Whether it holds on test; None when the teacher was not asked there.
    """

    margins: tuple[float, ...]
    alpha: tuple[float, ...]
    bins: tuple[MarginBin, ...]
    lower: float
    k: int
    check: TrustCheck | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What the run has spent.

    Args:
        bought: Answers paid for by this run.
        cached: Answers that the ledger already held; free.
        failed: Questions tried without an answer.
        unknown: Questions whose reply was lost, or that were in flight when a process died; they
            may have been billed.
        money: Settled price, millionths of the currency.
        currency: ISO 4217 code.
        budget_queries: Most answers that could be bought.
        budget_money: Millionths of the currency, or None for no limit.
        minutes: Wall-clock minutes of the whole run.
        peak_memory_bytes: Most memory that the process held.
        short: What ended before all chosen pool rows were asked about; empty where nothing did.
    """

    bought: int
    cached: int
    failed: int
    unknown: int
    money: int
    currency: str
    budget_queries: int
    budget_money: int | None
    minutes: float
    peak_memory_bytes: int | None = None
    short: str = ""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds for one row on one core: the median and the 95th percentile."""

    what: str
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Size:
    """The student as it ships.

    Args:
        parameters: Trainable numbers.
        files: (name, bytes) of the student folder.
        latencies: What was timed.
        onnx_difference: Largest difference of probabilities between ONNX and torch.
        onnx_accuracy, int8_accuracy: Of the two files on the same random test rows, or None.
        checked_rows: How many test rows those were.
    """

    parameters: int
    files: tuple[tuple[str, int], ...]
    latencies: tuple[Latency, ...] = ()
    onnx_difference: float | None = None
    onnx_accuracy: float | None = None
    int8_accuracy: float | None = None
    checked_rows: int = 0

    @property
    def total_bytes(self) -> int:
        """All files together."""
        return sum(size for _, size in self.files)


@dataclass(frozen=True, slots=True)
class SplitView:
    """A split's name, its rows, and its rows of each class (empty for a pool)."""

    name: str
    rows: int
    per_class: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class DataView:
    """Where the rows came from.

    Args:
        splits: In the order labelled, validation, test, pool.
        guesses: Columns that were guessed, one sentence each.
        removed: (what was removed, how many rows), overlaps for example.
    """

    splits: tuple[SplitView, ...]
    guesses: tuple[str, ...] = ()
    removed: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One test row worth reading; probabilities are those of each one's own top class.

    Args:
        row: Position in test.
        why: The kind of disagreement.
        text: What the row says, shortened.
        truth, student, teacher, labels_only: Class names; None for who was not asked.
        student_probability, teacher_probability, labels_only_probability: In [0, 1].
        alpha: Trust in the teacher on this row.
    """

    row: int
    why: str
    text: str
    truth: str
    student: str
    student_probability: float
    labels_only: str
    labels_only_probability: float
    teacher: str | None = None
    teacher_probability: float | None = None
    alpha: float | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A finished run.

    Args:
        title: Of the report.
        created: Date and time, ISO 8601.
        verdict, evaluation: What it is all about.
        data: Where the rows came from.
        config_toml: The resolved configuration.
        trust, deferral, cost, size: None when not measured.
        decision: The threshold by cost; None unless there are two classes and unequal costs.
        disagreements: None when not collected.
        missing: Why a part is None, one sentence by the name of the part.
        environment: Versions and machine, by name.
        warnings: What the run has warned about.
        format: Version of this layout.
        purchase: How the answers were bought; None unless they were bought in rounds.
        embeddings: What the teacher's embeddings hold; None unless an arm splits classes by them.
        search: How the student's architecture was found; None unless it was searched for.
    """

    title: str
    created: str
    verdict: Verdict
    evaluation: Evaluation
    data: DataView
    config_toml: str
    trust: TrustView | None = None
    deferral: Deferral | None = None
    cost: Cost | None = None
    size: Size | None = None
    disagreements: tuple[Disagreement, ...] | None = None
    missing: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    format: int = FORMAT
    decision: Decision | None = None
    purchase: Purchase | None = None
    embeddings: Embeddings | None = None
    search: SearchView | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values; raises DataError for NaN, infinity and arrays."""
        return cast(dict[str, object], to_plain(self))

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> "RunRecord":
        """Read what `to_dict` wrote; raises DataError with the path of what does not fit."""
        return from_plain(cls, dict(value))

    def why_missing(self, part: Part) -> str:
        """One sentence for an empty section."""
        return self.missing.get(part, "Not measured in this run.")


def bin_margins(margins: ArrayLike, correct: ArrayLike, *, bins: int = 24) -> tuple[MarginBin, ...]:
    """Count right and wrong teacher answers by margin: what the trust curve is drawn over.

    Args:
        margins: Of the validation rows, float, shape (n,), in [0, 1].
        correct: Whether the teacher's top answer is right, bool, shape (n,).
        bins: Bins of equal width, >= 1; the last one holds 1.0.
    """
    if bins < 1:
        raise ConfigError(f"bins={bins}: need at least 1 bin of margins.")
    margin, right = np.asarray(margins, np.float64), np.asarray(correct, bool)
    place = np.clip(np.floor(margin * bins).astype(np.int64), 0, bins - 1)
    hits = np.bincount(place[right], minlength=bins)
    misses = np.bincount(place[~right], minlength=bins)
    return tuple(
        MarginBin(i / bins, (i + 1) / bins, int(hits[i]), int(misses[i])) for i in range(bins)
    )
