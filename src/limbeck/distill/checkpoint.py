"""Everything that a training run needs to go on as if it had never stopped, in one file.

A checkpoint is a safetensors file (nothing is pickled): the module, its best weights so far, the
optimiser's moments, every random state, the objective's own tensors, and in the metadata the step,
the curve and a hash of the settings. One file means one rename: there is no half-written state.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from limbeck.errors import StorageError
from limbeck.storage import atomic_path


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What an evaluation found.

    Args:
        step: Gradient steps taken.
        train_loss: Mean loss since the last evaluation, nats.
        accuracy: Accuracy on the held-out rows.
        nll: Negative log-likelihood on the held-out rows at temperature 1, nats.
        calibrated_nll: The same after temperature scaling on these rows.
        temperature: The temperature that was fitted.
    """

    step: int
    train_loss: float
    accuracy: float
    nll: float
    calibrated_nll: float
    temperature: float


@dataclass(slots=True, eq=False)
class Progress:
    """How far a training run has come.

    Args:
        settings: Hash of everything that shapes the run; another hash means another run.
        step: Steps taken.
        seconds: Seconds spent in training, over all the times it was started.
        loss_sum: Sum of the step losses since the last evaluation.
        curve: One point an evaluation.
        best: Position in `curve` of the best point, or -1.
        finished: No step is left to take.
        tensors: Named tensors: "model.*", "best.*", "optimizer.*", "objective.*", "rng.*".
    """

    settings: str
    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    curve: list[CurvePoint] = field(default_factory=list)
    best: int = -1
    finished: bool = False
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def group(self, name: str) -> dict[str, Tensor]:
        """Tensors whose name begins with `name` and a dot, without that beginning."""
        start = name + "."
        return {k.removeprefix(start): t for k, t in self.tensors.items() if k.startswith(start)}

    def set_group(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Replace a group of tensors by copies."""
        start = name + "."
        kept = {k: t for k, t in self.tensors.items() if not k.startswith(start)}
        # Cloned: the optimiser goes on writing into these tensors while the checkpoint is kept.
        fresh = {start + k: t.detach().cpu().clone().contiguous() for k, t in tensors.items()}
        self.tensors = {**kept, **fresh}


def save(progress: Progress, path: Path) -> None:
    """Write a checkpoint atomically, in place of the one before."""
    state = {
        "settings": progress.settings,
        "step": progress.step,
        "seconds": progress.seconds,
        "loss_sum": progress.loss_sum,
        "curve": [[getattr(p, name) for name in CurvePoint.__slots__] for p in progress.curve],
        "best": progress.best,
        "finished": progress.finished,
    }
    with atomic_path(path) as temporary:
        save_file(progress.tensors, temporary, metadata={"progress": json.dumps(state)})


def load(path: Path, settings: str) -> Progress | None:
    """Read a checkpoint, or None when there is none yet.

    Raises:
        StorageError: the file is broken, or was written under other settings.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as handle:
            state = json.loads(handle.metadata()["progress"])
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StorageError(
            f"{path} is not a checkpoint that can be read ({error}); delete it to train that part "
            f"again from its start."
        ) from error
    if state["settings"] != settings:
        raise StorageError(
            f"{path} was written under other settings; give the run another folder with --out, or "
            f"delete that file to train that part again."
        )
    state["curve"] = [CurvePoint(*point) for point in state["curve"]]
    return Progress(**state, tensors=tensors)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and step counts of an optimiser, named by the position of their parameter."""
    return {
        f"{position}.{name}": torch.as_tensor(value)
        for position, slots in optimizer.state_dict()["state"].items()
        for name, value in slots.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; the parameter groups stay as they were built."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        position, name = key.split(".", 1)
        state.setdefault(int(position), {})[name] = tensor
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
