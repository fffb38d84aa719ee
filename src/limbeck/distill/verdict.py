"""What the evidence says, in words: ship it, labels are enough, stop buying, trust does not hold.

Every finding is a comparison on the same test rows whose 95% interval excludes 0. Several can be
true at once; all are told and one is the headline, in this order:

1. `ship`: the shipped student is distilled and significantly above every labels-only student.
   It comes first because it also answers the others: a poor teacher, or trust that is off, helped.
2. `stop_buying`: the teacher itself is significantly below the labels-only student.
3. `trust_mismatch`: trust fitted on validation does not hold on test, or SLaM is significantly
   below plain soft distillation. It comes before `labels_suffice` because it can be mended.
4. `labels_suffice`: nothing above; the answers have not bought a measurable gain. Only where the
   interval leaves no room for a gain of a point are labels alone called as good.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from limbeck.distill.evaluate import TEACHER, best_on_validation
from limbeck.errors import ShapeError
from limbeck.numerics.intervals import Interval
from limbeck.report.results import Evaluation, Finding, TrustCheck, Verdict, VerdictKind

__all__ = ["Finding", "TrustCheck", "Verdict", "trust_check", "verdict"]

NEGLIGIBLE = 0.01
"""A gain in accuracy below this is called none."""
UNSURE = "No gain from the answers could be measured"
FEW_ROWS = 500
"""Fewer test rows than this get a sentence about what they cannot show."""
_TITLES: dict[VerdictKind, str] = {
    "ship": "Ship the distilled student",
    "stop_buying": "Stop buying answers",
    "trust_mismatch": "Mend the trust before you decide",
    "labels_suffice": "Labels alone are as good",
}


def trust_check(alpha: ArrayLike, correct: ArrayLike, *, validation_rows: int) -> TrustCheck:
    """Compare trust with what the teacher really got right on test.

    Args:
        alpha: Trust of each test row, float, shape (n,), from a fit on validation **without a
            floor** (lower=0): a floor lifts the mean and would look like a mismatch.
        correct: Whether the teacher's top answer is right, bool, shape (n,).
        validation_rows: How many rows the trust was fitted on.

    Raises:
        ShapeError: the shapes differ or there are no rows.
    """
    trust, right = np.asarray(alpha, np.float64), np.asarray(correct, np.float64)
    n = len(right)
    if trust.shape != right.shape or trust.ndim != 1 or n == 0 or validation_rows < 1:
        raise ShapeError(
            f"a trust check needs alpha and correct of one shape (n,) and validation rows, got "
            f"{trust.shape}, {right.shape} and {validation_rows}; give one value a test row."
        )
    gap = float((trust - right).mean())
    # Two sources of luck: which rows are in test, and on which rows the trust was fitted.
    spread = (
        float((trust - right).var()) / n + float((trust * (1 - trust)).mean()) / validation_rows
    )
    reach = 1.96 * math.sqrt(spread)
    interval = Interval(gap, gap - reach, gap + reach)
    return TrustCheck(float(trust.mean()), float(right.mean()), interval, n, validation_rows)


def verdict(evaluation: Evaluation, trust: TrustCheck | None) -> Verdict:
    """Say what the evaluation shows.

    Args:
        evaluation: All arms on the test rows.
        trust: None when no arm used trust or the teacher was not asked about test rows.

    Returns:
        The headline is the finding that comes first in the order above.
    """
    gain = evaluation.difference(evaluation.candidate, evaluation.labels_arm)
    ship = _ship(evaluation, gain)
    findings = [
        *ship,
        *_stop_buying(evaluation, ships=bool(ship)),
        *_trust_off(trust),
        *_target_off(evaluation),
    ]
    if not ship:
        findings.append(_labels_suffice(evaluation, gain))
    head = findings[0]
    notes = [*_kept(evaluation), *_against_teacher(evaluation), *_few_rows(evaluation, gain)]
    return Verdict(
        kind=head.kind,
        title=head.title,
        sentences=(*(f.sentence for f in findings), *notes),
        findings=tuple(findings),
        evidence=_evidence(evaluation, gain, trust),
    )


def points(interval: Interval) -> str:
    """An interval of accuracy differences in words: '+2.1 points (95% interval +0.4 to +3.8)'."""
    # Adding 0.0 after rounding turns a minus zero into a plus.
    middle, low, high = (
        round(100 * x, 1) + 0.0 for x in (interval.estimate, interval.low, interval.high)
    )
    return f"{middle:+.1f} points (95% interval {low:+.1f} to {high:+.1f})"


def percent(interval: Interval) -> str:
    """A share in words: '91.2% (90.1 to 92.3)'."""
    low, high = 100 * interval.low, 100 * interval.high
    return f"{100 * interval.estimate:.1f}% ({low:.1f} to {high:.1f})"


def _ship(evaluation: Evaluation, gain: Interval) -> list[Finding]:
    rivals = [arm.name for arm in evaluation.arms if arm.kind == "labels"]
    gains = [evaluation.difference(evaluation.candidate, rival) for rival in rivals]
    if any(g.low <= 0 for g in gains) or evaluation.candidate != evaluation.shipped:
        return []
    student = evaluation.arm(evaluation.candidate)
    sentence = (
        f"{student.title} gets {percent(student.accuracy)} of {evaluation.rows:,} test rows right, "
        f"{points(gain)} above the best student trained on labels alone "
        f"({evaluation.arm(evaluation.labels_arm).title})."
    )
    return [Finding("ship", _TITLES["ship"], sentence)]


def _labels_suffice(evaluation: Evaluation, gain: Interval) -> Finding:
    student = evaluation.arm(evaluation.candidate)
    labels = evaluation.arm(evaluation.labels_arm)
    against = (
        f"the best student trained on labels alone ({labels.title}, {percent(labels.accuracy)})"
    )
    shipped = evaluation.arm(evaluation.shipped)
    title = _TITLES["labels_suffice"] if gain.high < NEGLIGIBLE else UNSURE
    if gain.low > 0:  # only when validation has chosen a labels-only student
        title = UNSURE
        sentence = (
            f"{student.title} is {points(gain)} above {against} on test, but validation preferred "
            f"{shipped.title}, which is what ships; more validation rows would let the better one "
            f"be chosen without looking at test."
        )
    else:
        outcome = "significantly worse" if gain.high < 0 else "not measurably better"
        sentence = (
            f"{student.title} is {outcome} than {against}: {points(gain)}. "
            f"{shipped.title} is what ships, because it was the best on validation; before you "
            f"buy more answers, label more rows, or use more test rows to see a smaller gain."
        )
    return Finding("labels_suffice", title, sentence)


def _stop_buying(evaluation: Evaluation, *, ships: bool) -> list[Finding]:
    if evaluation.teacher is None:
        return []
    gap = evaluation.difference(TEACHER, evaluation.labels_arm)
    if gap.high >= 0:
        return []
    labels = evaluation.arm(evaluation.labels_arm)
    advice = (
        "Its answers have helped all the same; look for a better teacher before you buy more."
        if ships
        else "Its answers cost money and know less than your labels."
    )
    sentence = (
        f"The teacher itself gets {percent(evaluation.teacher.accuracy)} of the test rows right, "
        f"{points(gap)} against {labels.title}. {advice}"
    )
    return [Finding("stop_buying", _TITLES["stop_buying"], sentence)]


def _trust_off(trust: TrustCheck | None) -> list[Finding]:
    if trust is None or trust.holds:
        return []
    more = trust.gap.estimate > 0
    cause = (
        "the teacher was trained on validation rows, or validation is easier than test"
        if more
        else "validation is harder than test, or comes from another source"
    )
    sentence = (
        f"Trust fitted on {trust.validation_rows:,} validation rows expects the teacher to be "
        f"right on {trust.mean_alpha:.1%} of the test rows, but it is right on "
        f"{trust.teacher_accuracy:.1%}: {points(trust.gap)} {'too high' if more else 'off'}. "
        f"Unless this is the one run in twenty where luck looks so, {cause}; cut both from one "
        f"file, away from the teacher's training rows."
    )
    return [Finding("trust_mismatch", _TITLES["trust_mismatch"], sentence)]


def _target_off(evaluation: Evaluation) -> list[Finding]:
    # A sum may be held back by its other part.
    mixing = [a for a in evaluation.arms if a.name.startswith("slam") and "+" not in a.name]
    if not mixing or all(a.name != "soft_kd" for a in evaluation.arms):
        return []
    slam = best_on_validation(mixing)
    gap = evaluation.difference(slam.name, "soft_kd")
    if gap.high >= 0:
        return []
    sentence = (
        f"{slam.title} is below plain soft distillation, {points(gap)}: the usual cause is a "
        f"teacher whose soft answers are too flat, which mixing flattens again; use hard targets, "
        f"or calibrate the teacher first."
    )
    return [Finding("trust_mismatch", _TITLES["trust_mismatch"], sentence)]


def _kept(evaluation: Evaluation) -> list[str]:
    if evaluation.gain_kept is None or evaluation.gain_kept <= 0:
        return []
    title = evaluation.arm(evaluation.candidate).title
    if evaluation.gain_kept > 1:
        return [
            f"On these rows {title} is no worse than the teacher, whose gain over the labels-only "
            f"student is significant."
        ]
    return [
        f"Of what the teacher knows beyond the labels-only student, {title} keeps "
        f"{evaluation.gain_kept:.0%}."
    ]


def _against_teacher(evaluation: Evaluation) -> list[str]:
    if evaluation.teacher is None:
        return [
            "The teacher was not asked about the test rows, so whether its answers are worth "
            "their price, and whether trust holds, cannot be said."
        ]
    gap = evaluation.difference(evaluation.candidate, TEACHER)
    student = evaluation.arm(evaluation.candidate)
    return [
        f"The teacher gets {percent(evaluation.teacher.accuracy)} right; against it, "
        f"{student.title} is at {points(gap)}."
    ]


def _few_rows(evaluation: Evaluation, gain: Interval) -> list[str]:
    if evaluation.rows >= FEW_ROWS or gain.half_width == 0:  # 0: the two agree on every row
        return []
    return [
        f"Test holds only {evaluation.rows} rows: a difference smaller than about "
        f"{100 * gain.half_width:.1f} points cannot be told from luck, so more test rows would "
        f"make this verdict firmer."
    ]


def _evidence(evaluation: Evaluation, gain: Interval, trust: TrustCheck | None) -> dict[str, float]:
    numbers = {
        "test_rows": float(evaluation.rows),
        "candidate_accuracy": evaluation.arm(evaluation.candidate).accuracy.estimate,
        "labels_accuracy": evaluation.arm(evaluation.labels_arm).accuracy.estimate,
        "gain": gain.estimate,
        "gain_low": gain.low,
        "gain_high": gain.high,
    }
    if evaluation.teacher is not None:
        numbers["teacher_accuracy"] = evaluation.teacher.accuracy.estimate
    if evaluation.gain_kept is not None:
        numbers["gain_kept"] = evaluation.gain_kept
    if trust is not None:
        numbers |= {"mean_alpha": trust.mean_alpha, "trust_gap": trust.gap.estimate}
    return numbers
