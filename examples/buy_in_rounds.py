"""Answers bought in rounds: a student says what it is unsure of, and RAD chooses what to ask.

    python examples/buy_in_rounds.py              # writes into runs/example_rounds

The files and the teacher are those of `distill_reviews.py`. As many rows are bought at random
beside those of the rule, so that the report can draw both learning curves.
"""

import sys
from pathlib import Path

from distill_reviews import files_in, show
from limbeck.distill.buy_config import BuyConfig
from limbeck.distill.config import DistillConfig, ObjectiveConfig, TrainConfig
from limbeck.distill.run import distill
from limbeck.teachers.config import TeacherConfig


def main(folder: Path) -> None:
    """Make the files, buy in three rounds, distil."""
    config = DistillConfig(
        data=files_in(folder),
        teacher=TeacherConfig(kind="callable", function="distill_reviews:ask"),
        budget=1600,
        buy=BuyConfig(rule="rad", rounds=3, beside="uniform", steps=100, stop=False),
        train=TrainConfig(steps=200, evaluations=5),
        objective=ObjectiveConfig(arms=("labels", "soft_kd", "slam")),
        onnx=False,
        out=folder / "run",
        ledger=folder / "ledger.sqlite",
        code=Path(__file__).parent,
    )
    outcome = distill(config, show)
    print(f"\n{outcome.text()}\n")
    purchase = outcome.record.purchase
    assert purchase is not None  # this run bought in rounds
    print("answers  by rule  at random")
    for mine, other in zip(purchase.rounds, purchase.beside, strict=True):
        print(f"{mine.answers:7,}  {mine.accuracy.estimate:6.1%}  {other[1]:8.1%}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example_rounds"))
