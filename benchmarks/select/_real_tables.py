"""Tables and claims of the real-data benchmark of rules."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from benchmarks._common import RESULTS, Results, Row
from benchmarks._picture import whiskers
from benchmarks.select import _real_tasks as tasks
from benchmarks.select._real_features import IMAGES, SOURCES

from limbeck.numerics.intervals import Interval, paired_t
from limbeck.storage import write_text

CLAIM = (
    "RAD buys fewer wrong answers than margin sampling and is never significantly below the better "
    "of uniform and margin; AdaProd+ is above uniform on images, and above greedy under noise; RAD "
    "with SLaM is above margin with soft KD where the teacher errs on a fifth or more"
)
NOISES = ("Gaussian 0.5", "Bernoulli")
LOW, MIDDLE, HIGH, LEAST_ERROR = 0.1, 0.25, 0.4, 0.2
NEVER_BELOW = "RAD is never significantly below the better of uniform and margin"
ABOVE_UNIFORM = "AdaProd+ is significantly above uniform on the image sets"
ABOVE_GREEDY = "AdaProd+ is significantly above greedy where scores are noisy"
COMBINED = (
    "RAD with SLaM is significantly above margin with soft KD at a teacher error of 20 % or more"
)


class Setting:
    """All arms of one data set and teacher."""

    def __init__(self, name: str, teacher: str, rounds: int, rows: Iterable[Row]) -> None:
        key = (name, teacher, rounds)
        mine = [row for row in rows if (row["set"], row["teacher"], row["rounds"]) == key]
        self.rounds, self.images = rounds, name in IMAGES
        self.error = float(np.mean([row["error"] for row in mine]))
        self.teacher, self.title = teacher, f"{name}, {teacher} ({100 * self.error:.1f} %)"
        self.area: dict[str, dict[int, float]] = {}
        self.wrong: dict[str, float] = {}
        for arm in dict.fromkeys(row["arm"] for row in mine):
            own = [row for row in mine if row["arm"] == arm]
            self.area[arm] = {row["seed"]: 100 * _area(row["curve"]) for row in own}
            if own[0]["wrong"] is not None:
                self.wrong[arm] = 100 * float(np.mean([row["wrong"] for row in own]))

    def mean(self, arm: str) -> float:
        """Mean area of an arm, in points."""
        return float(np.mean(list(self.area[arm].values())))

    def less(self, arm: str, other: str) -> Interval | None:
        """Difference of areas, paired by seed, in points."""
        a, b = self.area.get(arm, {}), self.area.get(other, {})
        both = sorted(a.keys() & b.keys())
        if arm == other or len(both) < 2:
            return None
        return paired_t(np.array([a[seed] - b[seed] for seed in both]))


def write_tables(found: Results, name: str) -> str:
    """Write the result file, its tables and a picture; the tables."""
    rows = _complete(list(found.rows()))
    keys = dict.fromkeys((row["set"], row["teacher"], row["rounds"]) for row in rows)
    settings = [Setting(*key, rows) for key in keys]
    claims = [line for setting in settings for line in _claims(setting)]
    found.write(
        claim=CLAIM,
        config={
            "sources": {key: asdict(source) for key, source in SOURCES.items()},
            "steps": tasks.STEPS,
            "hidden": tasks.HIDDEN,
            "teacher": {"hidden": tasks.TEACHER_HIDDEN, "steps": tasks.TEACHER_STEPS},
        },
        seeds=sorted({row["seed"] for row in rows}),
        numbers={
            "settings": {
                f"{s.title}, {s.rounds} rounds": {"area": s.area, "wrong": s.wrong}
                for s in settings
            },
            "claims": claims,
        },
    )
    text = "\n".join([
        f"Accuracy over answers (area under the curve), %; differences in points, paired by "
        f"{len({row['seed'] for row in rows})} seeds,",
        "with 95 % t-intervals. A column is a data set, a teacher, and its error on the pool.\n",
        *(line for rounds in dict.fromkeys(s.rounds for s in settings)
          for line in _tables(rounds, [s for s in settings if s.rounds == rounds])),
        *_summary(claims),
        "",
    ])  # fmt: skip
    write_text(RESULTS / f"{name}.md", text)
    _draw(settings, Path(__file__).parents[2] / "docs" / "methods" / f"{name}.svg")
    return text


def _complete(rows: list[Row]) -> list[Row]:
    """Rows of the seeds in which nothing is missing; all rows while there is no such seed."""
    counts = Counter(row["seed"] for row in rows)
    return [row for row in rows if counts[row["seed"]] == max(counts.values())]


def _tables(rounds: int, settings: list[Setting]) -> list[str]:
    cells: dict[str, Callable[[Setting, str], str]] = {
        "area, %": lambda s, arm: f"{s.mean(arm):.1f}",
        "less uniform": lambda s, arm: _shown(s.less(arm, "uniform")),
        "less margin (greedy)": lambda s, arm: _shown(s.less(arm, "greedy")),
        "wrong answers bought, %": lambda s, arm: f"{s.wrong[arm]:.1f}" if arm in s.wrong else "",
    }
    lines = [f"{rounds} rounds:", ""]
    for title, cell in cells.items():
        lines += _table(title, settings, cell)
    return [*lines, *_overview(settings)]


def _overview(settings: list[Setting]) -> list[str]:
    """In how many settings each arm is significantly above or below uniform, and the means."""
    lines = ["| rule | settings | above uniform | below | less uniform, mean | wrong answers, % |"]
    lines.append("|---|--:|--:|--:|--:|--:|")
    for arm in max((s.area for s in settings), key=len):
        mine = [s for s in settings if arm in s.area]
        found = [d for s in mine if (d := s.less(arm, "uniform")) is not None]
        wrong = [s.wrong[arm] for s in mine if arm in s.wrong]
        cells = [str(len(mine))]
        cells += [str(sum(d.low > 0 for d in found)), str(sum(d.high < 0 for d in found))]
        cells.append(f"{np.mean([d.estimate for d in found]):+.1f}" if found else "")
        cells.append(f"{np.mean(wrong):.1f}" if wrong else "")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _draw(settings: list[Setting], path: Path) -> None:
    """Differences from uniform with the weak teachers."""
    panels = {}
    for setting in settings:
        if setting.teacher == "weak":
            found = {arm: setting.less(arm, "uniform") for arm in setting.area}
            panels[setting.title] = {
                arm: (d.estimate, d.low, d.high) for arm, d in found.items() if d is not None
            }
    panels = {title: {arm: panel.get(arm, (np.nan,) * 3) for arm in max(panels.values(), key=len)}
              for title, panel in panels.items()}  # fmt: skip
    if panels and any(panels.values()):
        whiskers(panels, path, label="accuracy less uniform, points", accent="rad")


def _area(curve: list[float]) -> float:
    return float(np.trapezoid(curve)) / (len(curve) - 1)


def _table(title: str, settings: list[Setting], cell: Callable[[Setting, str], str]) -> list[str]:
    arms = max((s.area for s in settings), key=len)
    lines = [f"| {title} | " + " | ".join(s.title for s in settings) + " |"]
    lines.append("|---|" + "--:|" * len(settings))
    for arm in arms:
        cells = [cell(s, arm) if arm in s.area else "" for s in settings]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _shown(found: Interval | None) -> str:
    return "" if found is None else f"{found.estimate:+.1f} ± {found.half_width:.1f}"


def _claims(setting: Setting) -> list[Row]:
    lines: list[Row] = []

    def add(claim: str, figure: str, holds: bool | None) -> None:
        title = f"{setting.title}, {setting.rounds} rounds"
        lines.append({"claim": claim, "setting": title, "figure": figure, "holds": holds})

    def above(claim: str, arm: str, other: str, claimed: bool = True) -> None:
        found = setting.less(arm, other)
        if found is not None:
            add(claim, _precise(found), found.low > 0 if claimed else None)

    if {"rad", "greedy"} <= setting.wrong.keys():
        fewer = 1 - setting.wrong["rad"] / setting.wrong["greedy"]
        claim, least = _fewer(setting.error)
        add(claim, f"{100 * fewer:.0f} % fewer", None if least is None else fewer >= least)
    found = setting.less("rad", max(("uniform", "greedy"), key=setting.mean))
    if found is not None:
        add(NEVER_BELOW, _precise(found), found.high >= 0)
    if setting.images:
        above(ABOVE_UNIFORM, "adaprod", "uniform")
        above("AdaProd+ less greedy, without noise", "adaprod", "greedy", claimed=False)
    for noise in NOISES:
        noisy = f"adaprod, {noise} noise"
        above(f"{ABOVE_GREEDY} ({noise})", noisy, f"greedy, {noise} noise")
        above(f"AdaProd+ with noise ({noise}) less greedy without", noisy, "greedy", claimed=False)
    above(COMBINED, "rad, SLaM", "greedy", setting.error >= LEAST_ERROR)
    return lines


def _fewer(error: float) -> tuple[str, float | None]:
    """The claim about wrong answers at this error of the teacher, and how many fewer it says."""
    start = "RAD buys fewer wrong answers than margin"
    if LOW <= error <= MIDDLE:
        return f"{start}: 20 % at a teacher error of 10 to 25 %", 0.2
    if MIDDLE < error <= HIGH:
        return f"{start}: 10 % at a teacher error up to 40 %", 0.1
    return start, None


def _summary(claims: list[Row]) -> list[str]:
    """One line a claim: whether it holds everywhere, and each figure."""
    lines = ["| claim | | figures |", "|---|---|---|"]
    for claim in dict.fromkeys(c["claim"] for c in claims):
        mine = [c for c in claims if c["claim"] == claim]
        figures = "; ".join(
            f"{c['setting']}: {c['figure']}{' **(not)**' if c['holds'] is False else ''}"
            for c in mine
        )
        said = [c["holds"] for c in mine if c["holds"] is not None]
        verdict = f"holds in {sum(said)} of {len(said)}" if said else "no claim"
        lines.append(f"| {claim} | {verdict} | {figures} |")
    return lines


def _precise(found: Interval) -> str:
    return f"{found.estimate:+.2f} ± {found.half_width:.2f}"
