"""A small text task with a teacher that writes down what it is asked, and a search over it."""

from pathlib import Path

import numpy as np

from limbeck.distill.config import DistillConfig
from limbeck.distill.run_file import load_config

TEACHER = """
from pathlib import Path

ASKED = Path(__file__).with_name("asked.txt")


def ask(rows):
    with ASKED.open("a") as log:
        log.writelines(f"{row['text']}\\n" for row in rows)
    return [[0.1, 0.9] if "good" in row["text"] else [0.8, 0.2] for row in rows]
"""
RUN = """
budget = 200
out = "run"
onnx = false

[data]
labelled = "labelled.csv"
validation = "validation.csv"
test = "test.csv"
pool = "pool.csv"

[teacher]
kind = "callable"
function = "{module}:ask"

[student]
kind = "text_bag"
arch = "search"

[student.settings]
buckets = 4096
dim = 16
hidden = 64

[train]
steps = 12
evaluations = 2
pool_batch = 16
labelled_batch = 8
folds = 2

[objective]
arms = ["labels", "soft_kd"]

[search]
trials = 6
cost = "parameters"
share = 0.6
steps = 6
reward = "likelihood"

[search.options]
buckets = [1024, 2048, 4096]
dim = [4, 8, 16]
hidden = [16, 32, 64]
"""
WORDS = ("good", "bad", "film", "plot", "long", "short", "actor", "scene", "music", "end")


def make_search(folder: Path) -> Path:
    """Write files, teacher and run file; give the run file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, n in (("labelled", 24), ("validation", 40), ("test", 30), ("pool", 80)):
        lines = ["text" + ("" if name == "pool" else ",label")]
        for i in range(n):
            words = [*rng.choice(WORDS[2:], size=4), WORDS[int(rng.integers(2))], str(i), name]
            label = "" if name == "pool" else "," + ("up" if "good" in words else "down")
            lines.append(" ".join(words) + label)
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    # Modules are cached by name in a process, so every task has a teacher of its own name.
    module = f"searched_{abs(hash(str(folder)))}"
    (folder / f"{module}.py").write_text(TEACHER)
    run_file = folder / "run.toml"
    run_file.write_text(RUN.format(module=module))
    return run_file


def config_of(run_file: Path, *options: str) -> DistillConfig:
    return load_config(run_file, options)


def asked(run_file: Path) -> list[str]:
    """Every question ever put to the teacher."""
    log = run_file.with_name("asked.txt")
    return log.read_text().splitlines() if log.exists() else []
