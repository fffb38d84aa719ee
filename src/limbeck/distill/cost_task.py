"""What `limbeck search cost-fit` measures: blocks and whole networks of a run's student, in rounds.

Rounds are kept as they come, so that a stopped fit goes on.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Self

import numpy as np
import torch

from limbeck.data import Dataset
from limbeck.distill.config import DistillConfig
from limbeck.distill.encoding import make_student, student_kind
from limbeck.distill.export import require_extra
from limbeck.distill.folder import Event, Listener, RunFolder, settings_hash
from limbeck.distill.onnx_timing import onnx_run
from limbeck.distill.staging import stage
from limbeck.errors import ConfigError
from limbeck.search.space import Architecture, Option
from limbeck.storage import append_line
from limbeck.students import StudentSpace, settings_of, student_space
from limbeck.students.base import Encoder
from limbeck.students.block_costs import BlockTable, space_of
from limbeck.students.block_fit import check_numbers, draw_networks, fit_blocks
from limbeck.students.block_modules import Runnable, block_module, student_module
from limbeck.students.blocks import Block, all_blocks
from limbeck.students.device import device_facts
from limbeck.students.energy import EnergyMeter
from limbeck.students.measuring import (
    Build,
    Meter,
    Run,
    measure_round,
    milliseconds,
    repeatability,
    torch_run,
    torch_threads,
    typical,
)
from limbeck.teachers.imports import importable

Runtime = Literal["torch", "onnxruntime"]
Quantity = Literal["latency", "energy"]
UNITS = {"latency": "ms", "energy": "mJ"}
_SAMPLED_ROWS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CostFitConfig:
    """How a cost is measured."""

    runtime: Runtime = "torch"
    """What computes: torch, or onnxruntime (needs the extra `export`)."""
    threads: int = 1
    """That it computes with."""
    samples: int = 24
    """Whole networks that the table is corrected with, >= 8; as many others judge it."""
    rounds: int = 12
    """Times that everything is built anew and measured, >= 2."""
    quantity: Quantity = "latency"
    """Milliseconds of a row, or millijoules where the processor's counter can be read."""

    def __post_init__(self) -> None:
        if self.runtime not in ("torch", "onnxruntime"):
            raise ConfigError(f"runtime={self.runtime!r}: must be torch or onnxruntime.")
        if self.quantity not in UNITS:
            raise ConfigError(f"quantity={self.quantity!r}: must be latency or energy.")
        for name, value, least in (("threads", self.threads, 1), ("rounds", self.rounds, 2)):
            if value < least:
                raise ConfigError(f"{name}={value}: must be >= {least}.")
        check_numbers(self.samples, self.samples)


@dataclass(frozen=True, slots=True, eq=False)
class CostTask:
    """What is measured, and how."""

    space: StudentSpace
    settings: CostFitConfig
    length: int | None
    blocks: tuple[Block, ...]
    networks: list[Architecture]
    meter: Meter
    seed: int

    @classmethod
    def of(
        cls,
        config: DistillConfig,
        settings: CostFitConfig,
        options: Mapping[str, Sequence[Option]] | None,
    ) -> Self:
        if settings.runtime == "onnxruntime":
            require_extra()
        meter = meter_of(settings)
        folder = RunFolder(config.out, writes=False)
        folder.check(config)
        with importable(config.code), folder.collecting_warnings():
            splits = stage(config, folder)
            kind = student_kind(config, splits)
            encoder = make_student(config, splits, folder)[0].encoder
        base = settings_of(kind, config.student.settings)
        options = config.search.options if options is None else options
        assert splits.pool is not None
        space = student_space(kind, encoder, base, splits.schema.num_classes, options=options)  # type: ignore[arg-type] # other kinds are refused
        length = (
            None
            if kind == "image_cnn"
            else config.search.length or _median_length(encoder, splits.pool)
        )
        blocks = all_blocks(space, length=length)
        networks = draw_networks(space, 2 * settings.samples, config.seed)
        return cls(space, settings, length, blocks, networks, meter, config.seed)

    def builds(self) -> dict[str, Build]:
        """Everything that a round measures, by name."""
        generator = torch.Generator().manual_seed(self.seed)
        build = partial(build_run, self.settings, space=self.space, generator=generator)
        made: dict[str, Build] = {
            block.name: partial(build, make=block_module, block=block) for block in self.blocks
        }
        for one in self.networks:
            made[_name(one)] = partial(
                build, make=student_module, architecture=one, length=self.length
            )
        return made

    def rounds(self, out: Path, listener: Listener) -> list[dict[str, float]]:
        """All rounds; those of a stopped fit are not measured again."""
        path, wanted = self.log(out), self.settings.rounds
        found, builds = read_rounds(path)[:wanted], self.builds()
        with torch_threads(self.settings.threads):
            for number in range(len(found), wanted):
                one: dict[str, float] = {}
                for name, value in measure_round(builds, self.meter, self.seed + number):
                    one[name] = value
                    done = number * len(builds) + len(one)
                    listener(Event("measure", "", done, wanted * len(builds)))
                append_line(path, json.dumps(one))
                found.append(one)
        return found

    def log(self, out: Path) -> Path:
        """Where rounds are kept: another machine, space or way of measuring has another file."""
        told = {name: getattr(self.settings, name) for name in ("quantity", "samples")}
        parts = (space_of(self.space), self.length, told, self.device, self.seed)
        return out / "costs" / f"{settings_hash(*parts)}.jsonl"

    @property
    def device(self) -> dict[str, str | int]:
        return device_facts(self.settings.runtime, self.settings.threads)

    def table(self, rounds: Sequence[Mapping[str, float]]) -> BlockTable:
        """The blocks corrected with the first half of the networks, judged on the others."""
        values, half = typical(rounds), self.settings.samples
        pairs = [(one, values[_name(one)]) for one in self.networks]
        twice = repeatability(rounds, [_name(one) for one in self.networks])
        return fit_blocks(
            self.space,
            {block.name: values[block.name] for block in self.blocks},
            pairs[:half],
            pairs[half:],
            quantity=self.settings.quantity,
            unit=UNITS[self.settings.quantity],
            length=self.length,
            noise=(float(np.median(twice)), float(twice.max())),
            device=self.device,
        )


def build_run(settings: CostFitConfig, make: Callable[..., Runnable], **what: Any) -> Run:
    """What `make(**what)` gives, built anew and ready to be called as the settings say."""
    if settings.runtime == "onnxruntime":
        return onnx_run(make(**what, padded=True), settings.threads)
    return torch_run(make(**what))


def meter_of(settings: CostFitConfig) -> Meter:
    """What measures a call.

    Raises:
        ConfigError: the energy counter cannot be read.
    """
    if settings.quantity == "energy":
        return EnergyMeter()
    return milliseconds if settings.threads == 1 else partial(milliseconds, clock=perf_counter)


def _name(architecture: Architecture) -> str:
    return "network " + " ".join(map(str, architecture))


def read_rounds(path: Path) -> list[dict[str, float]]:
    """Whole rounds; a line that a kill has torn is measured again."""
    found: list[dict[str, float]] = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _median_length(encoder: Encoder, pool: Dataset) -> int:
    rows = np.unique(np.linspace(0, len(pool) - 1, _SAMPLED_ROWS).astype(np.int64))
    return max(1, int(np.median(encoder.encode(pool.take(rows)).lengths)))
