"""What the comparisons with few classes share: what is known of a teacher, tuning, seeds."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Protocol

import numpy as np
import torch
from benchmarks._common import Clock, Results, Row
from benchmarks.objectives._few_methods import GRIDS, Settings, make
from benchmarks.objectives._few_nets import Arm, Score, accuracy, part
from numpy.typing import NDArray
from torch import Tensor

from limbeck.answers import Answers
from limbeck.objectives import Evidence, Objective, SoftKD, TeacherHead
from limbeck.objectives.oracle_split import Lookup
from limbeck.trust import IsotonicTrust, margin, top_k

SEEDS, TUNING = (0, 1, 2, 3, 4), 1000
HARD, OWN = "hard labels", "subclass"
"""The method that learns from true labels, and the one that has a teacher of its own."""


SLOW_TO_FIT = ("kmeans_split", "agglomerative_split")


class Teacher(Protocol):
    """Answers with embeddings, and the layer behind those."""

    @property
    def head(self) -> TeacherHead: ...

    def answers(self, split: str) -> Answers: ...


class Task(ABC):
    """A data set, its teachers of one seed, and what is known of them.

    Args:
        labels: Of "train", "validation", "test" and "pool", int64; -1 where there is none.
        fine: Fine labels of the pool, int64, or None.
        teachers: By whether it is the one that Subclass Distillation needs.
        dim: Width of the student's embedding.
        seed: Of the student, its order, rotations and clusters.
        bought: Pool rows that have an answer, int64, or None for all.
    """

    def __init__(
        self,
        labels: dict[str, Tensor],
        fine: Tensor | None,
        teachers: dict[bool, Teacher],
        dim: int,
        seed: int,
        *,
        bought: Tensor | None = None,
    ) -> None:
        self.labels, self.fine, self.dim, self.seed = labels, fine, dim, seed
        self.bought = bought
        self.num_classes = int(labels["train"].max()) + 1
        self._fitted: dict[str, Objective] = {}
        self.known = {own: self._known(teacher) for own, teacher in teachers.items()}
        self.accuracy = {
            own: accuracy(teacher.answers("test").probs, labels["test"])
            for own, teacher in teachers.items()
        }

    @abstractmethod
    def play(self, arms: Sequence[Arm], *, pool: str) -> list[Score]:
        """Train a student for each arm on the rows of a split; the best step of each."""

    def arm(self, method: str, settings: Settings) -> Arm:
        """A fitted objective, with the answers of its teacher."""
        if method == HARD:
            told = torch.nn.functional.one_hot(self.labels["train"], self.num_classes).float()
            share = settings["smoothing"]
            return Arm.of(
                SoftKD(),
                Answers(ids(len(told)), told * (1 - share) + share / self.num_classes),
            )
        answers, evidence = self.known[method == OWN]
        if method in SLOW_TO_FIT:
            if method not in self._fitted:
                made = make(method, settings, self.seed, self._hidden)
                self._fitted[method] = made.fit([answers], evidence)
            # Clusters do not depend on the temperature.
            fitted = copy.copy(self._fitted[method])
            fitted.temperature = settings["temperature"]
            return Arm.of(fitted, answers)
        objective = make(method, settings, self.seed, self._hidden)
        g = torch.Generator().manual_seed(self.seed)
        return Arm.of(objective.fit([answers], evidence).attach(self.dim, g), answers)

    def _known(self, teacher: Teacher) -> tuple[Answers, Evidence]:
        told, labels = teacher.answers("validation").probs, self.labels["validation"]
        trust = IsotonicTrust.fit(margin(told), told.argmax(dim=1) == labels, lower=0.5)
        k = top_k(told, labels)
        evidence = Evidence(told, labels, lambda p: trust.alpha(margin(p)), k, None, teacher.head)
        answers = teacher.answers("pool")
        return answers if self.bought is None else part(answers, self.bought.numpy()), evidence

    def _hidden(self) -> tuple[Lookup, list[int]]:
        """Finds the class and the fine label of pool rows, numbered from 0 within the class."""
        assert self.fine is not None
        labels, place, sizes = self.labels["pool"], torch.zeros_like(self.fine), []
        for each in range(self.num_classes):
            mine = labels == each
            kinds, place[mine] = self.fine[mine].unique(return_inverse=True)
            sizes.append(len(kinds))

        def lookup(found: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
            at = torch.from_numpy(np.ascontiguousarray(found).view(np.int64)[:, 0].copy())
            return labels[at], place[at]

        return lookup, sizes


Maker = Callable[[str, int, bool], Task]
"""A task from the name of its data set, a seed, and whether it needs the second teacher."""


def ids(count: int) -> NDArray[np.uint8]:
    """A row's place as its question id."""
    places = np.zeros((count, 2), np.int64)
    places[:, 0] = np.arange(count)
    return places.view(np.uint8)


def run(
    kept: Results,
    name: str,
    seed: int,
    wanted: Sequence[tuple[str, Settings]],
    maker: Maker,
    *,
    at_once: int,
    clock: Clock,
) -> None:
    """Train what is missing of these, and keep a row each.

    Args:
        kept: Where rows are kept.
        name, seed: Of the data set and of all that is drawn.
        wanted: Methods with their settings.
        maker: Makes the task.
        at_once: Students that are trained side by side.
        clock: No stack begins when its time is up.
    """
    missing = [one for one in wanted if not kept.done([name, seed, *one])]
    if not missing:
        return
    task = maker(name, seed, any(method == OWN for method, _ in missing))
    for stack in _stacks(missing, at_once):
        if clock.spent:
            return
        arms = [task.arm(method, settings) for method, settings in stack]
        scores = task.play(arms, pool="train" if stack[0][0] == HARD else "pool")
        for (method, settings), score in zip(stack, scores, strict=True):
            row: Row = {"set": name, "seed": seed, "method": method, "settings": settings}
            teacher = task.accuracy[method == OWN]
            kept.add([name, seed, method, settings], {**row, **asdict(score), "teacher": teacher})


def compare(
    kept: Results,
    names: Sequence[str],
    methods: Callable[[str], Sequence[str]],
    maker: Maker,
    *,
    at_once: int,
    clock: Clock,
) -> None:
    """For each data set choose settings with the seed of tuning, then run all seeds."""
    for name in names:
        everything = [(m, s) for m in methods(name) for s in GRIDS[m]]
        run(kept, name, TUNING, everything, maker, at_once=at_once, clock=clock)
        if not all(kept.done([name, TUNING, *one]) for one in everything):
            return
        for seed in SEEDS:
            if not clock.spent:
                best = chosen(kept, name, methods(name))
                run(kept, name, seed, best, maker, at_once=at_once, clock=clock)


def chosen(kept: Results, name: str, methods: Sequence[str]) -> list[tuple[str, Settings]]:
    """The setting of each method that is best on validation with the seed of tuning."""
    best: dict[str, Row] = {}
    for row in kept.rows():
        method = str(row["method"])
        tuned = (row["set"], row["seed"]) == (name, TUNING) and row["settings"] in GRIDS[method]
        if tuned and row["validation"] > best.get(method, {"validation": -1.0})["validation"]:
            best[method] = row
    return [(method, best[method]["settings"]) for method in methods]


def _stacks(
    wanted: Sequence[tuple[str, Settings]], at_once: int
) -> list[list[tuple[str, Settings]]]:
    """Cut into as many as train side by side; those on true labels apart, since rows differ."""
    hard = [one for one in wanted if one[0] == HARD]
    rest = [one for one in wanted if one[0] != HARD]
    return [part[i : i + at_once] for part in (hard, rest) for i in range(0, len(part), at_once)]
