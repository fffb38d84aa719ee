"""`limbeck search cost-fit`: what architectures of a run's student cost on this machine.

Every block that an architecture can have is measured, whole networks tell how their sums have to be
corrected, and others how good the corrected sums are.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck.distill.config import DistillConfig
from limbeck.distill.cost_task import CostFitConfig, CostTask, read_rounds
from limbeck.distill.folder import Listener, ignore
from limbeck.errors import ConfigError, StorageError
from limbeck.search.costs import Cost
from limbeck.search.space import Option
from limbeck.storage import write_json
from limbeck.students import StudentSpace
from limbeck.students.block_costs import BlockTable
from limbeck.students.measuring import measure_round, torch_threads

_TRIED = 12
"""Things that are measured once to tell how long all will take."""


@dataclass(frozen=True, slots=True, eq=False)
class CostFit:
    """What was measured, and where it lies.

    Args:
        table: The blocks, and how good their sums are.
        path: The file.
        rounds: Of measurements.
    """

    table: BlockTable
    path: Path
    rounds: int

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values; the blocks themselves are in the file."""
        told = {k: v for k, v in self.table.to_dict().items() if k not in ("blocks", "space")}
        return {
            **told,
            "blocks": len(self.table.blocks),
            "rounds": self.rounds,
            "prunes": self.table.good,
            "path": str(self.path),
        }

    def text(self) -> str:
        """A few lines for a person."""
        table, device = self.table, self.table.device
        try:
            table.check()
            verdict = "yes: a search may prune with it"
        except ConfigError as error:
            verdict = f"no: {error}"
        row = f", rows of {table.length:,} entries" if table.length else ""
        return "\n".join(
            [
                f"device    {device['cpu']}, {device['runtime']} {device['version']}, "
                f"{device['threads']} threads{row}",
                f"measured  {len(table.blocks):,} blocks, {table.samples} networks to correct with "
                f"and {table.held_out} to judge on, {self.rounds} times",
                f"r2        {table.r2:.3f}",
                f"error     worst {table.worst_error:.1%}, median {table.median_error:.1%}",
                f"noise     worst {table.worst_noise:.1%}, median {table.noise:.1%}: the same "
                f"networks measured twice",
                f"prune     {verdict}",
                f"written   {self.path}",
            ]
        )


@dataclass(frozen=True, slots=True)
class CostPlan:
    """What a fit would do.

    Args:
        kind: Of student.
        blocks, networks, rounds: What is measured, and how often.
        done: Rounds that are there from a stopped fit.
        seconds: What the others will take, from a few that were tried.
        path: Where the table will be written.
    """

    kind: str
    blocks: int
    networks: int
    rounds: int
    done: int
    seconds: float
    path: Path

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__} | {"path": str(self.path)}

    def text(self) -> str:
        """Two lines for a person."""
        return (
            f"measure   {self.blocks:,} blocks and {self.networks} whole networks of {self.kind}, "
            f"{self.rounds} times ({self.done} are done), about {self.seconds:,.0f} s\n"
            f"writes    {self.path}"
        )


def fit_student_cost(
    config: DistillConfig,
    settings: CostFitConfig | None = None,
    *,
    path: Path | None = None,
    options: Mapping[str, Sequence[Option]] | None = None,
    listener: Listener = ignore,
) -> CostFit:
    """Measure what the architectures of a run's student cost on this machine, and write the table.

    Nothing is asked of the teacher and nothing is trained. Texts are measured with rows
    of `search.length` entries, by default of the pool's median length.

    Args:
        config: A run: its rows, and the student whose settings are searched.
        settings: How to measure.
        path: File to write. Default: `cost.json` in the run's folder.
        options: Values to search, as for `student_space`. Default: `search.options` of the run.
        listener: Told of every round.

    Raises:
        ConfigError: the student cannot be searched, or energy cannot be measured here.
        MissingExtraError: onnxruntime is not installed.
    """
    settings = settings or CostFitConfig()
    task = CostTask.of(config, settings, options)
    rounds = task.rounds(config.out, listener)
    table = task.table(rounds)
    path = path or config.out / "cost.json"
    write_json(path, table.to_dict())
    return CostFit(table, path, len(rounds))


def plan_student_cost(
    config: DistillConfig,
    settings: CostFitConfig | None = None,
    *,
    path: Path | None = None,
    options: Mapping[str, Sequence[Option]] | None = None,
) -> CostPlan:
    """What `fit_student_cost` would do, and about how long.

    Raises:
        ConfigError, MissingExtraError: what it would refuse.
    """
    settings = settings or CostFitConfig()
    task = CostTask.of(config, settings, options)
    builds = task.builds()
    tried = dict(list(builds.items())[:: max(1, len(builds) // _TRIED)])
    began = time.perf_counter()
    with torch_threads(settings.threads):
        dict(measure_round(tried, task.meter, 0))
    seconds = (time.perf_counter() - began) / len(tried) * len(builds)
    done = min(settings.rounds, len(read_rounds(task.log(config.out))))
    return CostPlan(
        task.space.kind,
        len(task.blocks),
        len(task.networks),
        settings.rounds,
        done,
        seconds * (settings.rounds - done),
        path or config.out / "cost.json",
    )


def load_student_cost(
    path: Path, space: StudentSpace, *, r2: float = 0.9, worst: float = 0.15
) -> Cost:
    """The cost that `fit_student_cost` has written, where it is good enough to prune with.

    Args:
        path: The file.
        space: The space that is searched.
        r2: Least share of the held-out networks' variance that it must explain.
        worst: Greatest relative error that one of them may have.

    Returns:
        A cost with proven bounds, in milliseconds (or millijoules) of a row.

    Raises:
        StorageError: there is no such file, or it is no table.
        ConfigError: the table is over another space, or too poor.
    """
    table = read_table(path, space)
    table.check(r2, worst)
    return table.cost(space)


def read_table(path: Path, space: StudentSpace) -> BlockTable:
    """The table in a file, however good it is.

    Raises:
        StorageError: there is no such file, or it is no table.
        ConfigError: the table is over another space.
    """
    try:
        saved = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{path} is no table of costs ({type(error).__name__}); write one with: limbeck search "
            f"cost-fit"
        ) from error
    if not isinstance(saved, dict):
        raise StorageError(f"{path} is no table of costs; write one with: limbeck search cost-fit")
    return BlockTable.from_dict(space, saved)
