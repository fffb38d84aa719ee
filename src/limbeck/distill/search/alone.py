"""A search without the training of the student that it finds: `limbeck search`."""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from limbeck.distill.config import DistillConfig
from limbeck.distill.encoding import check_student, make_student
from limbeck.distill.folder import Listener, RunFolder, ignore
from limbeck.distill.plan import Plan, make_plan, timed_steps
from limbeck.distill.run import begun, buy, check_validation, encode_only, run_id
from limbeck.distill.search.forecast import search_plan
from limbeck.distill.search.problem import search_arm
from limbeck.distill.search.run import check_search, search
from limbeck.distill.search.trials import SearchRows
from limbeck.distill.staging import stage
from limbeck.distill.trust import fit_trust
from limbeck.report.search import SearchView
from limbeck.report.search_words import search_lines
from limbeck.search.space import Option
from limbeck.teachers.imports import importable


@dataclass(frozen=True, slots=True, eq=False)
class SearchOutcome:
    """What a search gives.

    Args:
        view: Every trial, and what was found.
        settings: Of the student that was found.
        folder: Of the run; search.html and search.json lie in it.
    """

    view: SearchView
    settings: dict[str, Option]
    folder: Path

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        page = str(self.folder / "search.html")
        return {"page": page, "settings": self.settings, **self.view.to_dict()}

    def text(self) -> str:
        """What was found, the front, and what to do next."""
        *said, then = search_lines(
            self.view, then='limbeck distill, with arch = "search", trains it and tests it once'
        )
        given = (f"{name} = {value}" for name, value in self.settings.items())
        page = f"page     {self.folder / 'search.html'}"
        return "\n".join([*said, "[student.settings]", *given, "", page, then])


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """What a search would do that asks no teacher.

    Args:
        out: Where it would write.
        rows: Rows of each split.
        notes: What was guessed and removed.
        student: Kind.
        search: Its trials and its limit, in words.
    """

    out: Path
    rows: dict[str, int]
    notes: tuple[str, ...]
    student: str
    search: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {**asdict(self), "out": str(self.out)}

    def text(self) -> str:
        """A few lines for a person."""
        rows = ", ".join(f"{n:,} {name}" for name, n in self.rows.items())
        return "\n".join(
            [
                f"rows      {rows}",
                *(f"          {note}" for note in self.notes),
                f"student   {self.student}",
                "answers   none to buy: trials learn from labels alone",
                *self.search,
                f"writes    {self.out}",
            ]
        )


def plan_alone(config: DistillConfig) -> "Plan | SearchPlan":
    """What `search_alone` would do and cost; nobody is asked.

    Raises:
        LimbeckError: whatever the search would refuse before it spends anything.
    """
    config = searching(config)
    if search_arm(config) != "labels":
        return make_plan(config)
    folder = RunFolder(config.out, writes=False)
    folder.check(config)
    with importable(config.code), folder.collecting_warnings():
        splits = stage(config, folder)
        check_student(config, splits)
        check_validation(config, splits)
        student, _ = make_student(config, splits, folder)
        timed = partial(timed_steps, splits, student)
        lines = search_plan(config, splits, student, folder, 0, timed)
    names = ("labelled", "validation", "test", "pool")
    rows = {name: len(getattr(splits, name)) for name in names}
    return SearchPlan(config.out, rows, splits.notes, student.encoder.kind, lines)


def search_alone(config: DistillConfig, listener: Listener = ignore) -> SearchOutcome:
    """Search for a student under a limit; its training is left to `distill`.

    Args:
        config: Of a run; `student.arch` is taken as "search". Answers are bought as the run would
            buy them, unless `search.arm` is labels, which asks nobody.
        listener: Told what happens.

    Raises:
        LimbeckError: as `distill`; or no trial within the limit has a reward.
    """
    config = searching(config)
    with begun(config, listener) as (folder, ledger, accelerator):
        if search_arm(config) == "labels":
            splits, encoded = encode_only(config, folder)
            rows = SearchRows(splits, encoded, None, None)
        else:
            bought = buy(config, folder, ledger, accelerator)
            trust = fit_trust(config, bought.splits, bought.acquired, bought.teacher)
            rows = SearchRows(bought.splits, bought.encoded, bought.acquired, trust)
        problem = check_search(config, rows.encoded.student, folder)
        view = search(config, problem, rows, folder, run_id(folder), accelerator)
    assert view.answer is not None
    found = problem.students.space.values(view.answer.options)
    return SearchOutcome(view, found, folder.root)


def searching(config: DistillConfig) -> DistillConfig:
    """The settings with a search in them."""
    return replace(config, student=replace(config.student, arch="search"))
