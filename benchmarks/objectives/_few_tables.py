"""Tables and a picture of the comparison with few classes: every method less soft KD."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from benchmarks._common import RESULTS, Results, Row
from benchmarks._picture import whiskers
from benchmarks.objectives._few_methods import GRIDS, TITLES

from limbeck.numerics.intervals import Interval, paired_t
from limbeck.storage import write_text

TUNING = 1000
HARD, KD = "hard labels", "soft_kd"
ROOM = 1.0
"""Points that the teacher must be above the student of true labels."""
CLAIM = "LELP and its comparators on texts with few classes, alpha = 0, equal steps"


class Set:
    """What is known of one data set: test accuracies in percent by method and seed."""

    def __init__(self, name: str, rows: Sequence[Row]) -> None:
        mine = [row for row in rows if row["set"] == name and row["seed"] != TUNING]
        self.name = name
        self.test: dict[str, dict[int, float]] = {}
        self.plain: dict[str, dict[int, float]] = {}
        self.settings: dict[str, object] = {}
        for row in mine:
            method = str(row["method"])
            self.test.setdefault(method, {})[row["seed"]] = 100 * row["test"]
            self.plain.setdefault(method, {})[row["seed"]] = 100 * row["plain"]
            self.settings[method] = row["settings"]
        self.teacher = self._mean_of(mine, lambda row: row["method"] == KD)
        self.own_teacher = self._mean_of(mine, lambda row: row["method"] == "subclass")
        self.seeds = sorted({row["seed"] for row in mine})

    @staticmethod
    def _mean_of(rows: Sequence[Row], mine) -> float:  # type: ignore[no-untyped-def]  # a test of a row
        return float(np.mean([100 * row["teacher"] for row in rows if mine(row)] or [np.nan]))

    def mean(self, method: str) -> float:
        """Mean accuracy, percent."""
        return float(np.mean(list(self.test[method].values())))

    def less(self, method: str, other: str) -> Interval | None:
        """Difference paired by seed, points; None without two common seeds."""
        a, b = self.test.get(method, {}), self.test.get(other, {})
        both = sorted(a.keys() & b.keys())
        if method == other or len(both) < 2:
            return None
        return paired_t(np.array([a[seed] - b[seed] for seed in both]))

    @property
    def no_room(self) -> bool:
        """Whether the teacher is less than a point above the student of true labels."""
        return HARD in self.test and self.teacher < self.mean(HARD) + ROOM

    @property
    def title(self) -> str:
        """As tables call it."""
        return self.name + (", *no room*" if self.no_room else "")


def write_tables(found: Results, name: str) -> str:
    """Write the result file, its tables and a picture; the tables."""
    rows = list(found.rows())
    sets = [Set(each, rows) for each in dict.fromkeys(str(row["set"]) for row in rows)]
    sets = [one for one in sets if one.test]
    claims = [line for one in sets for line in _claims(one)]
    found.write(
        claim=CLAIM,
        config={"grids": GRIDS, "chosen": {one.name: one.settings for one in sets}},
        seeds=sorted({seed for one in sets for seed in one.seeds}),
        numbers={
            "sets": {
                one.name: {
                    "teacher": one.teacher,
                    "teacher of Subclass Distillation": one.own_teacher,
                    "accuracy": one.test,
                    "read at temperature 1": one.plain,
                }
                for one in sets
            },
            "claims": claims,
            "tuning": [row for row in rows if row["seed"] == TUNING],
        },
    )
    text = "\n".join([*_accuracies(sets), *_differences(sets), *_claim_lines(claims), ""])
    write_text(RESULTS / f"{name}.md", text)
    _draw(sets, Path(__file__).parents[2] / "docs" / "methods" / f"{name}.svg")
    return text


def _accuracies(sets: Sequence[Set]) -> list[str]:
    lines = ["| accuracy on test, % | " + " | ".join(one.title for one in sets) + " |"]
    lines.append("|---|" + "--:|" * len(sets))
    lines.append("| the teacher | " + " | ".join(f"{one.teacher:.1f}" for one in sets) + " |")
    for method, title in TITLES.items():
        cells = [f"{one.mean(method):.1f}" if method in one.test else "" for one in sets]
        if any(cells):
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _differences(sets: Sequence[Set]) -> list[str]:
    lines = ["| less soft KD, points | " + " | ".join(one.title for one in sets) + " |"]
    lines.append("|---|" + "--:|" * len(sets))
    for method, title in TITLES.items():
        cells = [shown(one.less(method, KD)) for one in sets]
        if any(cells):
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    seeds = [str(len(one.seeds)) for one in sets]
    return [*lines, "| seeds | " + " | ".join(seeds) + " |", ""]


def shown(found: Interval | None) -> str:
    """A difference with half the width of its 95 % interval."""
    return "" if found is None else f"{found.estimate:+.1f} ± {found.half_width:.1f}"


def _claims(one: Set) -> list[Row]:
    wanted = [("LELP at most 0.3 points below soft KD", "lelp", KD, -0.3)]
    if "oracle_split" in one.test:
        wanted += [
            ("oracle split above soft KD", "oracle_split", KD, 0.0),
            ("LELP above the random split", "lelp", "random_split", 0.0),
            ("random split above k-means", "random_split", "kmeans_split", 0.0),
        ]
    lines: list[Row] = []
    for claim, method, other, least in wanted:
        found = one.less(method, other)
        if found is not None:
            holds = found.estimate >= least
            sure = found.low > least
            lines.append(
                {"set": one.title, "claim": claim, "figure": shown(found), "holds": holds,
                 "beyond its interval": sure}
            )  # fmt: skip
    return lines


def _claim_lines(claims: Sequence[Row]) -> list[str]:
    lines = ["| claim | set | figure | holds | beyond its interval |", "|---|---|--:|---|---|"]
    for row in claims:
        told = ["yes" if row[key] else "no" for key in ("holds", "beyond its interval")]
        lines.append(
            f"| {row['claim']} | {row['set']} | {row['figure']} | " + " | ".join(told) + " |"
        )
    return lines


def _draw(sets: Sequence[Set], path: Path) -> None:
    """Differences from soft KD, a panel a set."""
    panels = {}
    seen = [m for m in TITLES if m != KD and any(m in one.test for one in sets)]
    for one in sets:
        found = {TITLES[method]: one.less(method, KD) for method in seen}
        panels[one.title.replace("*", "")] = {
            title: (np.nan,) * 3 if d is None else (d.estimate, d.low, d.high)
            for title, d in found.items()
        }
    if panels:
        whiskers(panels, path, label="less soft KD, points", accent="LELP")
