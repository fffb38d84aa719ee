"""The main job from Python: made-up reviews, a function as the teacher, a student and a report.

    python examples/distill_reviews.py            # writes into runs/example_reviews

Run it again: nothing is asked twice, nothing is trained twice.
"""

import csv
import math
import random
import sys
from pathlib import Path

import limbeck
from limbeck.data.config import DataConfig
from limbeck.distill.config import DistillConfig, ObjectiveConfig, TrainConfig
from limbeck.distill.folder import Event
from limbeck.distill.run import distill
from limbeck.teachers.config import TeacherConfig


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


GOOD = words(
    "superb brilliant moving tender witty gripping lovely clever radiant funny graceful bold warm "
    "dazzling honest charming subtle inspired elegant thrilling rich vivid masterly joyful"
)
BAD = words(
    "dull wooden clumsy shrill boring lazy hollow stale bland tedious messy grating sloppy flat "
    "pompous absurd lifeless awful murky smug weak dreary noisy stupid"
)
THINGS = words("plot cast music script ending camera villain hero dialogue pace costumes jokes")


def review(rng: random.Random) -> tuple[str, str]:
    """A review and its label: two opinions that agree with it, and one that may not."""
    label = rng.choice(["neg", "pos"])
    own, other = (GOOD, BAD) if label == "pos" else (BAD, GOOD)
    opinions = [rng.choice(own), rng.choice(own), rng.choice(rng.choice([own, other]))]
    parts = [f"{opinion} {rng.choice(THINGS)}" for opinion in opinions]
    rng.shuffle(parts)
    return f"{', '.join(parts)} (seat {rng.randrange(10**6)})", label


def ask(rows: list[dict[str, str]]) -> list[list[float]]:
    """The teacher: counts words, of which it knows three quarters."""
    answers = []
    for row in rows:
        said = words(row["text"])
        score = sum(word in GOOD[:18] for word in said) - sum(word in BAD[:18] for word in said)
        likely = 1 / (1 + math.exp(-1.5 * score))
        answers.append([1 - likely, likely])
    return answers


def write_files(folder: Path) -> None:
    """Write 260 labelled rows, 500 test rows and a pool of 3,000."""
    rng = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("labelled", 260), ("test", 500), ("pool", 3000)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            rows = [review(rng) for _ in range(count)]
            writer = csv.writer(file)
            writer.writerow(["text"] if name == "pool" else ["text", "label"])
            writer.writerows([row[:1] for row in rows] if name == "pool" else rows)


def files_in(folder: Path, *, validation_rows: int = 200) -> DataConfig:
    """The files in a folder, which are written where they are missing."""
    if not (folder / "pool.csv").exists():
        write_files(folder)
    return DataConfig(
        labelled=folder / "labelled.csv",
        test=folder / "test.csv",
        pool=folder / "pool.csv",
        validation_rows=validation_rows,
    )


def show(event: Event) -> None:
    """Print what a run says of itself, without the progress of its parts."""
    if not event.total:
        print(event.message)


def main(folder: Path) -> None:
    """Make the files, distil, use the student."""
    config = DistillConfig(
        data=files_in(folder),
        # The function is found by name: this file lies in the folder given as `code`.
        teacher=TeacherConfig(kind="callable", function="distill_reviews:ask"),
        budget=3000,
        train=TrainConfig(steps=200, evaluations=5),
        objective=ObjectiveConfig(arms=("labels", "soft_kd", "slam")),
        out=folder / "run",
        ledger=folder / "ledger.sqlite",
        code=Path(__file__).parent,
    )
    outcome = distill(config, show)
    print(f"\n{outcome.text()}\n")
    student = limbeck.load(outcome.student)
    for text in ("A moving script, a vivid hero.", "Lazy jokes and a hollow ending."):
        print(f"{student.predict([text])[0]}  {text}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example_reviews"))
