"""Robust objectives on the digits of `slam_digits`: the same rows, teachers, student and steps.

    PYTHONPATH=src python -m benchmarks.objectives.robust_digits

Differences from hard distillation are paired by seed. The arms `SLaM hard`, `hard KD`, `soft KD`
and `labels only` are trained again, so that the table stands for itself.
"""

import statistics
from dataclasses import asdict
from typing import Any

import torch
from benchmarks._common import RESULTS, Clock, arguments, results
from benchmarks.objectives import slam_digits as digits

from limbeck.objectives import AlphaWeighted, Fidelity, Objective, Taylor, Ups
from limbeck.storage import write_text

CLAIM = (
    "Where the teacher errs often, objectives that bound a wrong label beat hard distillation, and "
    "Taylor's is about as good as SLaM; weights gain less; with a teacher that is nearly always "
    "right none is better."
)
ARMS: dict[str, Objective] = {
    "labels only": digits.ARMS["labels only"],
    "hard KD": digits.ARMS["hard KD"],
    "soft KD": digits.ARMS["soft KD"],
    "SLaM hard": digits.ARMS["SLaM hard"],
    "Taylor, order 1": Taylor(order=1),
    "Taylor, order 2": Taylor(order=2),
    "UPS, confidence": Ups(),
    "fidelity, beta 1": Fidelity(beta=1.0),
    "fidelity, beta 4": Fidelity(beta=4.0),
    "alpha as weight, hard": AlphaWeighted(target="hard"),
    "alpha as weight, soft": AlphaWeighted(target="soft"),
}


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean accuracy and paired difference from hard KD of each arm and setting, in points."""
    out: dict[str, Any] = {}
    for name in digits.TEACHERS:
        mine = [row for row in rows if row["setting"] == name]
        if len(mine) < 2:
            continue
        out[name] = {"teacher": statistics.fmean(row["teacher"] for row in mine)} | {
            arm: {
                "accuracy": statistics.fmean(row[arm] for row in mine),
                "minus hard KD": digits.interval([row[arm] - row["hard KD"] for row in mine]),
            }
            for arm in ARMS
        }
    return out


def table(numbers: dict[str, Any]) -> str:
    """A markdown table: a row an arm, a column a setting."""
    heads = [f"{name}: teacher {here['teacher']:.1f}" for name, here in numbers.items()]
    lines = ["| arm | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for arm in ARMS:
        cells = []
        for here in numbers.values():
            gap = here[arm]["minus hard KD"]
            cells.append(f"{here[arm]['accuracy']:.1f} ({gap['mean']:+.1f} ± {gap['half']:.1f})")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train all arms with all teachers for all seeds, and write numbers and table."""
    options = arguments(__doc__, minutes=30).parse_args()
    from sklearn.datasets import load_digits

    torch.set_num_threads(1)
    setting, clock = digits.Setting(), Clock(options.minutes)
    found = results("robust_digits", fresh=options.fresh)
    images, classes = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(classes)
    logits = digits.strong_logits(x, y)
    for seed in range(setting.seeds):
        for name, (sigma, kind) in digits.TEACHERS.items():
            if found.done([name, seed]) or clock.spent:
                continue
            data = digits.split(digits.features(x, kind), y, logits, seed, setting.labelled)
            row = digits.one_seed(data, sigma, seed, setting, ARMS)
            found.add([name, seed], {"setting": name, "seed": seed, **row})
            print(name, seed, {k: round(float(v), 1) for k, v in row.items()}, flush=True)
    rows = list(found.rows())
    numbers = summarise(rows)
    found.write(
        claim=CLAIM,
        config={**asdict(setting), "teachers": digits.TEACHERS, "optimizer": "Adam"},
        seeds=sorted({int(row["seed"]) for row in rows}),
        numbers={"summary": numbers, "rows": rows},
    )
    write_text(RESULTS / "robust_digits.md", table(numbers))
    print(table(numbers))


if __name__ == "__main__":
    main()
