"""A small task on disk with a teacher that writes down every question it is asked."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

TEACHER = """
from pathlib import Path

ASKED = Path(__file__).with_name("asked.txt")


def ask(rows):
    with ASKED.open("a") as log:
        log.writelines(f"{row['a']!r} {row['b']!r}\\n" for row in rows)
    answers = []
    for row in rows:
        p = 0.9 if row["a"] + 0.4 * row["b"] > 0 else 0.2
        answers.append([1 - p, p])
    return answers
"""
RUN = """
budget = {budget}
out = "run"
onnx = {onnx}

[data]
labelled = "labelled.csv"
validation = "validation.csv"
test = "test.csv"
pool = "pool.csv"

[teacher]
kind = "callable"
function = "{module}:ask"

[student.settings]
hidden = 8

[train]
steps = 8
evaluations = 2
pool_batch = 16
labelled_batch = 8
folds = 2

[objective]
arms = ["labels", "slam"]
slam_target = "hard"
"""


@dataclass(frozen=True)
class Material:
    folder: Path
    run_file: Path
    asked: Path

    def questions(self) -> list[str]:
        """Every question ever put to the teacher."""
        return self.asked.read_text().splitlines() if self.asked.exists() else []


ROUNDS = """
[buy]
rule = "adaprod"
rounds = 2
steps = 4
"""


def make(
    folder: Path, *, budget: int = 150, pool: int = 90, onnx: bool = False, more: str = ""
) -> Material:
    """Write files, teacher and run file. Splits are disjoint and labels follow a line."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, n in (("labelled", 24), ("validation", 30), ("test", 40), ("pool", pool)):
        x = rng.normal(size=(n, 2)).round(6)
        lines = ["a,b" + ("" if name == "pool" else ",label")]
        for a, b in x:
            label = "" if name == "pool" else "," + ("up" if a > 0 else "down")
            lines.append(f"{a},{b}{label}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    # Modules are cached by name in a process, so every task has a teacher of its own name.
    module = f"teacher_{abs(hash(str(folder)))}"
    (folder / f"{module}.py").write_text(TEACHER)
    run_file = folder / "run.toml"
    run_file.write_text(RUN.format(budget=budget, module=module, onnx=str(onnx).lower()) + more)
    return Material(folder, run_file, folder / "asked.txt")
