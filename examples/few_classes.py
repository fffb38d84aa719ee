"""Two classes: even and odd digits, where a teacher's answer is one number and its embedding many.

    python examples/few_classes.py                # writes into runs/example_few_classes

The images are those of `distill_images.py` with five digits a class. LELP splits each class along
directions of the teacher's embeddings; the report shows the digits at their ends.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from distill_images import PARTS, show
from limbeck.data.config import DataConfig
from limbeck.distill.config import DistillConfig, ObjectiveConfig, StudentConfig, TrainConfig
from limbeck.distill.run import distill
from limbeck.teachers.config import TeacherConfig


def write_folders(folder: Path) -> None:
    """Write `labelled/even/17.png` and so on; the pool has no sub-folders."""
    digits = load_digits()
    order = iter(np.random.default_rng(0).permutation(len(digits.target)))
    for part, count in PARTS.items():
        for row in (next(order) for _ in range(count)):
            name = ("even", "odd")[digits.target[row] % 2]
            place = folder / part / ("" if part == "pool" else name)
            place.mkdir(parents=True, exist_ok=True)
            pixels = (digits.images[row] * 255 / 16).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{row}.png")


def main(folder: Path) -> None:
    """Make the folders, distil with and without the embeddings."""
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
        student=StudentConfig(kind="image_cnn", settings={"width": 8, "augment": "none"}),
        # Answers alone teach: the labelled rows are left to the arm that learns from nothing else.
        train=TrainConfig(
            steps=100, evaluations=5, pool_batch=128, labelled_batch=32, labelled_weight=0.0
        ),
        objective=ObjectiveConfig(arms=("labels", "soft_kd", "lelp"), temperature=2.0),
        onnx=False,
        out=folder / "run",
        ledger=folder / "ledger.sqlite",
    )
    outcome = distill(config, show)
    print(f"\n{outcome.text()}\n")
    held = outcome.record.embeddings
    assert held is not None  # an arm of this run splits classes
    (split,) = held.splits
    print(f"nats a row  classes {split.class_nats:.3f}  split {split.split_nats:.3f}")
    print(f"report      {folder / 'run/report.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example_few_classes"))
