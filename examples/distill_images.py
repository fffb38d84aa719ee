"""Images from folders: scikit-learn's digits as PNG files, a larger network as the teacher.

    python examples/distill_images.py             # writes into runs/example_images

The teacher is trained on labelled images of its own; the student has 60 with a label, and learns
the rest from the teacher's answers about images without one.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import limbeck
from limbeck.data.config import DataConfig
from limbeck.distill.config import DistillConfig, ObjectiveConfig, StudentConfig, TrainConfig
from limbeck.distill.folder import Event
from limbeck.distill.run import distill
from limbeck.teachers.config import TeacherConfig

PARTS = {"labelled": 60, "validation": 150, "test": 300, "pool": 787, "teacher": 500}
"""Images in each folder; they are 1,797 in all."""


def write_folders(folder: Path) -> None:
    """Write `labelled/3/17.png` and so on: sub-folders are classes, and the pool has none."""
    digits = load_digits()
    order = iter(np.random.default_rng(0).permutation(len(digits.target)))
    for part, count in PARTS.items():
        for row in (next(order) for _ in range(count)):
            place = folder / part / ("" if part == "pool" else str(digits.target[row]))
            place.mkdir(parents=True, exist_ok=True)
            pixels = (digits.images[row] * 255 / 16).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{row}.png")


def show(event: Event) -> None:
    """Print what a run says of itself, without the progress of its parts."""
    if not event.total:
        print(event.message)


def main(folder: Path) -> None:
    """Make the folders, distil, use the student."""
    if not (folder / "teacher").exists():
        write_folders(folder)
    config = DistillConfig(
        data=DataConfig(
            labelled=folder / "labelled",
            validation=folder / "validation",
            test=folder / "test",
            pool=folder / "pool",
        ),
        teacher=TeacherConfig(kind="fit", path=folder / "teacher"),
        budget=2000,
        # The kind would be chosen by the columns; moving an image is variation enough for digits.
        student=StudentConfig(kind="image_cnn", settings={"width": 16, "augment": "light"}),
        train=TrainConfig(steps=150, evaluations=5, pool_batch=128, labelled_batch=32),
        objective=ObjectiveConfig(arms=("labels", "soft_kd")),
        out=folder / "run",
        ledger=folder / "ledger.sqlite",
    )
    outcome = distill(config, show)
    print(f"\n{outcome.text()}\n")
    student = limbeck.load(outcome.student)
    files = sorted((folder / "test").glob("*/*.png"))[::60]
    for file, answer in zip(files, student.predict(files), strict=True):
        print(f"{answer}  {file.relative_to(folder)}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example_images"))
