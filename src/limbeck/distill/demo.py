"""A rehearsal on handwritten digits: files, a teacher with flaws, and the run file between them.

The data ship with scikit-learn. The teacher is simulated: the logits of a model that has seen the
truth, with noise added, so that it is wrong on about a quarter of the rows and knows its doubts
only roughly. The verdict is whatever the rows say.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from limbeck.storage import atomic_path, write_text

LABELLED_ROWS = 50
VALIDATION_ROWS = 100
TEST_ROWS = 500
NOISE = 1.5
SHARPNESS = 2.0
RUN_FILE = """\
# Made by `limbeck demo`. Change it, and run: limbeck distill {name}
budget = 1800          # answers that may be bought, validation and test included
out = "run"

[data]
labelled = "labelled.csv"
validation = "validation.csv"
test = "test.csv"
pool = "pool.csv"
label = "digit"

[teacher]
kind = "table"         # its answers are in a file, looked up by the content of a row
path = "teacher.parquet"
"""


def write_demo(folder: Path, seed: int = 0) -> Path:
    """Write the files of the demonstration.

    Args:
        folder: Where they go; files of the same names are replaced.
        seed: Of the split and of the teacher's noise.

    Returns:
        The run file.
    """
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(digits))
    ends = np.cumsum([LABELLED_ROWS, VALIDATION_ROWS, TEST_ROWS])
    names = ("labelled", "validation", "test", "pool")
    for name, rows in zip(names, np.split(order, ends), strict=True):
        columns = _columns(pixels[rows])
        if name != "pool":
            columns["digit"] = pa.array(digits[rows].astype(str))
        with atomic_path(folder / f"{name}.csv") as temporary:
            pc.write_csv(pa.table(columns), temporary)
    answers = _columns(pixels)
    probs = flawed_teacher(pixels, digits, rng)
    answers |= {f"prob_{c}": pa.array(probs[:, c]) for c in range(10)}
    with atomic_path(folder / "teacher.parquet") as temporary:
        pq.write_table(pa.table(answers), temporary)
    path = folder / "run.toml"
    write_text(path, RUN_FILE.format(name=path))
    return path


def flawed_teacher(
    pixels: NDArray[np.float64], digits: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Probabilities of a teacher that is wrong on about a quarter of the rows.

    Args:
        pixels: Shape (n, 64).
        digits: True classes, shape (n,).
        rng: Draws the noise.

    Returns:
        Probabilities, shape (n, 10).
    """
    from sklearn.linear_model import LogisticRegression

    strong = LogisticRegression(max_iter=500).fit(pixels / 16, digits)
    logits = strong.decision_function(pixels / 16)
    logits = (logits - logits.mean()) / logits.std()
    noisy = SHARPNESS * logits + NOISE * rng.standard_normal(logits.shape)
    odds = np.exp(noisy - noisy.max(axis=1, keepdims=True))
    probs: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
    return probs


def _columns(pixels: NDArray[np.float64]) -> dict[str, pa.Array]:
    return {f"pixel_{i:02d}": pa.array(pixels[:, i]) for i in range(pixels.shape[1])}
