"""What a comparison is asked for, and what it refuses before anything is read or spent."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from limbeck.distill.config import DistillConfig, check_arms, near
from limbeck.distill.recipes import expand
from limbeck.distill.run_file import load_config
from limbeck.errors import ConfigError

DEFAULT_BASELINES = ("soft_kd", "hard_kd", "labels")
LABELS_ONLY = {"labels", "labels_and_validation"}


@dataclass(frozen=True, slots=True)
class CompareConfig:
    """Arms over seeds.

    Args:
        run: Settings of every seed's run; `run.out` is the folder of the comparison and `run.seed`
            the first seed.
        seeds: How many, >= 2; from 5 on differences may be called significant.
        baseline: Arm that the others are compared with, by the name of a trained arm
            ("slam_hard"). Default: the first of soft_kd, hard_kd, labels that is trained.
        workers: Seeds that run at once, each in a process of its own; 1 runs them in this process,
            one after the other. Default 0: one for each core, at most one for each seed.

    Raises:
        ConfigError: the arms or seeds leave nothing to compare, or the arms could stop at
            different steps.
    """

    run: DistillConfig
    seeds: int = 5
    baseline: str = ""
    workers: int = 0

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise ConfigError(
                f"seeds={self.seeds}: must be at least 2, since one run cannot tell an arm from "
                f"its luck; 5 or more let differences be called significant."
            )
        if self.workers < 0:
            raise ConfigError(f"workers={self.workers}: must be >= 0; 0 takes one for each core.")
        if self.run.train.patience > 0:
            raise ConfigError(
                f"train.patience={self.run.train.patience} lets arms stop at different steps, so "
                f"their difference would be one of training time; set train.patience = 0 (every "
                f"arm still keeps its best step)."
            )
        if set(self.arms) <= LABELS_ONLY:
            raise ConfigError(
                f"arms {', '.join(self.arms)} all learn from labels alone; add one that learns "
                f"from answers, such as soft_kd."
            )
        if self.baseline and self.baseline not in self.arms:
            raise ConfigError(
                f"baseline={self.baseline!r} is none of the arms that are trained: "
                f"{', '.join(self.arms)}{near(self.baseline, self.arms)}."
            )
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                "a comparison starts its own processes; run it without accelerate launch."
            )

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms that are trained; SLaM with an undecided target is two of them."""
        return expand(self.run)

    @property
    def compared_with(self) -> str:
        """The baseline, given or by default."""
        return self.baseline or next(name for name in DEFAULT_BASELINES if name in self.arms)

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds, from the run file's on."""
        return tuple(range(self.run.seed, self.run.seed + self.seeds))

    def folder(self, seed: int) -> Path:
        """Run folder of one seed."""
        return self.run.out / f"seed-{seed}"

    def of_seed(self, seed: int) -> DistillConfig:
        """Settings of one seed's run. A student that is only measured needs no ONNX file."""
        return replace(self.run, seed=seed, out=self.folder(seed), onnx=False)

    def at_once(self, seeds: int) -> int:
        """Processes for this many seeds."""
        return max(1, min(self.workers or (os.cpu_count() or 1), seeds))


def load_compare_config(
    path: Path | None,
    options: Sequence[str] = (),
    *,
    seeds: int = 5,
    arms: str = "",
    baseline: str = "",
    workers: int = 0,
    out: Path | None = None,
) -> CompareConfig:
    """Read a run file for a comparison.

    Args:
        path: The run file, or None when the options say everything.
        options: Settings over it, as `load_config` takes them.
        seeds, baseline, workers: As in `CompareConfig`.
        arms: Names with commas between them; empty keeps those of the run file.
        out: Folder of the comparison. Default: that of the run file with "-compare" behind it, so
            that a run of its own keeps its folder.

    Raises:
        ConfigError: a value cannot be used.
    """
    words = [word for arm in split_arms(arms) for word in ("--objective.arms", arm)]
    run = load_config(path, [*words, *options])
    folder = run.out.with_name(f"{run.out.name}-compare") if out is None else out.resolve()
    return CompareConfig(replace(run, out=folder), seeds, baseline, workers)


def split_arms(text: str) -> tuple[str, ...]:
    """Names of arms from an option.

    Raises:
        ConfigError: a name is unknown, or there are fewer than two.
    """
    if not text:
        return ()
    arms = tuple(part.strip() for part in text.split(",") if part.strip())
    check_arms(arms, "arms")
    if len(arms) < 2:
        raise ConfigError(
            f"arms={text!r} leaves nothing to compare; give at least two, such as "
            f"labels,soft_kd,slam."
        )
    return arms
