"""The teacher `fit` with several outputs a class, which invents subclasses as it is trained."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from limbeck.distill.config import DistillConfig
from limbeck.distill.job import Job
from limbeck.distill.loop import outputs
from limbeck.numerics.classmap import ClassMap
from limbeck.objectives import Supervised
from limbeck.objectives.base import Objective
from limbeck.objectives.subclass import SubclassTeacher
from limbeck.students import Student, with_outputs
from limbeck.trust.temperature import COLDEST, HOTTEST

_TRIED = 121
_FINER = 40


def teacher_objective(config: DistillConfig, num_classes: int) -> tuple[Objective, ClassMap]:
    """What the teacher `fit` learns: its labels, with subclasses of its own where it has some.

    Returns:
        The objective and the map of the head that it needs.
    """
    count = config.teacher.subclasses
    made = Supervised() if count == 1 else SubclassTeacher(subclasses=count)
    return made, made.class_map(num_classes)  # which tells it the number of classes


def with_head(student: Student, class_map: ClassMap, seed: int) -> Student:
    """The student with the outputs of a map; itself where it has them."""
    if class_map.is_plain:
        return student
    return with_outputs(student, class_map, torch.Generator().manual_seed(seed))


def calibrated(job: Job, temperature: float, device: torch.device) -> tuple[Student, float]:
    """The trained student and the temperature to save it with.

    Of a head with several outputs a class, outputs are summed at the temperature that calibrates.
    So the student's last layer, over that temperature, still gives what the student answers.

    Args:
        job: Trained; its held-out rows calibrate.
        temperature: What divides class logits, as fitted in training.
        device: Where the student computes.
    """
    student, held_out = job.student, job.held_out
    if student.class_map is None or held_out is None:
        return student, temperature
    said = torch.cat([out.outputs.cpu() for _, out in outputs(job, held_out.rows, device)])
    own = map_temperature(said, student.class_map, held_out.labels)
    return replace(student, class_map=replace(student.class_map, temperature=own)), own


def map_temperature(said: Tensor, class_map: ClassMap, labels: Tensor) -> float:
    """The temperature of a softmax over all outputs under which labels are most likely.

    Args:
        said: Outputs of a head, floating point, shape (n, width).
        class_map: Which class each output belongs to.
        labels: True classes, int64, shape (n,).

    Returns:
        T in [0.05, 20]: the best of 121 temperatures even in their logarithm, then refined between
        its neighbours by golden sections, since sums over a class have no convex likelihood.
    """

    def loss(log_temperature: float) -> float:
        tried = replace(class_map, temperature=math.exp(log_temperature))
        logs = torch.log_softmax(tried.class_logits(said.double()) / tried.temperature, dim=1)
        return float(-logs.gather(1, labels[:, None]).mean())

    grid = np.linspace(math.log(COLDEST), math.log(HOTTEST), _TRIED)
    best = int(np.argmin([loss(one) for one in grid]))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, _TRIED - 1)])
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(_FINER):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return math.exp((low + high) / 2)
