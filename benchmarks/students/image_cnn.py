"""The claims about `image_cnn` and about the training loop of every student.

    PYTHONPATH=src:. python benchmarks/students/image_cnn.py [--minutes 20] [--only loop]

Three parts. `loop`: steps of Limbeck's loop, which reads its rows from a file, against a bare
PyTorch loop over the same network, which takes the same minibatches from encoded rows in memory,
with the same augmentation, optimiser and clipping; the two take turns within one process.
`latency`: size of the files, and one row with onnxruntime on one core, at five sizes. `accuracy`:
mnist from 1,000 labels, without augmentation and with each kind of it, and the int8 file beside the
float32 one. Needs `mnist.npz` and `cifar10_jpeg.npz` as arrays.
"""

import copy
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from accelerate import Accelerator
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from _common import Clock, arguments, results
from limbeck.data.images import netpbm
from limbeck.data.schema import Schema
from limbeck.distill.batches import EndlessPermutation
from limbeck.distill.config import TrainConfig
from limbeck.distill.export import export_onnx
from limbeck.distill.job import Job, Labelled
from limbeck.distill.loop import build_optimizer, learning_rate, train
from limbeck.objectives import Supervised
from limbeck.students import EncodedStore, MemoryStore, Student, build, load, recommended_lr, save

SEEDS = (0, 1, 2, 3, 4)
BATCH = 320
"""Rows of a step: as many as 256 of a pool and 64 labelled ones."""
LOOPS = {"image_cnn": 60, "text_bag": 600, "text_transformer": 16, "tabular": 2_000}
"""Steps that are timed of each kind."""
SIZES = (28, 32, 64, 128, 224)
AUGMENTS = ("none", "light", "rand")
TURNS = 3
WORDS = np.array([f"word{i}" for i in range(3_000)])


def images(pixels: np.ndarray) -> pa.RecordBatch:
    """Arrays of pixels as a column of image files."""
    files = pa.array([netpbm(image) for image in pixels], pa.large_binary())
    return pa.RecordBatch.from_pydict({"image": files})


def image_schema(classes: int = 10) -> Schema:
    """A task of one image column."""
    names = tuple(str(i) for i in range(classes))
    return Schema((), (), (), "label", names, image=("image",))


def made_up(kind: str, rows: int) -> tuple[pa.RecordBatch, Schema]:
    """Rows of each kind of student: the time of a step does not depend on what they say."""
    rng = np.random.default_rng(0)
    if kind == "image_cnn":
        return images(rng.integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8)), image_schema()
    classes = tuple(str(i) for i in range(10))
    if kind == "tabular":
        columns = {f"x{i}": rng.normal(size=rows) for i in range(64)}
        schema = Schema((), tuple(columns), (), "label", classes)
        return pa.RecordBatch.from_pydict(columns), schema
    lengths = rng.integers(5, 60, rows)
    texts = [" ".join(rng.choice(WORDS, n)) for n in lengths]
    column = pa.array(texts, pa.large_string())
    return pa.RecordBatch.from_pydict({"t": column}), Schema(("t",), (), (), "label", classes)


def loop_job(kind: str, folder: Path, seed: int) -> Job:
    """Training of one kind, with rows that lie in a file as those of a pool do."""
    rows, schema = made_up(kind, 4_096)
    student = build(kind, {}, schema, [rows], 10, torch.Generator().manual_seed(seed))
    store = EncodedStore.build(student.encoder, [rows], folder / f"{kind}.bin", rows=len(rows))
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, 10, len(rows)))
    return Job(
        name=kind,
        student=student,
        objective=Supervised(),
        labelled=Labelled(store, labels),
        pool=None,
        held_out=None,
        train=TrainConfig(labelled_batch=BATCH, evaluations=1),
        steps=LOOPS[kind],
        stop_at=LOOPS[kind],
        learning_rate=recommended_lr(student.module.settings),
        seed=seed,
    )


def bare_loop(job: Job) -> float:
    """Seconds of the same steps in a plain loop over rows that lie in memory, encoded."""
    assert job.labelled is not None
    whole = job.labelled.rows.take(np.arange(len(job.labelled)))
    memory = MemoryStore(whole.values, whole.lengths)
    module, encoder = job.student.module, job.student.encoder
    order = EndlessPermutation(len(job.labelled), BATCH, 2 * job.seed + 1)
    optimizer = build_optimizer(job)
    module.train()
    began = time.perf_counter()
    for step in range(job.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(job, step)
        rows = order.rows(step)
        inputs = encoder.collate(memory.take(rows))
        varied = encoder.augment(inputs, torch.Generator().manual_seed(step))
        loss = F.cross_entropy(module(varied).outputs, job.labelled.labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), job.train.clip_norm)
        optimizer.step()
    return time.perf_counter() - began


def limbeck_loop(job: Job, folder: Path, accelerator: Accelerator) -> float:
    """Seconds of the same steps in Limbeck's loop: reading, collating, checkpoint and all."""
    path = folder / "checkpoint"
    path.unlink(missing_ok=True)
    began = time.perf_counter()
    train(job, path, "benchmark", accelerator, lambda step, point: None)
    return time.perf_counter() - began


def measure_loop(kind: str, seed: int, threads: int) -> dict[str, object]:
    """Turns of both loops, each from the same fresh weights; the ratio of their medians."""
    torch.set_num_threads(threads)
    accelerator = Accelerator(cpu=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        job = loop_job(kind, folder, seed)
        times: dict[str, list[float]] = {"bare": [], "limbeck": []}
        for turn in range(TURNS + 1):
            for name in ("bare", "limbeck") if turn % 2 else ("limbeck", "bare"):
                student = replace(job.student, module=copy.deepcopy(job.student.module))
                fresh = replace(job, student=student)
                taken = (
                    bare_loop(fresh) if name == "bare" else limbeck_loop(fresh, folder, accelerator)
                )
                if turn:  # the first warms both up
                    times[name].append(taken)
    bare, ours = (float(np.median(times[name])) for name in ("bare", "limbeck"))
    return {
        "part": "loop",
        "kind": kind,
        "threads": threads,
        "seed": seed,
        "bare_rows_per_second": BATCH * job.steps / bare,
        "limbeck_rows_per_second": BATCH * job.steps / ours,
        "speed_against_bare": bare / ours,
    }


def measure_latency(size: int, data: Path) -> dict[str, object]:
    """Sizes and times of both ONNX files at one side, from images of that side."""
    from PIL import Image

    pixels = np.load(data / "cifar10_jpeg.npz")["x_test"][:300]
    rows = images(np.stack([np.asarray(Image.fromarray(p).resize((size, size))) for p in pixels]))
    generator = torch.Generator().manual_seed(0)
    student = build("image_cnn", {"size": size}, image_schema(), [rows], 10, generator)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save(student, folder)
        report = export_onnx(student, folder, temperature=1.0, sample=rows)
        weights = (folder / "model.safetensors").stat().st_size
    found: dict[str, object] = {"part": "latency", "size": size, "safetensors_bytes": weights}
    for name, file in (("float32", report.float32), ("int8", report.int8)):
        found |= {
            f"{name}_bytes": file.size_bytes,
            f"{name}_difference": file.difference,
            f"{name}_pixels_p50_ms": file.encoded.p50_ms,
            f"{name}_pixels_p95_ms": file.encoded.p95_ms,
            f"{name}_file_p50_ms": file.raw.p50_ms,
            f"{name}_file_p95_ms": file.raw.p95_ms,
        }
    return found


@dataclass(frozen=True)
class Mnist:
    """1,000 training rows, drawn by a seed, and the whole test set."""

    train: pa.RecordBatch
    train_labels: np.ndarray
    test: pa.RecordBatch
    test_labels: np.ndarray

    @classmethod
    def read(cls, data: Path, seed: int) -> "Mnist":
        """Read the file."""
        with np.load(data / "mnist.npz") as arrays:
            chosen = np.random.default_rng(seed).permutation(60_000)[:1_000]
            return cls(
                images(arrays["x_train"][chosen]),
                arrays["y_train"][chosen],
                images(arrays["x_test"]),
                arrays["y_test"],
            )


def measure_accuracy(augment: str, seed: int, data: Path) -> dict[str, object]:
    """Train on 1,000 labels with Limbeck's loop; score on all test rows."""
    mnist = Mnist.read(data, seed)
    generator = torch.Generator().manual_seed(seed)
    settings = {"augment": augment}
    student = build("image_cnn", settings, image_schema(), [mnist.train], 10, generator)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = folder / "rows.bin"
        store = EncodedStore.build(student.encoder, [mnist.train], path, rows=1_000)
        job = Job(
            name="mnist",
            student=student,
            objective=Supervised(),
            labelled=Labelled(store, torch.from_numpy(mnist.train_labels)),
            pool=None,
            held_out=None,
            train=TrainConfig(labelled_batch=64, evaluations=1),
            steps=600,
            stop_at=600,
            learning_rate=recommended_lr(student.module.settings),
            seed=seed,
        )
        train(job, folder / "c", "benchmark", Accelerator(cpu=True), lambda step, point: None)
        right = right_share(student, folder, mnist)
        found: dict[str, object] = {
            "part": "accuracy",
            "augment": augment,
            "seed": seed,
            "accuracy_percent": 100 * right,
        }
        report = export_onnx(
            student,
            folder,
            temperature=1.0,
            sample=mnist.test,
            labels=mnist.test_labels,
            calibration=mnist.train.slice(0, 256),
        )
    assert report.int8.accuracy is not None
    return found | {
        "int8_accuracy_percent": 100 * report.int8.accuracy,
        "int8_agreement_percent": 100 * report.int8.agreement,
    }


def right_share(student: Student, folder: Path, mnist: Mnist) -> float:
    """Share of test rows with the true class, by the saved student."""
    save(student, folder)
    guess = load(folder).probabilities(mnist.test).argmax(1)
    return float((guess == mnist.test_labels).mean())


def summary(rows: Iterator[dict[str, object]]) -> list[dict[str, object]]:
    """Mean and 95 % t-interval over seeds of each number, for equal settings."""
    from scipy.stats import t

    names = ("part", "kind", "threads", "size", "augment")
    groups: dict[tuple[object, ...], list[dict[str, object]]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(name) for name in names), []).append(row)
    found = []
    for key, mine in groups.items():
        line: dict[str, object] = {n: v for n, v in zip(names, key, strict=True) if v is not None}
        line["seeds"] = len(mine)
        for name in mine[0]:
            if name in names or name == "seed":
                continue
            values = np.array([float(str(row[name])) for row in mine])
            half = None  # one seed says nothing of the spread
            if len(values) > 1:
                quantile = float(t.ppf(0.975, len(values) - 1))
                half = quantile * float(values.std(ddof=1)) / len(values) ** 0.5
            line[name] = {"mean": float(values.mean()), "half_width_95": half}
        found.append(line)
    return found


def main() -> None:
    """Run what is missing and write the result file."""
    parser = arguments(__doc__, minutes=20.0)
    root = os.environ.get("LIMBECK_DATA", Path(__file__).parents[3] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(root) / "images")
    parser.add_argument("--only", choices=("loop", "latency", "accuracy"))
    options = parser.parse_args()
    clock, kept = Clock(options.minutes), results("image_cnn", fresh=options.fresh)
    work = [(("loop", kind, seed, n)) for seed in SEEDS for kind in LOOPS for n in (1, 2)]
    work += [("latency", size) for size in SIZES]
    work += [("accuracy", augment, seed) for seed in SEEDS for augment in AUGMENTS]
    for key in work:
        if clock.spent or kept.done(key) or options.only not in (None, key[0]):
            continue
        match key:
            case ("loop", kind, seed, threads):
                row = measure_loop(str(kind), int(seed), int(threads))
            case ("latency", size):
                torch.set_num_threads(1)
                row = measure_latency(int(size), options.data)
            case (_, augment, seed):
                torch.set_num_threads(1)
                row = measure_accuracy(str(augment), int(seed), options.data)
        kept.add(key, row)
    kept.write(
        claim="training through the loop is at most 5 % slower than a bare PyTorch loop for every "
        "student, and image_cnn at least as fast; image_cnn < 1 MB, p50 of one row of 32 x 32 "
        "pixels on one core < 1 ms",
        config={"batch": BATCH, "timed_steps": LOOPS, "turns": TURNS, "mnist_steps": 600},
        seeds=sorted({int(str(row["seed"])) for row in kept.rows() if "seed" in row}),
        numbers={"summary": summary(kept.rows()), "rows": list(kept.rows())},
    )


if __name__ == "__main__":
    main()
