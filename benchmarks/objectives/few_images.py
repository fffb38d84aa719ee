"""LELP and its comparators on images whose ten classes are joined to two by parity.

    PYTHONPATH=src:. python -m benchmarks.objectives.few_images --minutes 60

Teacher and student are residual networks (`image_cnn`); the teacher is wider and has seen more
rows. As in `few_classes`, no method sees a true label (alpha = 0), all get the same first weights,
minibatches and steps, settings are chosen by validation with seed 1000, and five seeds draw the
student, its pool and its order anew; one teacher serves all seeds. Targets are those of the images
as they are, and no image is varied. Needs the folder `images` in the folder that LIMBECK_DATA
names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import torch
from benchmarks._common import RESULTS, Clock, arguments, results
from benchmarks.distill._shared import data_folder
from benchmarks.objectives._few_nets import Arm, Score, accuracy, score
from benchmarks.objectives._few_runs import Task, compare, ids
from benchmarks.objectives._few_tables import write_tables
from torch import Tensor
from torch.nn import functional

from limbeck.answers import Answers
from limbeck.data.images import netpbm
from limbeck.data.schema import Schema
from limbeck.objectives import StudentOut, SubclassTeacher, TeacherHead
from limbeck.students import MemoryStore, Student, build

METHODS = ("hard labels", "soft_kd", "lelp", "random_projections", "random_split", "kmeans_split",
           "oracle_split", "subclass", "embedding", "vid")  # fmt: skip
BATCH, EVALUATIONS, RATE = 64, 5, 3e-3


@dataclass(frozen=True, slots=True)
class Source:
    """A data set, its networks and how long they train.

    Args:
        file: Below `images` in LIMBECK_DATA.
        train, pool, validation, test: Rows; the pool is drawn from the train rows of the teacher.
        teacher_steps, steps: Of minibatches of 64.
        teacher, student: Settings of `image_cnn`.
    """

    file: str
    train: int
    pool: int
    validation: int
    test: int
    teacher_steps: int
    steps: int
    teacher: dict[str, object]
    student: dict[str, object]


SOURCES = {
    "mnist by parity": Source(
        "mnist.npz", 12_000, 1_000, 1_000, 3_000, 900, 300,
        {"width": 24, "augment": "none"}, {"width": 8, "augment": "none"},
    ),
    "cifar10 by parity": Source(
        "cifar10_jpeg.npz", 13_500, 4_000, 1_500, 5_000, 2_400, 600,
        {"width": 32, "augment": "none"}, {"width": 12, "augment": "none"},
    ),
}  # fmt: skip
SCHEMA = Schema((), (), (), "label", ("even", "odd"), image=("image",))


@cache
def images(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pixels and fine labels of "train", "validation" and "test"."""
    source = SOURCES[name]
    with np.load(data_folder() / "images" / source.file) as arrays:
        order = np.random.default_rng(0).permutation(len(arrays["x_train"]))
        train, rest = order[: source.train], order[source.train :]
        return {
            "train": (arrays["x_train"][train], arrays["y_train"][train]),
            "validation": (
                arrays["x_train"][rest[: source.validation]],
                arrays["y_train"][rest[: source.validation]],
            ),
            "test": (arrays["x_test"][: source.test], arrays["y_test"][: source.test]),
        }


def column(pixels: np.ndarray) -> pa.RecordBatch:
    """Arrays of pixels as a column of image files."""
    files = pa.array([netpbm(image) for image in pixels], pa.large_binary())
    return pa.RecordBatch.from_pydict({"image": files})


def stored(student: Student, pixels: np.ndarray) -> MemoryStore:
    """Encoded rows in memory."""
    blocks = [column(pixels[i : i + 2_000]) for i in range(0, len(pixels), 2_000)]
    return MemoryStore.build(student.encoder, blocks)


def network(name: str, settings: dict[str, object], width: int, seed: int) -> Student:
    """A fresh network."""
    g = torch.Generator().manual_seed(seed)
    some = column(images(name)["train"][0][:500])
    return build("image_cnn", settings, SCHEMA, [some], width, g)


@torch.no_grad()
def look(student: Student, rows: MemoryStore) -> StudentOut:
    """What it makes of rows in evaluation mode."""
    student.module.eval()
    parts = [
        student.module(student.encoder.collate(rows.take(np.arange(i, min(i + 512, len(rows))))))
        for i in range(0, len(rows), 512)
    ]
    return StudentOut(
        torch.cat([part.outputs for part in parts]), torch.cat([part.embedding for part in parts])
    )


def fit(
    student: Student,
    rows: MemoryStore,
    loss: Callable[[StudentOut, Tensor], Tensor],
    steps: int,
    seed: int,
    looks: Callable[[int], None],
    *,
    begin: Callable[[float], None] = lambda share: None,
    extra: Sequence[torch.nn.Parameter] = (),
) -> None:
    """Train a network in place, and look at it five times."""
    optimizer = torch.optim.AdamW(
        [*student.module.parameters(), *extra], lr=RATE, weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    g = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for step in range(steps):
            at = torch.randint(len(rows), (BATCH,), generator=g)
            student.module.train()
            begin(step / steps)
            optimizer.zero_grad()
            out = student.module(student.encoder.collate(rows.take(at.numpy())))
            torch.autograd.backward(loss(out, at))
            optimizer.step()
            schedule.step()
            if (step + 1) % (steps // EVALUATIONS) == 0:
                looks(step + 1)


class ImageTeacher:
    """A residual network that has seen all train rows; trained once and kept."""

    def __init__(self, name: str, pool: np.ndarray, *, subclasses: bool) -> None:
        source = SOURCES[name]
        kind = "subclasses" if subclasses else "plain"
        path = RESULTS / ".partial" / f"few_images_{name.replace(' ', '_')}_{kind}.pt"
        objective = SubclassTeacher() if subclasses else None
        self._map = objective.class_map(2) if objective else None
        width = objective.width(2) if objective else 2
        self._student = network(name, source.teacher, width, 0)
        self._rows = {split: x for split, (x, _) in images(name).items()}
        labels = torch.from_numpy(images(name)["train"][1] % 2).long()

        def loss(out: StudentOut, at: Tensor) -> Tensor:
            if objective is not None:
                return objective.loss(out, None, labels[at]).mean()
            return functional.cross_entropy(out.outputs, labels[at])

        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            train = stored(self._student, self._rows["train"])
            fit(self._student, train, loss, source.teacher_steps, 0, lambda step: None)
            told = {s: look(self._student, stored(self._student, x)) for s, x in self._rows.items()}
            head = self._student.module.head
            kept = {f"{s}.{part}": getattr(out, part) for s, out in told.items()
                    for part in ("outputs", "embedding")}  # fmt: skip
            torch.save({**kept, "weight": head.weight.detach(), "bias": head.bias.detach()}, path)
        self._kept = torch.load(path, weights_only=True)
        self._pool = torch.from_numpy(pool)

    @property
    def head(self) -> TeacherHead:
        """Its last layer."""
        return TeacherHead(self._kept["weight"], self._kept["bias"])

    def answers(self, split: str) -> Answers:
        """What it says of a split."""
        outputs, embedding = (
            self._kept[f"{'train' if split == 'pool' else split}.{part}"]
            for part in ("outputs", "embedding")
        )
        if split == "pool":
            outputs, embedding = outputs[self._pool], embedding[self._pool]
        logits = outputs if self._map is None else self._map.class_logits(outputs)
        return Answers(ids(len(logits)), torch.softmax(logits, dim=1), embedding)


class ImageTask(Task):
    """Students one after the other; true labels, too, are those of the pool alone.

    Args:
        name, seed: Of the data set and of all that is drawn but the teacher.
        own_teacher: Train the teacher of Subclass Distillation as well.
        source: What differs from `SOURCES`, such as the rows of the pool.
    """

    def __init__(
        self, name: str, seed: int, own_teacher: bool, *, source: Source | None = None
    ) -> None:
        source = self._source = source or SOURCES[name]
        self._name = name
        rng = np.random.default_rng(seed)
        pool = rng.permutation(source.train)[: source.pool]
        found = dict(images(name))
        found["pool"] = tuple(part[pool] for part in found["train"])
        found["train"] = found["pool"]
        teachers = {False: ImageTeacher(name, pool, subclasses=False)}
        if own_teacher:
            teachers[True] = ImageTeacher(name, pool, subclasses=True)
        labels = {split: torch.from_numpy(y % 2).long() for split, (_, y) in found.items()}
        fine = torch.from_numpy(found["pool"][1]).long()
        probe = network(name, source.student, 2, seed)
        self._rows = {split: stored(probe, found[split][0]) for split in found if split != "train"}
        super().__init__(labels, fine, teachers, probe.module.embedding_dim, seed)

    def play(self, arms: Sequence[Arm], *, pool: str) -> list[Score]:
        """Train each arm; the best step of each."""
        return [self._one(arm) for arm in arms]

    def _one(self, arm: Arm) -> Score:
        source = self._source
        student = network(self._name, source.student, arm.objective.width(2), self.seed)
        found: list[Score] = []

        def looks(step: int) -> None:
            seen = look(student, self._rows["validation"])
            right = accuracy(arm.objective.class_log_probs(seen), self.labels["validation"])
            if not found or right > found[-1].validation:
                outs = [seen, look(student, self._rows["test"])]
                found.append(score(arm.objective, outs, self.labels, step))

        fit(
            student, self._rows["pool"], arm.loss, source.steps, self.seed, looks,
            begin=arm.objective.begin_step, extra=list(arm.objective.parameters()),
        )  # fmt: skip
        return found[-1]


def main() -> None:
    """Run what is missing, then write the result and the tables."""
    parser = arguments(__doc__, minutes=60)
    parser.add_argument("--sets", nargs="*", default=list(SOURCES))
    parser.add_argument("--name", default="few_images", help="of the result")
    options = parser.parse_args()
    clock, kept = Clock(options.minutes), results(options.name, fresh=options.fresh)
    torch.set_num_threads(1)
    compare(kept, options.sets, lambda name: METHODS, ImageTask, at_once=1, clock=clock)
    print(write_tables(kept, options.name))


if __name__ == "__main__":
    main()
