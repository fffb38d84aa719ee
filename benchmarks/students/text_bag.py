"""The claims about `text_bag`: speed of training, size, latency, ONNX, accuracy.

    python benchmarks/students/text_bag.py [--data ../shared/data/text] [--minutes 6]

Needs `yelp_sent` and `imdb` as Parquet files with the columns text and label. Students are trained
on labels alone for four passes; the peers are TF-IDF of 1-2-grams with logistic regression by SGD
on the same rows. Rates count everything from raw strings on: hashing, reading minibatches,
gradient steps.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from _common import arguments, results
from limbeck.data.schema import Schema
from limbeck.distill.export import export_onnx
from limbeck.students import MemoryStore, Student, TextBagConfig, build, load, save

SCHEMA = Schema(("text",), (), (), "label", ("negative", "positive"))
TRAIN_ROWS, TEST_ROWS, BATCH, PASSES = 40_000, 10_000, 256, 4
SEEDS = (0, 1, 2, 3, 4)


def read(folder: Path, name: str, split: str, rows: int) -> tuple[pa.RecordBatch, np.ndarray]:
    """Rows of one split, shuffled once with a fixed seed."""
    table = pq.read_table(folder / name / f"{split}.parquet")
    table = table.take(np.random.default_rng(0).permutation(table.num_rows)[:rows])
    text = table["text"].combine_chunks().cast(pa.large_string())
    labels = table["label"].to_numpy().astype(np.int64)
    return pa.RecordBatch.from_arrays([text], names=["text"]), labels


def slices(rows: pa.RecordBatch) -> list[pa.RecordBatch]:
    """Pieces of 4,096 rows."""
    return [rows.slice(i, 4096) for i in range(0, rows.num_rows, 4096)]


def train(rows: pa.RecordBatch, labels: np.ndarray, seed: int) -> tuple[Student, float, float]:
    """Train on labels; give the student and the seconds of hashing and of training."""
    torch.manual_seed(seed)  # dropout
    generator = torch.Generator().manual_seed(seed)
    student = build("text_bag", {}, SCHEMA, [], 2, generator)
    start = time.perf_counter()
    store = MemoryStore.build(student.encoder, slices(rows))
    hashed = time.perf_counter()
    module = student.module.train()
    rate = TextBagConfig.recommended_lr
    optimiser = torch.optim.AdamW(module.parameters(), lr=rate, fused=True)
    steps = PASSES * (len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    target = torch.from_numpy(labels)
    for _ in range(PASSES):
        order = torch.randperm(len(labels), generator=generator).numpy()
        for i in range(len(labels) // BATCH):
            chosen = order[i * BATCH : (i + 1) * BATCH]
            out = module(student.encoder.collate(store.take(chosen)))
            optimiser.zero_grad()
            F.cross_entropy(out.outputs, target[chosen]).backward()
            optimiser.step()
            schedule.step()
    module.eval()
    return student, hashed - start, time.perf_counter() - hashed


def tfidf(train_set: tuple, test_set: tuple) -> float:
    """Accuracy of the peer, in percent."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier

    texts, test = (rows[0].column("text").to_pylist() for rows in (train_set, test_set))
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = SGDClassifier(loss="log_loss", alpha=1e-5, random_state=0)
    model.fit(vectors.fit_transform(texts), train_set[1])
    return 100 * float(model.score(vectors.transform(test), test_set[1]))


def measure(name: str, folder: Path, seed: int) -> dict[str, object]:
    """One row of the result: train, save, export, score."""
    train_set, test_set = (
        read(folder, name, "train", TRAIN_ROWS),
        read(folder, name, "test", TEST_ROWS),
    )
    student, hashing, training = train(*train_set, seed)
    rows = len(train_set[1])
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary)
        save(student, path)
        right = load(path).probabilities(test_set[0]).argmax(1) == test_set[1]
        sample = test_set[0].slice(0, 1000)
        report = export_onnx(
            student, path, temperature=1.0, sample=sample, labels=test_set[1][:1000]
        )
        size = (path / "model.safetensors").stat().st_size
    seen = PASSES * rows
    float32, int8 = report.float32, report.int8
    return {
        "data": name,
        "seed": seed,
        "train_rows": rows,
        "accuracy_percent": 100 * float(right.mean()),
        "tfidf_accuracy_percent": tfidf(train_set, test_set) if seed == 0 else None,
        "hashing_rows_per_second": rows / hashing,
        "training_rows_per_second": seen / training,
        # The slowest way to count: every pass hashes its rows again.
        "both_rows_per_second": rows / (hashing + training / PASSES),
        "safetensors_bytes": size,
        "onnx_bytes": float32.size_bytes,
        "onnx_int8_bytes": int8.size_bytes,
        "onnx_difference": float32.difference,
        "onnx_int8_agreement": int8.agreement,
        "onnx_accuracy_1000": float32.accuracy,
        "onnx_int8_accuracy_1000": int8.accuracy,
        "from_ids_p50_ms": float32.encoded.p50_ms,
        "from_ids_p95_ms": float32.encoded.p95_ms,
        "from_text_p50_ms": float32.raw.p50_ms,
        "from_text_p95_ms": float32.raw.p95_ms,
    }


def summary(rows: list[dict[str, object]]) -> dict[str, object]:
    """Mean and 95 % t-interval over seeds of each number, by data set."""
    from scipy.stats import t

    found: dict[str, object] = {}
    for name in dict.fromkeys(str(row["data"]) for row in rows):
        mine = [row for row in rows if row["data"] == name]
        numbers: dict[str, object] = {"seeds": len(mine)}
        for key in mine[0]:
            values = np.array([r[key] for r in mine if isinstance(r[key], (int, float))])
            if key in {"data", "seed"} or not len(values):
                continue
            half = None  # one seed says nothing of the spread
            if len(values) > 1:
                half = float(
                    t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
                )
            numbers[key] = {"mean": float(values.mean()), "half_width_95": half}
        found[name] = numbers
    return found


def main() -> None:
    """Run what is missing and write the result file."""
    parser = arguments(__doc__, minutes=6.0)
    root = os.environ.get("LIMBECK_DATA", Path(__file__).parents[3] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(root) / "text")
    options = parser.parse_args()
    torch.set_num_threads(1)  # small steps: a second thread waits more than it works
    kept = results("text_bag", fresh=options.fresh)
    stop = time.monotonic() + 60 * options.minutes
    for seed in SEEDS:
        for name in ("yelp_sent", "imdb"):
            if not kept.done([name, seed]) and time.monotonic() < stop:
                kept.add([name, seed], measure(name, options.data, seed))
    kept.write(
        claim="text_bag on yelp_sent: hashing and training >= 20,000 rows/s on two cores, < 5 MB, "
        "p50 of one row on one core < 0.3 ms from ids and < 1 ms from text, ONNX within 1e-4",
        config={"train_rows": TRAIN_ROWS, "test_rows": TEST_ROWS, "batch": BATCH, "passes": PASSES},
        seeds=sorted({int(str(row["seed"])) for row in kept.rows()}),
        numbers={"summary": summary(list(kept.rows())), "rows": list(kept.rows())},
    )


if __name__ == "__main__":
    main()
