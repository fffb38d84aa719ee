"""A workshop: the files that the pages speak of, and a run made with the README's own commands."""

import csv
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import limbeck
from tests.docs.pages import ROOT, limbeck_lines

GOOD = ("loved it", "great fun 🎉", "brilliant cast", "would watch again")
BAD = ("boring", "awful acting", "never again", "a waste of\ntwo hours")
PLAIN = ("it rained", "the film", 'they call it "art"', "on Tuesday", "my sister came along")
SHORT = {
    "LIMBECK_TRAIN_STEPS": "30",
    "LIMBECK_TRAIN_EVALUATIONS": "2",
    "LIMBECK_TRAIN_LABELLED_BATCH": "16",
}
"""Makes the README's run short; everything else is as the README says."""


def made_up(count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Reviews that differ, with their labels."""
    rows = []
    for number in range(count):
        label = rng.choice(["neg", "pos"])
        words = [
            rng.choice(GOOD if label == "pos" else BAD),
            *rng.sample(PLAIN, 2),
            f"no. {number}",
        ]
        rng.shuffle(words)
        rows.append((", ".join(words), label))
    return rows


def write(path: Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])


def environment() -> dict[str, str]:
    """This process's, in which `python -m limbeck` finds the package under test."""
    return os.environ | {
        "PYTHONPATH": str(Path(limbeck.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that pages name; the README's commands have run in it."""
    folder = tmp_path_factory.mktemp("workshop")
    rng = random.Random(0)
    rows = made_up(460, rng)
    write(folder / "reviews.csv", ["text", "label"], rows[:160])
    write(folder / "more.csv", ["text"], [[text] for text, _ in rows[160:440]])
    write(folder / "new_rows.csv", ["text"], [[text] for text, _ in rows[440:]])
    for words in limbeck_lines(ROOT / "README.md"):
        done = subprocess.run(
            [sys.executable, "-m", "limbeck", *words],
            cwd=folder,
            env=environment() | SHORT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    # The guide to the report stands beside a run folder of that name.
    (folder / "run").symlink_to(folder / "runs/reviews")
    return folder
