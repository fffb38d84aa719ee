"""What a run searches: the space over its student's settings, the cost, and the limit."""

import os
from dataclasses import dataclass

from limbeck.distill.config import DistillConfig
from limbeck.distill.recipes import expand_arm
from limbeck.errors import ConfigError
from limbeck.search import Architecture, Cost, Limit
from limbeck.students import Student
from limbeck.students.search_spaces import SEARCHED, StudentSpace, student_space

UNITS = {
    "macs": "multiply-adds",
    "parameters": "parameters",
    "bytes": "bytes",
    "activation_bytes": "bytes",
    "sums": "additions",
    "latency": "ms",
}


@dataclass(frozen=True, slots=True, eq=False)
class SearchProblem:
    """A space, what is limited, and where the search begins.

    Args:
        students: Builds the students of the space.
        cost: Over the same space.
        limit: Its range.
        unit: Of the cost.
        arm: That trials train, by the name of a trained arm ("slam_soft").
    """

    students: StudentSpace
    cost: Cost
    limit: Limit
    unit: str
    arm: str

    @property
    def base(self) -> Architecture:
        """The student as the run file has it."""
        return self.students.space.default


def search_problem(config: DistillConfig, student: Student) -> SearchProblem:
    """Make the space of a run.

    Args:
        config: With `student.arch = "search"`.
        student: As `student.settings` says, its encoder fitted.

    Raises:
        ConfigError: the kind has no space, an option or the cost is not possible, no architecture
            is within the limit, or the run has several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            'student.arch = "search" starts its own processes; run it without accelerate launch, '
            "and give search.workers."
        )
    wanted = config.search
    kind, base = student.encoder.kind, student.module.settings
    if kind not in SEARCHED:
        raise ConfigError(
            f'student.arch = "search" knows the students {", ".join(SEARCHED)}, and this run has '
            f"{kind}; set student.kind, or leave arch out."
        )
    students = student_space(
        kind,
        student.encoder,
        base,  # type: ignore[arg-type] # checked there
        student.schema.num_classes,
        length=wanted.length or None,
        options=wanted.options,
    )
    cost = _cost(config, students)
    limit = Limit(wanted.least, wanted.limit or wanted.share * cost.total(students.space.default))
    bounds = cost.bounds(())
    if cost.proven and not limit.meets(bounds):
        raise ConfigError(
            f"no student is within the limit: {wanted.cost} go from {bounds.low:,.6g} to "
            f"{bounds.high:,.6g}, and the limit is {limit.low:,.6g} to {limit.high:,.6g}; change "
            f"search.limit, search.share or search.least, or give search.options that reach it."
        )
    return SearchProblem(students, cost, limit, UNITS.get(wanted.cost, ""), search_arm(config))


def search_arm(config: DistillConfig) -> str:
    """The arm that trials train, as one arm; of an undecided SLaM the first of the two."""
    arms = config.objective.arms
    usual = "soft_kd" if "soft_kd" in arms else ""
    taught = [arm for arm in arms if arm not in ("labels", "labels_and_validation")]
    wanted = config.search.arm or usual or next(iter(taught), "labels")
    return expand_arm(wanted, config)[0]


def _cost(config: DistillConfig, students: StudentSpace) -> Cost:
    name = config.search.cost
    if name == "latency":
        from limbeck.distill.cost_fit import load_student_cost

        return load_student_cost(config.search.table, students)
    if name not in students.costs:
        hint = "; sums need search.length" if name == "sums" else ""
        raise ConfigError(
            f"search.cost={name!r}: the costs of {students.kind} are {', '.join(students.costs)}, "
            f"and latency with search.table{hint}."
        )
    return students.costs[name]
