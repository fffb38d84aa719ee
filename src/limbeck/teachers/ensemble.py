"""Several saved students of ours as one teacher that knows how far they differ."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import torch

from limbeck.errors import ConfigError
from limbeck.students.folder import SUMS
from limbeck.teachers.base import Head
from limbeck.teachers.local import LocalTeacher, Said, fingerprint_of
from limbeck.teachers.student import StudentTeacher

LEAST_MEMBERS = 2


class EnsembleTeacher(LocalTeacher):
    """Student folders as one teacher.

    Its probabilities are the mean of the members' calibrated probabilities, and the spread is their
    population standard deviation. The embedding is that of the first member: those of different
    members have no axes in common.

    Args:
        folders: Two or more folders that `limbeck.students` saved, for one task.
        device: Where they compute.

    Raises:
        ConfigError: fewer than two folders, or members of different classes or columns.
        StudentError: a folder is incomplete, or changed since it was written.

    Cost: as much time and memory as all members together.
    """

    embeds = True

    def __init__(self, folders: Sequence[Path], *, device: str = "cpu") -> None:
        if len(folders) < LEAST_MEMBERS:
            raise ConfigError(
                f"an ensemble of {len(folders)} students has no spread, expected at least "
                f"{LEAST_MEMBERS} folders; use StudentTeacher for one."
            )
        self._members = [StudentTeacher(folder, device=device) for folder in folders]
        first = self._members[0]
        for member in self._members[1:]:
            if (member.classes, member.columns) != (first.classes, first.columns):
                raise ConfigError(
                    f"{member.name} knows classes {list(member.classes)} and reads "
                    f"{list(member.columns)} but {first.name} knows {list(first.classes)} and "
                    f"reads {list(first.columns)}; give members of one task."
                )
        self.name = f"ensemble of {len(folders)} with {first.name}"
        self.classes, self.columns = first.classes, first.columns
        self.fingerprint = fingerprint_of("ensemble", *(one.fingerprint for one in self._members))

    def say(self, rows: pa.RecordBatch) -> Said:
        """Run every member over rows."""
        said = [member.say(rows) for member in self._members]
        probs = torch.stack([torch.as_tensor(one.probs, dtype=torch.float64) for one in said])
        # numpy's deviation: torch warns of one over no rows.
        return Said(probs.mean(dim=0), said[0].embeddings, spread=probs.numpy().std(axis=0))

    def head(self, rows: pa.RecordBatch) -> Head:
        """That of the first member, whose embedding is kept; `rows` are not looked at."""
        return self._members[0].head(rows)


def member_folder(folder: Path, member: int) -> Path:
    """Where member 0, 1, 2, ... of an ensemble is."""
    return folder / f"member{member}"


def member_folders(folder: Path) -> list[Path]:
    """Members that `folder` holds, in order; none where it is itself a student folder."""
    if (folder / SUMS).exists():
        return []
    found: list[Path] = []
    while (member := member_folder(folder, len(found))).is_dir():
        found.append(member)
    return found
