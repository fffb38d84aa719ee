"""The claims about `text_transformer`: speed, size, latency, ONNX, accuracy beside `text_bag`.

    PYTHONPATH=src:. python benchmarks/students/text_transformer.py [--minutes 30]

Needs `yelp_sent`, `sst2` and `imdb` as Parquet files with the columns text and label. Both kinds of
student are trained on labels alone, for the same passes over the same rows. Rates are of one
thread; encoding is timed from raw strings on, training from encoded rows on.
"""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from benchmarks._common import Clock, arguments, results
from benchmarks.students.text_bag import SCHEMA, read, slices, summary
from torch.nn import functional as F

from limbeck.distill.export import export_onnx
from limbeck.students import MemoryStore, Student, build, find_kind, load, save

KINDS = ("text_transformer", "text_bag")
PASSES = {"sst2": 8, "yelp_sent": 4, "imdb": 6}
TRAIN_ROWS, TEST_ROWS, BATCH = 40_000, 5_000, 256
SEEDS = (0, 1, 2, 3, 4)


def train(kind: str, data: tuple, passes: int, seed: int) -> tuple[Student, dict[str, float]]:
    """Train on labels; give the student and the seconds of each part."""
    rows, labels = data
    torch.manual_seed(seed)  # dropout
    generator = torch.Generator().manual_seed(seed)
    began = time.perf_counter()
    student = build(kind, {}, SCHEMA, slices(rows), 2, generator)
    fitted = time.perf_counter()
    store = MemoryStore.build(student.encoder, slices(rows))
    encoded = time.perf_counter()
    module = student.module.train()
    rate = find_kind(kind).settings.recommended_lr
    optimiser = torch.optim.AdamW(module.parameters(), lr=rate, fused=True)
    batches = len(labels) // BATCH
    steps = passes * batches
    # As in the main job: a short rise, then half a cosine.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda t: min(1.0, 20 * (t + 1) / steps) * 0.5 * (1 + np.cos(np.pi * t / steps)),
    )
    target = torch.from_numpy(labels)
    for _ in range(passes):
        order = torch.randperm(len(labels), generator=generator).numpy()
        for i in range(batches):
            chosen = order[i * BATCH : (i + 1) * BATCH]
            out = module(student.encoder.collate(store.take(chosen)))
            optimiser.zero_grad()
            F.cross_entropy(out.outputs, target[chosen]).backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    module.eval()
    seconds = {
        "fitting_seconds": fitted - began,
        "encoding_rows_per_second": len(labels) / (encoded - fitted),
        "training_rows_per_second": steps * BATCH / (time.perf_counter() - encoded),
    }
    return student, seconds


def measure(kind: str, name: str, folder: Path, seed: int) -> dict[str, object]:
    """One row of the result: train, save, export, score."""
    train_set = read(folder, name, "train", TRAIN_ROWS)
    test, labels = read(folder, name, "test", TEST_ROWS)
    student, seconds = train(kind, train_set, PASSES[name], seed)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary)
        save(student, path)
        right = load(path).probabilities(test).argmax(1) == labels
        report = export_onnx(
            student, path, temperature=1.0, sample=test.slice(0, 1000), labels=labels[:1000]
        )
        sizes = {
            f"{file.name.replace('.', '_')}_bytes": file.stat().st_size
            for file in path.iterdir()
            if file.suffix in {".safetensors", ".onnx"}
        }
        # The folder without the copies in other forms.
        tokenizer = path / "tokenizer.json"
        sizes["tokenizer_bytes"] = tokenizer.stat().st_size if tokenizer.exists() else 0
    float32, int8 = report.float32, report.int8
    return {
        "data": f"{name}, {kind}",
        "seed": seed,
        "train_rows": len(train_set[1]),
        "test_rows": len(labels),
        "accuracy_percent": 100 * float(right.mean()),
        **seconds,
        **sizes,
        "onnx_difference": float32.difference,
        "onnx_int8_agreement": int8.agreement,
        "from_ids_p50_ms": float32.encoded.p50_ms,
        "from_ids_p95_ms": float32.encoded.p95_ms,
        "from_text_p50_ms": float32.raw.p50_ms,
        "from_text_p95_ms": float32.raw.p95_ms,
        "int8_from_ids_p50_ms": int8.encoded.p50_ms,
    }


def main() -> None:
    """Run what is missing and write the result file."""
    parser = arguments(__doc__, minutes=30.0)
    root = os.environ.get("LIMBECK_DATA", Path(__file__).parents[3] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(root) / "text")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clock, kept = Clock(options.minutes), results("text_transformer", fresh=options.fresh)
    for seed in SEEDS:
        for name in PASSES:
            for kind in KINDS:
                key = [kind, name, seed]
                if not kept.done(key) and not clock.spent:
                    kept.add(key, measure(kind, name, options.data, seed))
    kept.write(
        claim="text_transformer: under 5 MB, ONNX within 1e-4; accuracy from all labels beside "
        "text_bag on the same rows",
        config={
            "train_rows": TRAIN_ROWS,
            "test_rows": TEST_ROWS,
            "batch": BATCH,
            "passes": PASSES,
        },
        seeds=sorted({int(str(row["seed"])) for row in kept.rows()}),
        numbers={"summary": summary(list(kept.rows())), "rows": list(kept.rows())},
    )


if __name__ == "__main__":
    main()
