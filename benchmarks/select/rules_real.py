"""Every rule for choosing rows on real reviews and images, with a strong and a weak teacher.

    PYTHONPATH=src:. python -m benchmarks.select.rules_real --minutes 60

A student on frozen features starts from 100 labelled rows; it buys answers about a pool of 8,000
rows, 8 batches of 192, and is trained from scratch after each, on true labels and the teacher's
probabilities. All rules see the same splits, the same first weights, the same minibatch draws and
the same number of steps. m of RAD and the trust of SLaM come from 300 validation rows. Areas are
those under accuracy against answers, by trapezoids.

"expected_gain" takes the teacher's error at a row to be that of the 20 validation rows that are
nearest in the student's embedding; the clusters of "cluster_margin" are cut once for a data set,
from the features. Beside the rules of `limbeck.select` there are UNIXKD on the
image sets, which asks about mixed feature vectors, so that what is wrong cannot be told; and RAD,
margin sampling ("greedy") and uniform rows with SLaM, normalised and with the hard target.

Rules with a memory learn from rounds, so on the image sets a second plan buys 60 batches of 12 of
the strong teacher's answers, and there are rules whose scores get noise of the round.

Sizes, steps, the form of SLaM and the teachers' labels were chosen by cost, by where the teachers'
errors lie and by a few trial runs, on seed 1000, which is not among the seeds reported. Needs the
folders `text` and `images` in the folder that LIMBECK_DATA names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from benchmarks._common import Clock, Row, arguments, results
from benchmarks.select._real_features import IMAGES, SOURCES
from benchmarks.select._real_tables import NOISES, write_tables
from benchmarks.select._real_tasks import Bought, Task
from torch import Tensor

from limbeck.select import (
    SELECTORS,
    Arrays,
    ClusterMargin,
    ExpectedGain,
    gains,
    selector_class,
    unixkd_batch,
)

SEEDS, KEPT, MINIBATCH, NEAREST = list(range(10)), 48, 64, 20


@dataclass(frozen=True, slots=True)
class Arm:
    """A rule, how the student learns from answers, and the noise of the rule's scores."""

    rule: str
    objective: str = "soft KD"
    noise: str = ""

    @property
    def title(self) -> str:
        """As tables call it."""
        more = [self.objective] if self.objective != "soft KD" else []
        return ", ".join([self.rule, *more, *([f"{self.noise} noise"] if self.noise else [])])


@dataclass(frozen=True, slots=True)
class Plan:
    """Batches, the rows of each, and the arms that buy; arms with SLaM come last."""

    rounds: int
    batch: int
    arms: list[Arm]


MEMORY = ("greedy", "averaged_greedy", "adaprod")
WITH_SLAM = [Arm(rule, "SLaM") for rule in ("uniform", "greedy", "rad")]
RULES = [Arm(rule) for rule in SELECTORS]
FEW = Plan(8, 192, [*RULES, *WITH_SLAM])
FEW_IMAGES = Plan(8, 192, [*RULES, Arm("unixkd"), *WITH_SLAM])
MANY = Plan(60, 12, [
    Arm("uniform"), *map(Arm, MEMORY), *(Arm(rule, noise=n) for n in NOISES for rule in MEMORY)
])  # fmt: skip
Look = Callable[[Tensor], tuple[Tensor, Tensor]]


def settings() -> list[tuple[str, str, Plan]]:
    """Data set, teacher and plan of all comparisons."""
    found = []
    for name, source in SOURCES.items():
        few = FEW_IMAGES if name in IMAGES else FEW
        found += [(name, teacher, few) for teacher in source.teachers]
    return [*found, *((name, "strong", MANY) for name in IMAGES)]


class Buyer:
    """What one arm has bought, and how it chooses."""

    def __init__(self, task: Task, arm: Arm, batch: int) -> None:
        self.task, self.arm, self.batch = task, arm, batch
        self.generator = torch.Generator().manual_seed(task.seed)
        self.free = torch.ones(len(task.x["pool"]), dtype=torch.bool)
        self.x, self.told = task.x["pool"][:0], task.told["pool"][:0]
        self.wrong: list[Tensor] = []
        self.curve: list[float] = []
        self.asked = torch.zeros(0, dtype=torch.int64)
        self.selector = selector_class(arm.rule if arm.rule in SELECTORS else "uniform")()
        if arm.rule == ClusterMargin.name:
            self.selector.load_state_dict({"clusters": task.clusters})
        if arm.noise:
            self.selector.measure = _first_column  # type: ignore[attr-defined]  # rules by gains

    def round(self, look: Look, *, last: bool) -> None:
        """Test the student, learn from its scores, and buy a batch unless this is the last round.

        Args:
            look: The student: probabilities and embeddings of inputs.
            last: Whether nothing more is bought.
        """
        named = look(self.task.x["test"])[0].argmax(1)
        self.curve.append(float((named == self.task.y["test"]).float().mean()))
        probs, embedding = look(self.task.x["pool"])
        scores = self._noisy(gains(probs))
        if len(self.asked):
            self.selector.observe(self.asked, scores[self.asked])
        if last:
            return
        rows = self.asked = self.free.nonzero()[:, 0]
        if self.arm.rule == "unixkd":
            self._buy_mixed(probs, rows)
        else:
            known = look(torch.cat([self.task.x["labelled"], self.x]))[1]
            seen = scores[:, None] if self.arm.noise else probs
            error: float | Tensor = self.task.error["validation"]
            if self.arm.rule == ExpectedGain.name:
                error = self._error_nearby(look, embedding[rows])
            candidates = Arrays(rows, seen[rows], embedding[rows], known, len(self.free), error)
            self._buy(self.selector.select(candidates, self.batch, self.generator).rows)

    def row(self) -> Row:
        """Accuracies before the first batch and after each, and the share of wrong answers."""
        wrong = float(torch.cat(self.wrong).float().mean()) if self.wrong else None
        return {"curve": self.curve, "wrong": wrong}

    def _noisy(self, clean: Tensor) -> Tensor:
        match self.arm.noise:
            case "Gaussian 0.5":
                noise = torch.randn(len(clean), generator=self.generator)
                return (clean + 0.5 * noise).clamp(0, 1)
            case "Bernoulli":
                return torch.bernoulli(clean, generator=self.generator)
        return clean

    def _error_nearby(self, look: Look, embedding: Tensor) -> Tensor:
        """The teacher's error among the nearest validation rows."""
        points = look(self.task.x["validation"])[1]
        near = torch.cdist(embedding, points).topk(NEAREST, largest=False).indices
        return (~self.task.right["validation"]).float()[near].mean(dim=1)

    def _buy(self, rows: Tensor) -> None:
        self.free[rows] = False
        self.x = torch.cat([self.x, self.task.x["pool"][rows]])
        self.told = torch.cat([self.told, self.task.told["pool"][rows]])
        self.wrong.append(~self.task.right["pool"][rows])

    def _buy_mixed(self, probs: Tensor, rows: Tensor) -> None:
        """UNIXKD's minibatches of 64 random rows, of which 48 are asked about, mixed or not."""
        order = rows[torch.randperm(len(rows), generator=self.generator)]
        parts = []
        for origin in order.split(MINIBATCH)[: self.batch // KEPT]:
            x = self.task.x["pool"][origin]
            part, at = unixkd_batch(x, probs[origin], KEPT, self.generator)
            self.free[origin[at]] = False
            parts.append(part)
        mixed = torch.cat(parts)
        self.x = torch.cat([self.x, mixed])
        self.told = torch.cat([self.told, self.task.ask(mixed)])


def play(task: Task, plan: Plan) -> list[Row]:
    """All arms side by side; a row each."""
    buyers = [Buyer(task, arm, plan.batch) for arm in plan.arms]
    noisy = torch.tensor([arm.objective == "SLaM" for arm in plan.arms])
    for turn in range(plan.rounds + 1):
        x, told = (torch.stack([getattr(b, part) for b in buyers]) for part in ("x", "told"))
        nets = task.train(Bought(x, told, noisy))
        for i, buyer in enumerate(buyers):
            buyer.round(partial(nets.look, i), last=turn == plan.rounds)
    return [buyer.row() for buyer in buyers]


def _first_column(block: Tensor) -> Tensor:
    return block[:, 0]


def main() -> None:
    """Run what is missing, then write the result and the tables."""
    parser = arguments(__doc__, minutes=60)
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--name", default="rules_real", help="of the result")
    options = parser.parse_args()
    clock, found = Clock(options.minutes), results(options.name, fresh=options.fresh)
    torch.set_num_threads(1)
    for seed in options.seeds:
        for name, teacher, plan in settings():
            key = [name, teacher, plan.rounds, seed]
            if found.done([*key, plan.arms[-1].title]) or clock.spent:
                continue
            task = Task(name, teacher, seed)
            told = {"set": name, "teacher": teacher, "rounds": plan.rounds, "seed": seed}
            told["error"] = task.error["pool"]
            for arm, row in zip(plan.arms, play(task, plan), strict=True):
                found.add([*key, arm.title], {**told, "arm": arm.title, **row})
    print(write_tables(found, options.name))


if __name__ == "__main__":
    main()
