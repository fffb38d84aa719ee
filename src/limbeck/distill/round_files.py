"""What a purchase in rounds leaves in the folder `selections`, each file before what follows it.

`rounds.json` says how many rows each round has. Of round n, `round-n.student.parquet` tells what
the student that chose said of the validation rows, `round-n.memory.safetensors` what the rule
remembers, and `round-n.parquet` which rows were chosen: with that file a round is decided, and it
is written before the first of its rows is paid for. `stopped.txt` says why no more rounds came.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.distill.folder import RunFolder
from limbeck.storage import atomic_path, write_bytes, write_json, write_text

RULE, BESIDE = "round", "beside"
"""Names of the two series: rows that the rule chose, and rows drawn beside them."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What a student said of the validation rows.

    Args:
        answers: Pool rows with an answer that it was trained on.
        margins: Difference of its two largest probabilities, float32, shape (V,).
        classes: Its most probable class, int64, shape (V,).
    """

    answers: int
    margins: NDArray[np.float32]
    classes: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Pool rows chosen in one round, k of n candidates.

    Args:
        rows: Positions in the pool, int64, shape (k,), ascending.
        probs: Inclusion probability of each given all rounds before, the audit counted, float64;
            NaN where the rule's probabilities have no closed form.
        audit: Which were drawn uniformly, bool.
        gains: How informative each was, float32; NaN for a rule that looks at no gains.
        margins, classes: What the student that chose said of them: as in `Look`.
        candidates: n.
        support: Candidates that the rule could have chosen; None where that is not known.
    """

    rows: NDArray[np.int64]
    probs: NDArray[np.float64]
    audit: NDArray[np.bool_]
    gains: NDArray[np.float32]
    margins: NDArray[np.float32]
    classes: NDArray[np.int64]
    candidates: int
    support: int | None


@dataclass(frozen=True, slots=True, eq=False)
class RoundHistory:
    """What happened in the rounds of a run.

    Args:
        sizes: Rows that each round was to have.
        batches: What was chosen, a round each.
        looks: What the student before each round said of validation, and the one after the last.
        beside: The same of the students that learnt from rows drawn beside those of the rule.
        alphas: Probability that the teacher is right on each row of each batch, without a floor,
            float32; NaN where it has no answer.
        stopped: Why not all rounds were made; empty where all were.
    """

    sizes: tuple[int, ...]
    batches: tuple[Batch, ...]
    looks: tuple[Look, ...]
    beside: tuple[Look, ...]
    alphas: tuple[NDArray[np.float32], ...]
    stopped: str


class RoundFiles:
    """The files of one series of rounds, counted from 1."""

    def __init__(self, folder: RunFolder, series: str = RULE) -> None:
        self._folder = folder.selections
        self._series = series

    def name(self, number: int) -> str:
        """What a round is called, in the files and in messages."""
        return f"{self._series}-{number}"

    def batch(self, number: int) -> Batch | None:
        """What was chosen in a round; None before that."""
        path = self._batch(number)
        if not path.exists():
            return None
        table = pq.read_table(path)
        held = json.loads(table.schema.metadata[b"round"])
        columns = {
            name: table.column(name).to_numpy()
            for name in ("probs", "audit", "gains", "margins", "classes")
        }
        return Batch(rows=table.column("row").to_numpy(), **columns, **held)

    def keep(self, number: int, batch: Batch, memory: dict[str, Tensor]) -> None:
        """Decide a round: what the rule remembers first, then the rows."""
        if memory:
            held = {name: tensor.contiguous() for name, tensor in memory.items()}
            write_bytes(self._memory(number), safetensors.torch.save(held))
        columns = {
            "row": batch.rows,
            "probs": batch.probs,
            "audit": batch.audit,
            "gains": batch.gains,
            "margins": batch.margins,
            "classes": batch.classes,
        }
        held_too = {"candidates": batch.candidates, "support": batch.support}
        table = pa.table(columns).replace_schema_metadata({"round": json.dumps(held_too)})
        _write(self._batch(number), table)

    def memory(self, number: int) -> dict[str, Tensor]:
        """What the rule remembered after a round; empty for a rule that forgets."""
        path = self._memory(number)
        return safetensors.torch.load_file(path) if path.exists() else {}

    def look(self, number: int) -> Look | None:
        """What the student before a round said; None where it has not been trained."""
        path = self._look(number)
        if not path.exists():
            return None
        table = pq.read_table(path)
        margins, classes = (table.column(name).to_numpy() for name in ("margins", "classes"))
        return Look(int(table.schema.metadata[b"answers"]), margins, classes)

    def keep_look(self, number: int, look: Look) -> None:
        """Write down what the student before a round said."""
        table = pa.table({"margins": look.margins, "classes": look.classes})
        _write(self._look(number), table.replace_schema_metadata({"answers": str(look.answers)}))

    def _batch(self, number: int) -> Path:
        return self._folder / f"{self.name(number)}.parquet"

    def _memory(self, number: int) -> Path:
        return self._folder / f"{self.name(number)}.memory.safetensors"

    def _look(self, number: int) -> Path:
        return self._folder / f"{self.name(number)}.student.parquet"


def rows_of_rounds(folder: RunFolder) -> NDArray[np.int64]:
    """Pool rows of all rounds that are decided, those drawn beside them too; each once."""
    found = [np.zeros(0, np.int64)]
    for series in (RULE, BESIDE):
        files, number = RoundFiles(folder, series), 1
        while (batch := files.batch(number)) is not None:
            found.append(batch.rows)
            number += 1
    return np.unique(np.concatenate(found))


def keep_sizes(folder: RunFolder, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Write down how many rows each round has, once; give what is written."""
    kept = read_sizes(folder)
    if kept is not None:
        return kept
    write_json(folder.selections / "rounds.json", {"sizes": list(sizes)})
    return sizes


def read_sizes(folder: RunFolder) -> tuple[int, ...] | None:
    """How many rows each round has; None before that was decided."""
    path = folder.selections / "rounds.json"
    return tuple(json.loads(path.read_text())["sizes"]) if path.exists() else None


def keep_stop(folder: RunFolder, reason: str) -> None:
    """Write down why nothing more is bought."""
    write_text(folder.selections / "stopped.txt", reason + "\n")


def read_stop(folder: RunFolder) -> str:
    """Why nothing more is bought; empty where it goes on."""
    path = folder.selections / "stopped.txt"
    return path.read_text().strip() if path.exists() else ""


def _write(path: Path, table: pa.Table) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
