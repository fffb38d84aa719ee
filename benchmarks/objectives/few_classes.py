"""LELP and its comparators on texts with few classes.

    PYTHONPATH=src:. python -m benchmarks.objectives.few_classes --minutes 60

The student is a network with one small hidden layer over 64 directions of the words; the teacher is
the mean (of the logits) of three wider ones over 256 directions of words and runs of characters,
trained on all train rows. No method sees a true label: alpha = 0, but for the row of true labels.
All get the same first weights, minibatches and steps. Each method's setting is chosen among four,
by validation with seed 1000; then five seeds draw the teacher, the student and the order anew. The
step is the one of eight that is best on validation. Classes are read at the temperature of the
training; reading them at 1 is in the result file beside it.

Subclass Distillation has a teacher of its own, one network, whose accuracy is in the result file.
VID and RKD see a quarter of each minibatch, and CRD has 256 negatives, for their cost.
`clinc10 by parity` joins the 150 intents to two classes. Needs the folder `text` in the folder that
LIMBECK_DATA names.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import torch
from benchmarks._common import Clock, arguments, results
from benchmarks.objectives._few_features import SOURCES, Texts, texts
from benchmarks.objectives._few_methods import GRIDS
from benchmarks.objectives._few_nets import Arm, Nets, Score, accuracy, score, train
from benchmarks.objectives._few_runs import Task, compare, ids
from benchmarks.objectives._few_tables import write_tables
from torch import Tensor
from torch.nn import functional

from limbeck.answers import Answers
from limbeck.objectives import StudentOut, SubclassTeacher, TeacherHead

HIDDEN, TEACHER_HIDDEN, MEMBERS = 32, 128, 3
STEPS, TEACHER_STEPS, AT_ONCE = 1_000, 800, 20


class MeanTeacher:
    """Networks of which the mean of the logits is the answer.

    The mean of linear heads is a linear head on all their embeddings side by side. With
    `subclasses` it is one network, trained for Subclass Distillation.
    """

    def __init__(self, data: Texts, seed: int, *, subclasses: bool = False) -> None:
        self._data = data
        self._objective = SubclassTeacher() if subclasses else None
        members = 1 if subclasses else MEMBERS
        width = self._objective.width(data.num_classes) if self._objective else data.num_classes
        rows = data.splits["train"]
        self._nets = Nets(
            rows.teacher.shape[1], TEACHER_HIDDEN, [width] * members,
            [MEMBERS * seed + i for i in range(members)], dropout=0.5,
        )  # fmt: skip
        self._best = -1.0
        train(self._nets, rows.teacher, [self._loss] * members, TEACHER_STEPS, seed,
              look=self._look)  # fmt: skip
        self._nets.load_state_dict(self._kept)

    @property
    def head(self) -> TeacherHead:
        """The layer behind the embeddings."""
        head, bias = self._nets.head.detach(), self._nets.head_bias.detach()
        return TeacherHead(torch.cat([*head], dim=0).T / len(head), bias.mean(dim=0)[0])

    def answers(self, split: str) -> Answers:
        """What it says of a split."""
        outs = self._nets.look(self._data.splits[split].teacher)
        logits = torch.stack([out.outputs for out in outs]).mean(dim=0)
        if self._objective is not None:
            logits = self._objective.class_map(self._data.num_classes).class_logits(logits)
        embeddings = torch.cat([out.embedding for out in outs], dim=1)
        return Answers(ids(len(logits)), torch.softmax(logits, dim=1), embeddings)

    def _loss(self, out: StudentOut, rows: Tensor) -> Tensor:
        labels = self._data.splits["train"].labels[rows]
        if self._objective is not None:
            return self._objective.loss(out, None, labels).mean()
        return functional.cross_entropy(out.outputs, labels)

    def _look(self, _step: int) -> None:
        found = accuracy(self.answers("validation").probs, self._data.splits["validation"].labels)
        if found > self._best:
            self._best = found
            self._kept = {name: t.clone() for name, t in self._nets.state_dict().items()}


@lru_cache(maxsize=2)
def teacher_of(name: str, seed: int, own: bool) -> MeanTeacher:
    """The teacher of a data set and a seed; the one of Subclass Distillation if `own`."""
    return MeanTeacher(texts(name), seed, subclasses=own)


class TextTask(Task):
    """Students side by side, on directions of the words.

    Args:
        name, seed: Of the data set and of all that is drawn.
        own_teacher: Train the teacher of Subclass Distillation as well.
        answers: How many pool rows have an answer, drawn at random; None for all.
    """

    def __init__(
        self, name: str, seed: int, own_teacher: bool, *, answers: int | None = None
    ) -> None:
        self._data = texts(name)
        teachers = {own: teacher_of(name, seed, own) for own in {False, own_teacher}}
        labels = {split: rows.labels for split, rows in self._data.splits.items()}
        g = torch.Generator().manual_seed(seed)
        bought = None if answers is None else torch.randperm(len(labels["pool"]), generator=g)
        super().__init__(
            labels, self._data.splits["pool"].fine, teachers, HIDDEN, seed,
            bought=None if bought is None else bought[:answers],
        )  # fmt: skip

    def play(self, arms: Sequence[Arm], *, pool: str) -> list[Score]:
        """Train all arms on the same minibatches; the best step of each."""
        x = {split: rows.student for split, rows in self._data.splits.items()}
        if self.bought is not None:
            x["pool"] = x["pool"][self.bought]
        heads = [arm.objective.width(self.num_classes) for arm in arms]
        nets = Nets(x[pool].shape[1], HIDDEN, heads, [self.seed] * len(arms))
        best = [Score(-1.0, 0.0, 0.0, 0)] * len(arms)

        def look(step: int) -> None:
            seen, tested = (nets.look(x[split]) for split in ("validation", "test"))
            for i, (arm, *outs) in enumerate(zip(arms, seen, tested, strict=True)):
                found = score(arm.objective, outs, self.labels, step)
                best[i] = max(best[i], found, key=lambda one: one.validation)

        def begin(share: float) -> None:
            for arm in arms:
                arm.objective.begin_step(share)

        extra = list(chain.from_iterable(arm.objective.parameters() for arm in arms))
        losses = [arm.loss for arm in arms]
        train(nets, x[pool], losses, STEPS, self.seed, begin=begin, extra=extra, look=look)
        return best


def methods(name: str) -> list[str]:
    """All methods; the oracle only where there are fine labels."""
    has_fine = texts(name).splits["pool"].fine is not None
    return [method for method in GRIDS if has_fine or method != "oracle_split"]


def main() -> None:
    """Run what is missing, then write the result and the tables."""
    parser = arguments(__doc__, minutes=60)
    parser.add_argument("--sets", nargs="*", default=list(SOURCES))
    parser.add_argument("--name", default="few_classes", help="of the result")
    options = parser.parse_args()
    clock, kept = Clock(options.minutes), results(options.name, fresh=options.fresh)
    torch.set_num_threads(1)
    compare(kept, options.sets, methods, TextTask, at_once=AT_ONCE, clock=clock)
    print(write_tables(kept, options.name))


if __name__ == "__main__":
    main()
