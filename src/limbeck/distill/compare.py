"""Arms over seeds: is this way of training really better than that one, on these rows?

One run shows one roll of the dice: which rows were cut for training, which pool rows were drawn,
the initial weights, the order. A comparison makes the same run with several seeds, pairs the arms
within each, and says what remains. Every seed is a run folder of its own, so a comparison that is
stopped goes on with what is there, and more seeds can be added later.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from limbeck.distill.compare_config import CompareConfig
from limbeck.distill.compare_plan import ComparePlan, make_compare_plan
from limbeck.distill.compare_seeds import Failure, run_seeds
from limbeck.distill.compare_summary import CROSS_VALIDATED, differing_teachers, summarise
from limbeck.distill.config import DistillConfig
from limbeck.distill.folder import WARNING, Event, Listener, RunFolder, ignore, to_toml
from limbeck.distill.pool_choice import read_selection
from limbeck.errors import BudgetError, ConfigError, LimbeckError
from limbeck.report.compare_page import as_markdown, render_comparison
from limbeck.report.comparison import Comparison
from limbeck.report.record import RunRecord
from limbeck.storage import write_json, write_text

_ERRORS: dict[int, type[LimbeckError]] = {2: ConfigError, 3: BudgetError}


@dataclass(frozen=True, slots=True, eq=False)
class CompareOutcome:
    """What a comparison gives.

    Args:
        comparison: Every number.
        folder: Where compare.json, compare.md and compare.html are, beside the seeds' folders.
        failures: Seeds without a result.
    """

    comparison: Comparison
    folder: Path
    failures: tuple[Failure, ...]

    @property
    def exit_code(self) -> int:
        """0, or that of the first seed that failed."""
        return self.failures[0].exit_code if self.failures else 0

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values: the comparison and its page."""
        return {"page": str(self.folder / "compare.html"), **self.comparison.to_dict()}

    def text(self) -> str:
        """One sentence a pair, one table, and where to look."""
        found = self.comparison
        width = max(len(arm.title) for arm in found.everyone)
        lines = [*(pair.sentence for pair in found.pairs), found.needed, *found.notes, ""]
        lines.append(
            f"{len(found.runs)} seeds{'':{max(0, width - 7)}}  accuracy  95% interval     "
            f"against {found.arm(found.baseline).title}, points"
        )
        for arm in found.everyone:
            a, pair = arm.accuracy, found.against(arm.name, found.baseline)
            gap = "" if pair is None else _gap(pair.accuracy.estimate, pair.accuracy.low,
                                               pair.accuracy.high)  # fmt: skip
            lines.append(
                f"{arm.title:{width}}  {a.estimate:7.1%}   {a.low:6.1%} to {a.high:6.1%}  {gap}"
            )
        lines += [f"seed {seed} failed: {why}" for seed, why in found.failed.items()]
        lines += ["", f"page     {self.folder / 'compare.html'}"]
        lines.append(f"next     open it, or add seeds with a larger --seeds: {self.folder}")
        return "\n".join(lines)


def compare(
    config: CompareConfig, plan: ComparePlan | None = None, listener: Listener = ignore
) -> CompareOutcome:
    """Run arms over seeds and say what their differences are worth.

    Args:
        config: What to compare; `config.run.out` is the folder. Seeds that are finished there are
            read, those that were stopped go on.
        plan: Made from the same settings; None makes it here.
        listener: Told what happens.

    Returns:
        The comparison of all seeds that finished; its files are written.

    Raises:
        LimbeckError: the settings or the folder are refused before anything is spent, or fewer
            than two seeds finished.
    """
    made = plan or make_compare_plan(config)
    told = _Teller(listener, made, config)
    failed = run_seeds(made.each, workers=made.workers, threads=made.threads, listener=told)
    folders = {seed: RunFolder(config.folder(seed)) for seed in config.all_seeds}
    records = {
        seed: RunRecord.from_dict(json.loads(folder.metrics.read_text()))
        for seed, folder in folders.items()
        if seed not in failed
    }
    failures = tuple(failed[seed] for seed in sorted(failed))
    if len(records) < 2 and failures:
        first = failures[0]
        raise _ERRORS.get(first.exit_code, LimbeckError)(
            f"{len(records)} of {config.seeds} seeds finished, and a comparison needs two; seed "
            f"{first.seed}: {first.sentence}"
        )
    _same_teacher(config.run, records)
    _same_code(records)
    comparison = summarise(
        records,
        title=f"Comparison: {config.run.data.labelled.name}, {config.seeds} seeds",
        baseline=config.compared_with,
        config_toml=to_toml(replace(config.run, onnx=False)),
        pool_rows={seed: _pool_rows(folder) for seed, folder in folders.items()},
        failed={failure.seed: failure.sentence for failure in failures},
        notes=_notes(config, failures),
    )
    write_text(config.run.out / "compare.md", as_markdown(comparison))
    write_text(config.run.out / "compare.html", render_comparison(comparison))
    write_json(config.run.out / "compare.json", comparison.to_dict())
    return CompareOutcome(comparison, config.run.out, failures)


def _same_teacher(run: DistillConfig, records: dict[int, RunRecord]) -> None:
    """Refuse seeds that learnt from different teachers; `fit` trains its own in every seed."""
    pair = None if run.teacher.kind == "fit" else differing_teachers(records)
    if pair is not None:
        raise ConfigError(
            f"seed {pair[1]} asked another teacher than seed {pair[0]} (its weights, code or file "
            f"have changed in between); delete the older seed folders, or choose another --out."
        )


def _same_code(records: dict[int, RunRecord]) -> None:
    """Refuse seeds that ran with different versions of the user's own losses or network."""
    seeds = {record.environment.get("own code", ""): seed for seed, record in records.items()}
    if len(seeds) > 1:
        raise ConfigError(
            f"the files of your own losses or network have changed between the seeds (seed "
            f"{min(seeds.values())} and seed {max(seeds.values())} ran with different ones); "
            f"delete the older seed folders, or choose another --out."
        )


def _pool_rows(folder: RunFolder) -> int | None:
    rows = read_selection(folder)
    return None if rows is None else len(rows)


def _notes(config: CompareConfig, failures: tuple[Failure, ...]) -> list[str]:
    """What the reader must know about where the rows came from and what is missing."""
    data, notes = config.run.data, []
    if data.test is None:
        notes.append(
            "Each seed cuts its own test rows. Its training rows overlap with those of the other "
            "seeds, which makes the intervals somewhat too narrow (Nadeau and Bengio, 2003)."
        )
    else:
        notes.append(
            "All seeds are measured on the same test rows: the intervals tell how much training "
            "varies, not how much other test rows would change."
        )
    if config.run.teacher.kind == "fit":
        notes.append("Each seed has trained its own teacher, so teachers vary with the seed too.")
    if failures:
        notes.append(
            f"{len(failures)} of {config.seeds} seeds have no result and are left out: "
            f"{', '.join(str(failure.seed) for failure in failures)}."
        )
    others = _left_out(config)
    if others:
        notes.append(
            f"The folder also holds seeds {', '.join(map(str, others))}, which were not asked for "
            f"and are left out; choosing seeds by their results would make this comparison wrong."
        )
    return notes


def _left_out(config: CompareConfig) -> list[int]:
    found = (path.parent.name.removeprefix("seed-") for path in
             config.run.out.glob("seed-*/metrics.json"))  # fmt: skip
    return sorted(int(n) for n in found if n.isdigit() and int(n) not in config.all_seeds)


def _gap(estimate: float, low: float, high: float) -> str:
    middle, least, most = (round(100 * x, 1) + 0.0 for x in (estimate, low, high))
    return f"{middle:+5.1f} ({least:+.1f} to {most:+.1f})"


class _Teller:
    """Turns the events of several runs into few lines and one bar."""

    def __init__(self, listener: Listener, plan: ComparePlan, config: CompareConfig) -> None:
        self._listener = listener
        folds = config.run.train.folds if CROSS_VALIDATED in plan.arms else 0
        self._total = len(plan.left) * (len(plan.arms) + folds) * plan.steps
        self._steps: dict[str, int] = {}
        self._seeds = len(plan.left)
        self._done = 0
        self._warned: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Hear of an event of one seed."""
        seed, _, stage = event.stage.partition(": ")
        if event.total and not stage.startswith("answers"):
            self._steps[event.stage] = event.done
            done = min(self._total, sum(self._steps.values()))
            self._listener(Event("all seeds", "training", done, self._total))
        elif event.total:
            self._listener(event)
        elif stage == "done":
            self._done += 1
            self._line(f"{seed} is done ({self._done} of {self._seeds}): {event.message}")
        elif stage == "answers" and any(event.detail.get(name) for name in ("bought", "failed")):
            self._line(f"{seed}: {event.message}")
        elif stage == WARNING and event.message not in self._warned:
            self._warned.add(event.message)
            self._line(f"{seed} warns: {event.message}")

    def _line(self, text: str) -> None:
        self._listener(Event("compare", text))
