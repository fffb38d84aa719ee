"""A rehearsal with people as the teacher: questions out, labels back, a student.

    python examples/ask_people.py                 # writes into runs/example_people

The person here is a function that writes into the file what a person would. With real people the
two calls of the library are `limbeck ask run.toml` and `limbeck tell run.toml labels.csv`.
"""

import csv
import sys
from pathlib import Path

from distill_reviews import BAD, GOOD, files_in, words
from limbeck.distill.config import DistillConfig, ObjectiveConfig, TrainConfig
from limbeck.distill.people import ask, tell
from limbeck.distill.run import distill
from limbeck.errors import ConfigError
from limbeck.teachers.config import TeacherConfig


def fill_in(path: Path) -> None:
    """Do a person's work: read each question, and write a label where one is sure."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        said = words(row["text"])
        score = sum(word in GOOD for word in said) - sum(word in BAD for word in said)
        tired = row["question_id"].endswith("f")  # one in sixteen
        row["label"] = "not sure" if tired else "pos" if score > 0 else "neg"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def main(folder: Path) -> None:
    """Ask until the budget is spent, then distil."""
    config = DistillConfig(
        data=files_in(folder, validation_rows=100),
        # 40,000 millionths: four cents a label.
        teacher=TeacherConfig(
            kind="human", question="Is this review good or bad?", price_per_answer=40_000
        ),
        budget=600,
        money=24.0,
        ask_test=False,  # test rows have their labels: people need not name them again
        train=TrainConfig(steps=60, evaluations=3),
        objective=ObjectiveConfig(arms=("labels", "hard_kd")),
        onnx=False,
        out=folder / "run",
        ledger=folder / "ledger.sqlite",
    )
    try:
        distill(config)
    except ConfigError as error:
        print(f"A run waits for people: {error}\n")
    while (asked := ask(config, rows=250)).path:
        fill_in(asked.path)
        told = tell(config, [asked.path])
        print(f"{asked.path.name}: {told.answered} answers, {told.not_sure} not sure, {told.price}")
    print(f"\n{distill(config).text()}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example_people"))
