"""Joules of a row: measured with the processor's own counter, or modelled from constants of yours.

Nothing here guesses: without a counter that can be read, and without constants, there is no energy.
"""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from limbeck.errors import ConfigError
from limbeck.search.costs import Cost, MonotoneCost
from limbeck.search.space import Architecture
from limbeck.students.blocks import blocks_of, work_of
from limbeck.students.measuring import WARM_UP, Clock, Run
from limbeck.students.search_spaces import StudentSpace

POWERCAP = Path("/sys/class/powercap")
_SECONDS = 0.2
"""Least time to call for: the counter moves about once a millisecond."""


class EnergyMeter:
    """The energy of processor packages, from the counters that Linux shows (RAPL).

    It counts all that the processor does, so nothing else may run meanwhile. Calling it gives
    millijoules for each call of a function: a `Meter`.

    Args:
        root: Folder of the counters.
        clock: Seconds.

    Raises:
        ConfigError: there is no counter, or it may not be read.
    """

    def __init__(self, root: Path = POWERCAP, clock: Clock = perf_counter) -> None:
        self._clock = clock
        self._counters = sorted(root.glob("intel-rapl:?"))  # packages; their parts have two colons
        try:
            before = self._read()
            self._ranges = [
                int((one / "max_energy_range_uj").read_text()) for one in self._counters
            ]
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the energy counters in {root} cannot be read ({type(error).__name__}): they are "
                f"root's alone by default; run as root, let this user read energy_uj, or give "
                f"constants to energy_model."
            ) from error
        if not before:
            raise ConfigError(
                f"this machine shows no energy counter in {root} (virtual machines have none), so "
                f"energy cannot be measured here; give constants to energy_model, or measure "
                f"latency."
            )

    def __call__(self, run: Run) -> float:
        """Millijoules of one call, over calls for at least 0.2 seconds."""
        for _ in range(WARM_UP):
            run()
        before, start, calls = self._read(), self._clock(), 0
        while self._clock() - start < _SECONDS:
            run()
            calls += 1
        spent = sum(
            (now - then) % (wraps + 1)
            for now, then, wraps in zip(self._read(), before, self._ranges, strict=True)
        )
        return spent / 1e3 / calls

    def _read(self) -> list[int]:
        return [int((one / "energy_uj").read_text()) for one in self._counters]


def energy_model(
    space: StudentSpace, *, pj_per_mac: float, pj_per_byte: float, length: int | None = None
) -> Cost:
    """Millijoules of a row by a model: so much a multiply-add, and so much a byte that moves.

    Bytes are those of the weights that are read and of all maps between layers. The constants are
    yours, of your device and number format; nothing is measured.

    Args:
        space: The space.
        pj_per_mac: Picojoules of a multiply-add, >= 0.
        pj_per_byte: Picojoules of a byte read or written, >= 0.
        length: Entries of the row, for texts. Default: the length that the space costs.

    Raises:
        ConfigError: a constant is below 0, both are 0, or a text's length is not known.
    """
    for name, value in (("pj_per_mac", pj_per_mac), ("pj_per_byte", pj_per_byte)):
        if not 0 <= value < float("inf"):
            raise ConfigError(f"{name}={value}: must be >= 0 and finite.")
    if pj_per_mac == pj_per_byte == 0:
        raise ConfigError("pj_per_mac and pj_per_byte are both 0; give your device's constants.")
    blocks_of(space, space.space.default, length=length)

    def millijoules(architecture: Architecture) -> float:
        work = [work_of(block) for block in blocks_of(space, architecture, length=length)]
        macs, moved = sum(w.macs for w in work), sum(w.weights + w.maps for w in work)
        return (macs * pj_per_mac + moved * pj_per_byte) * 1e-9

    return MonotoneCost(space.space, millijoules, orders=_ascending(space))


def _ascending(space: StudentSpace) -> list[Sequence[int]]:
    options: list[tuple[Any, ...]] = [layer.options for layer in space.space.layers]
    return [sorted(range(len(one)), key=one.__getitem__) for one in options]
