"""What files of labels say: votes on questions, and what is wrong with them, line by line."""

import difflib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from limbeck.data.ids import contains
from limbeck.distill.desk import Desk
from limbeck.teachers.human import NOT_SURE
from limbeck.teachers.sheets import Line, read_id


class Votes:
    """What files say, and what is wrong with them."""

    def __init__(self, desk: Desk) -> None:
        self.of: dict[bytes, Counter[str]] = {}
        self.problems: list[str] = []
        self.empty = self.before = 0
        self._desk = desk
        self._classes = desk.teacher.classes
        self._people = desk.config.teacher.people
        self._out = {bytes(key) for key in desk.out()}

    def add(self, file: Path, lines: Sequence[Line]) -> None:
        """Take one person's file."""
        said: dict[bytes, tuple[int, str]] = {}
        bad: set[bytes] = set()
        keys = [read_id(line.question) for line in lines]
        asked = self._desk.of_run({key for key in keys if key is not None})
        for line, key in zip(lines, keys, strict=True):
            where = f"{file.name}, line {line.number}"
            if key is None or key not in asked:
                self.problems.append(f"{where}: {line.question[:40]!r} is no question of this run")
                continue
            label = self._meant(line.label)
            if label is None:
                self.problems.append(f"{where}: {line.label!r} is no class{self._near(line.label)}")
                bad.add(key)
            elif label == "":
                self.empty += 1
            elif key in said and said[key][1] != label:
                self.problems.append(
                    f"{where}: the question is labelled {label!r} here and {said[key][1]!r} in "
                    f"line {said[key][0]}"
                )
                bad.add(key)
            else:
                said.setdefault(key, (line.number, label))
        for key, (number, label) in said.items():
            if key not in bad:
                self._count(f"{file.name}, line {number}", key, label)

    def _count(self, where: str, key: bytes, label: str) -> None:
        if key not in self._out:
            self._told_before(where, key, label)
            return
        votes = self.of.setdefault(key, Counter())
        if label == NOT_SURE:
            return
        if votes.total() >= self._people:
            self.problems.append(
                f"{where}: more people label the question than teacher.people={self._people}"
            )
            return
        votes[label] += 1

    def _told_before(self, where: str, key: bytes, label: str) -> None:
        """A question that is not out: told before, or never asked."""
        ids = np.frombuffer(key, np.uint8)[None]
        desk = self._desk
        if desk.book.known(ids)[0]:
            shares = desk.book.read(ids).probs[0]
            before = {name for name, share in zip(self._classes, shares, strict=True) if share > 0}
            if label in before or label == NOT_SURE:
                self.before += 1
            else:
                self.problems.append(
                    f"{where}: {label!r} comes too late, the question was answered with "
                    f"{' and '.join(sorted(before))!r}"
                )
        elif contains(desk.ledger.failed(desk.run, desk.teacher.fingerprint), ids)[0]:
            if label == NOT_SURE:
                self.before += 1
            else:
                self.problems.append(
                    f"{where}: {label!r} comes too late, nobody was sure of the question before"
                )
        else:
            self.problems.append(
                f"{where}: the question is not out (it was never asked, or was withdrawn)"
            )

    def _meant(self, label: str) -> str | None:
        """The class that is meant, "" for none, NOT_SURE, or None where it is no class."""
        if label == "" or label in self._classes:
            return label
        if label.lower() == NOT_SURE:
            return NOT_SURE
        # A spreadsheet turns the class 3 into 3.0 where some cells are empty.
        whole = label.removesuffix(".0")
        same = [name for name in self._classes if name.lower() == label.lower()]
        return whole if whole in self._classes else same[0] if len(same) == 1 else None

    def _near(self, label: str) -> str:
        found = difflib.get_close_matches(label, self._classes, n=1, cutoff=0.4)
        if found:
            return f" (did you mean {found[0]!r}?)"
        return f" (expected one of {', '.join(self._classes)}, or {NOT_SURE})"
