"""Put the student that ships into its folder: weights, ONNX, model card, example."""

import numpy as np
from numpy.typing import NDArray

from limbeck.data import Splits
from limbeck.distill.arms import Arm
from limbeck.distill.card import write_card
from limbeck.distill.export import ExportReport, OnnxFile, export_onnx
from limbeck.distill.folder import WARNING, RunFolder
from limbeck.errors import ExportError, MissingExtraError
from limbeck.numerics.intervals import Interval
from limbeck.report.record import Latency, Size
from limbeck.report.results import Decision
from limbeck.students import DecisionRule, measure_latency, save

SAMPLE_ROWS = 1000
CALIBRATION_ROWS = 256


def ship(
    chosen: Arm,
    accuracy: Interval,
    splits: Splits,
    folder: RunFolder,
    *,
    threshold: float,
    onnx: bool,
    timed: bool = True,
    decision: Decision | None = None,
) -> tuple[Size, dict[str, str]]:
    """Write the student folder.

    Args:
        chosen: The arm that ships.
        accuracy: Of the arm on test, with its interval, for the model card.
        splits: Test rows give the sample on which exports are checked and timed.
        folder: The run's folder.
        threshold: Rows whose top probability is at most this are better sent to the teacher.
        onnx: Export to ONNX as well, timed or not.
        timed: Without ONNX, measure how long PyTorch takes for one row.
        decision: Which of two classes is named; None for the most probable class.

    Returns:
        What it weighs and how fast it is, and why something is missing.
    """
    rows = _some(len(splits.test), SAMPLE_ROWS)
    inputs = list(splits.schema.inputs)
    sample = splits.test.take(rows).select(inputs)
    labels: NDArray[np.int64] | None = splits.test.labels
    assert labels is not None
    save(
        chosen.student,
        folder.student,
        temperature=chosen.temperature,
        threshold=threshold,
        decision=None if decision is None else _rule(decision),
    )
    missing: dict[str, str] = {}
    report: ExportReport | None = None
    try:
        if onnx:
            report = export_onnx(
                chosen.student,
                folder.student,
                temperature=chosen.temperature,
                sample=sample,
                labels=labels[rows],
                calibration=splits.labelled.take(
                    _some(len(splits.labelled), CALIBRATION_ROWS)
                ).select(inputs),
            )
    except (MissingExtraError, ExportError) as error:
        # Named in the log and the report: the student itself is complete without it.
        missing["export"] = str(error)
        folder.log(WARNING, f"no ONNX: {error}")
    latencies: tuple[Latency, ...] = ()
    if report is not None:
        latencies = (*_timed(report.float32), *_timed(report.int8))
    elif timed:
        latencies = (_torch_latency(folder, sample.slice(0, 200)),)
    write_card(
        chosen.student,
        folder.student,
        temperature=chosen.temperature,
        threshold=threshold,
        report=report,
        facts={
            "trained as": chosen.title,
            "accuracy on test": f"{accuracy.estimate:.1%} (95% interval {accuracy.low:.1%} to "
            f"{accuracy.high:.1%}, {len(splits.test):,} rows)",
            "accuracy on validation, where it was chosen": f"{chosen.accuracy:.1%}",
            **({} if decision is None else _decision_facts(decision)),
        },
    )
    files = sorted(p for p in folder.student.iterdir() if p.is_file())
    size = Size(
        parameters=sum(p.numel() for p in chosen.student.module.parameters()),
        files=tuple((p.name, p.stat().st_size) for p in files),
        latencies=latencies,
        onnx_difference=None if report is None else report.float32.difference,
        onnx_accuracy=None if report is None else report.float32.accuracy,
        int8_accuracy=None if report is None else report.int8.accuracy,
        checked_rows=len(rows),
    )
    return size, missing


def _rule(decision: Decision) -> DecisionRule:
    return DecisionRule(
        positive=decision.positive,
        threshold=decision.threshold,
        cost_false_positive=decision.cost_false_positive,
        cost_false_negative=decision.cost_false_negative,
    )


def _decision_facts(found: Decision) -> dict[str, str]:
    """Lines of the model card; the accuracies above them are of the more probable class."""
    mine, plain = found.ways[0], found.ways[1]
    spent = f"{mine.cost.estimate:.4g} (95% interval {mine.cost.low:.4g} to {mine.cost.high:.4g})"
    return {
        "names": f"`{found.positive}` from probability {found.threshold:.4g} on, because a false "
        f"positive costs {found.cost_false_positive:g} and a false negative "
        f"{found.cost_false_negative:g}; the accuracies above are of the more probable class",
        "cost of 1,000 test rows": f"{spent}; {plain.cost.estimate:.4g} if it named the more "
        f"probable class",
        "accuracy on test as it decides": f"{mine.accuracy:.1%}",
    }


def _some(n: int, most: int) -> NDArray[np.int64]:
    """Positions below n, at random because a file may be sorted by class."""
    chosen: NDArray[np.int64] = np.random.default_rng(0).permutation(n)[:most]
    return chosen


def _timed(file: OnnxFile) -> tuple[Latency, Latency]:
    return (
        Latency(f"{file.name}, encoded row", file.encoded.p50_ms, file.encoded.p95_ms),
        Latency(f"{file.name}, raw row", file.raw.p50_ms, file.raw.p95_ms),
    )


def _torch_latency(folder: RunFolder, sample: object) -> Latency:
    import pyarrow as pa

    assert isinstance(sample, pa.RecordBatch)
    found = measure_latency(folder.student, sample)
    return Latency("PyTorch, raw row", found.p50_ms, found.p95_ms)
