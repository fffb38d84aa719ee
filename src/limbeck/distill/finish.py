"""The end of a run: measure, judge, export, report.

Test rows are looked at here and nowhere else. Everything that the report shows goes into one
`RunRecord`, which is `metrics.json`; the report is drawn from it alone.
"""

import importlib.metadata
import os
import platform
import resource
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import torch
from torch import Tensor

from limbeck import __version__
from limbeck.data import Splits
from limbeck.distill import decision
from limbeck.distill.acquire import Acquired
from limbeck.distill.arms import Arm
from limbeck.distill.config import DistillConfig
from limbeck.distill.deferral import Split, study
from limbeck.distill.evaluate import ArmRun, TeacherRun, evaluate
from limbeck.distill.folder import RunFolder, settings_hash, to_toml
from limbeck.distill.purchase_view import purchase_view
from limbeck.distill.recipes import own_sources
from limbeck.distill.row_texts import row_text
from limbeck.distill.ship import ship
from limbeck.distill.trust import Trust
from limbeck.distill.verdict import trust_check, verdict
from limbeck.numerics.metrics import accuracy
from limbeck.report.disagreements import Scored, pick_disagreements
from limbeck.report.embeddings import Embeddings
from limbeck.report.html import render
from limbeck.report.record import (
    Cost,
    DataView,
    Disagreement,
    RunRecord,
    SplitView,
    TrustView,
    bin_margins,
)
from limbeck.report.results import Decision, Deferral, Evaluation, TrustCheck
from limbeck.report.search import SearchView
from limbeck.storage import write_json, write_text
from limbeck.teachers import Teacher
from limbeck.trust import Temperature

PRICED_ROWS = 512


def finish(
    config: DistillConfig,
    splits: Splits,
    acquired: Acquired,
    trust: Trust,
    arms: Sequence[Arm],
    chosen: Arm,
    teacher: Teacher,
    folder: RunFolder,
    *,
    timed: bool = True,
    embeddings: Embeddings | None = None,
    search: SearchView | None = None,
) -> None:
    """Measure the arms on test, export the chosen student, write report and metrics."""
    assert splits.test.labels is not None
    generator = np.random.default_rng(config.seed)
    evaluation = evaluate(
        [_arm_run(arm, arm is chosen) for arm in arms],
        _teacher_run(acquired, trust),
        splits.test.labels,
        splits.schema.classes,
        generator=generator,
        positive=config.decision.positive,
    )
    check = _check(acquired, splits, trust, arms)
    judged = verdict(evaluation, check)
    deferral = _deferral(config, splits, acquired, chosen, teacher)
    priced = _decision(config, splits, chosen)
    folder.log("export", f"exporting {chosen.title!r}")
    size, missing = ship(
        chosen,
        evaluation.arm(chosen.name).accuracy,
        splits,
        folder,
        threshold=deferral.validation.threshold if deferral else 0.0,
        onnx=config.onnx,
        timed=timed,
        decision=priced,
    )
    if deferral is None:
        missing["deferral"] = (
            "The teacher was not asked about every test row, so the curve cannot be drawn."
        )
    record = RunRecord(
        title=f"Distillation: {_task(config)}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        verdict=judged,
        evaluation=evaluation,
        data=_data_view(splits),
        config_toml=to_toml(config),
        trust=_trust_view(trust, check),
        deferral=deferral,
        cost=_cost(config, acquired, folder),
        size=size,
        disagreements=_disagreements(splits, acquired, trust, arms, chosen, evaluation),
        missing=missing,
        environment=_environment(teacher) | _own_code(config, chosen),
        warnings=tuple(folder.warnings()),
        decision=priced,
        purchase=purchase_view(config, splits, acquired, trust),
        embeddings=embeddings,
        search=search,
    )
    write_text(folder.report, render(record))
    write_json(folder.metrics, record.to_dict())


def _arm_run(arm: Arm, chosen: bool) -> ArmRun:
    return ArmRun(
        name=arm.name,
        title=arm.title,
        kind="distilled" if arm.objective.needs_answers else "labels",
        test_log_probs=arm.test_log_probs.numpy(),
        chosen=chosen,
        temperature=arm.temperature,
        validation_accuracy=arm.accuracy,
        validation_nll=arm.nll,
        steps=arm.trained.last_step,
        best_step=arm.trained.best_step,
        seconds=arm.trained.seconds,
        parameters=sum(p.numel() for p in arm.student.module.parameters()),
        curve=tuple(
            (p.step, p.train_loss, p.nll, p.accuracy)
            if arm.held_out
            else (p.step, p.train_loss, None, None)
            for p in arm.trained.curve
        ),
    )


def _teacher_run(acquired: Acquired, trust: Trust) -> TeacherRun:
    log_probs = acquired.validation.probs.clamp_min(1e-12).log()
    temperature = Temperature.fit(log_probs, trust.evidence.labels)
    return TeacherRun(
        test_probs=None if acquired.test is None else acquired.test.probs.numpy(),
        validation_accuracy=accuracy(log_probs.numpy(), trust.evidence.labels.numpy()),
        temperature=temperature.value,
    )


def _check(
    acquired: Acquired, splits: Splits, trust: Trust, arms: Sequence[Arm]
) -> TrustCheck | None:
    # Where no arm used trust, nothing hangs on whether it holds.
    if acquired.test is None or not any(arm.objective.uses_trust for arm in arms):
        return None
    probs = acquired.test.probs
    correct = probs.argmax(dim=1).numpy() == splits.test.labels
    return trust_check(trust.free(probs).numpy(), correct, validation_rows=len(trust.correct))


def _deferral(
    config: DistillConfig, splits: Splits, acquired: Acquired, chosen: Arm, teacher: Teacher
) -> Deferral | None:
    if acquired.test is None:
        return None
    assert splits.validation.labels is not None
    assert splits.test.labels is not None
    rows = acquired.validation_rows
    # The worst price of a row, whether or not this run has paid it.
    sample = splits.test.take(np.arange(min(PRICED_ROWS, len(splits.test))))
    quote = teacher.quote(sample)
    return study(
        Split(
            _probs(chosen, chosen.validation_log_probs[torch.from_numpy(rows)]),
            acquired.validation.probs.numpy(),
            splits.validation.labels[rows],
        ),
        Split(
            _probs(chosen, chosen.test_log_probs), acquired.test.probs.numpy(), splits.test.labels
        ),
        price=quote.micros / sample.num_rows,
        currency=quote.currency,
        share=config.defer_share or None,
    )


def _decision(config: DistillConfig, splits: Splits, chosen: Arm) -> Decision | None:
    """The threshold by cost; without unequal costs the more probable class is named."""
    if not config.decision.unequal:
        return None
    assert splits.validation.labels is not None
    assert splits.test.labels is not None
    classes = splits.schema.classes
    positive = config.decision.positive or classes[1]
    place = classes.index(positive)
    return decision.study(
        decision.Sided.of(
            _probs(chosen, chosen.validation_log_probs), splits.validation.labels, place
        ),
        decision.Sided.of(_probs(chosen, chosen.test_log_probs), splits.test.labels, place),
        config.decision,
        positive=positive,
        seed=config.seed,
    )


def _probs(arm: Arm, log_probs: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    probs: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = (
        Temperature(arm.temperature).apply(log_probs).exp().numpy()
    )
    return probs


def _trust_view(trust: Trust, check: TrustCheck | None) -> TrustView:
    return TrustView(
        margins=trust.curve.knots,
        alpha=trust.curve.values,
        bins=bin_margins(trust.margins.numpy(), trust.correct.numpy()),
        lower=trust.lower,
        k=trust.evidence.k,
        check=check,
    )


def _cost(config: DistillConfig, acquired: Acquired, folder: RunFolder) -> Cost:
    spending = acquired.spending
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(
        bought=spending.answered,
        cached=acquired.cached,
        failed=spending.failed,
        unknown=spending.unknown,
        money=spending.money.micros,
        currency=spending.money.currency,
        budget_queries=config.budget,
        budget_money=round(config.money * 1e6) or None,
        minutes=folder.seconds() / 60,
        short=acquired.short,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    )


def _data_view(splits: Splits) -> DataView:
    count = splits.schema.num_classes
    views = []
    for name in ("labelled", "validation", "test", "pool"):
        rows = getattr(splits, name)
        labels = rows.labels
        per_class = () if labels is None else np.bincount(labels, minlength=count).tolist()
        views.append(SplitView(name, len(rows), tuple(per_class)))
    return DataView(
        splits=tuple(views),
        guesses=splits.notes,
        removed=tuple((name, n) for name, n in splits.found.items() if n),
    )


def _disagreements(
    splits: Splits,
    acquired: Acquired,
    trust: Trust,
    arms: Sequence[Arm],
    chosen: Arm,
    evaluation: Evaluation,
) -> tuple[Disagreement, ...]:
    by_name = {arm.name: arm for arm in arms}
    labels_only = by_name[evaluation.labels_arm]
    # A student from labels alone has nothing to disagree with itself: show the best distilled one.
    student = by_name[evaluation.candidate] if chosen.name == labels_only.name else chosen
    answers = None if acquired.test is None else acquired.test.probs
    assert splits.test.labels is not None
    scored = Scored(
        classes=splits.schema.classes,
        labels=splits.test.labels,
        student_probs=_probs(student, student.test_log_probs),
        labels_only_probs=_probs(labels_only, labels_only.test_log_probs),
        teacher_probs=None if answers is None else answers.numpy(),
        alpha=None if answers is None else trust.evidence.alpha(answers).numpy(),
    )
    inputs = splits.schema.inputs

    def text(row: int) -> str:
        return row_text(splits.test.take(np.array([row])).select(inputs).to_pylist()[0])

    return pick_disagreements(scored, text=text)


def _task(config: DistillConfig) -> str:
    return f"{config.data.labelled.name}, {config.budget:,} answers at most"


def _own_code(config: DistillConfig, chosen: Arm) -> dict[str, str]:
    """Hash of the user's own losses and network, where there are any: other code, other results."""
    network = chosen.student.encoder.to_config().get("source", "")
    own = [*own_sources(config), str(network)]
    return {"own code": settings_hash(own)} if any(own) else {}


def _environment(teacher: Teacher) -> dict[str, str]:
    packages = ("torch", "numpy", "accelerate", "pyarrow", "scikit-learn")
    return {
        "limbeck": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "teacher": teacher.fingerprint,
        **{name: importlib.metadata.version(name) for name in packages},
    }
