"""Each branch of the verdict, from evaluations in which the answer is plain."""

import numpy as np
import pytest

from limbeck.distill.evaluate import ArmRun, TeacherRun, evaluate
from limbeck.distill.verdict import trust_check, verdict
from limbeck.errors import ShapeError
from limbeck.report.results import Evaluation, TrustCheck


def result(
    *,
    n: int = 1_000,
    teacher: float | None = 0.9,
    chosen: str = "slam_soft",
    **accuracies: float,
) -> Evaluation:
    """Arms with given accuracies; who is right is drawn apart for each arm."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n)

    def probs(share: float) -> np.ndarray:
        wrong = rng.permutation(n) >= round(share * n)
        return np.eye(2)[np.where(wrong, 1 - labels, labels)] * 0.8 + 0.1

    arms = [
        ArmRun(
            name,
            name,
            "labels" if name.startswith("labels") else "distilled",
            np.log(probs(share)),
            chosen=name == chosen,
            temperature=1.0,
            validation_accuracy=share,
            validation_nll=0.3,
        )
        for name, share in accuracies.items()
    ]
    taught = TeacherRun(None if teacher is None else probs(teacher))
    return evaluate(arms, taught, labels, ("no", "yes"), generator=rng)


def trust(mean_alpha: float, accuracy: float, n: int = 1_000) -> TrustCheck:
    right = np.arange(n) < round(accuracy * n)
    return trust_check(np.full(n, mean_alpha), right, validation_rows=500)


def test_a_clear_gain_ships() -> None:
    found = verdict(result(labels=0.75, soft_kd=0.82, slam_soft=0.85), trust(0.9, 0.9))
    assert found.kind == "ship"
    assert [f.kind for f in found.findings] == ["ship"]
    assert "slam_soft gets 85.0%" in found.sentences[0]
    assert "+10.0 points (95% interval +" in found.sentences[0]
    assert found.evidence["gain"] == pytest.approx(0.1)
    assert found.evidence["gain_low"] > 0


def test_the_share_of_the_teachers_gain_and_the_teachers_accuracy_are_told() -> None:
    found = verdict(result(labels=0.7, slam_soft=0.85, teacher=0.9), None)
    text = " ".join(found.sentences)
    assert "keeps 75%" in text
    assert "The teacher gets 90.0%" in text


def test_no_clear_gain_means_labels_suffice() -> None:
    found = verdict(result(labels=0.80, slam_soft=0.805), trust(0.9, 0.9))
    assert found.kind == "labels_suffice"
    assert "not measurably better" in found.sentences[0]
    assert "95% interval -" in found.sentences[0]


def test_a_clear_loss_says_so() -> None:
    found = verdict(result(labels=0.85, slam_soft=0.75), None)
    assert found.kind == "labels_suffice"
    assert "significantly worse" in found.sentences[0]


def test_a_teacher_below_the_labels_only_student_means_stop_buying() -> None:
    found = verdict(result(labels=0.85, slam_soft=0.84, teacher=0.6), None)
    assert found.kind == "stop_buying"
    assert [f.kind for f in found.findings] == ["stop_buying", "labels_suffice"]
    assert "60.0%" in found.sentences[0]
    assert "know less than your labels" in found.sentences[0]


def test_a_poor_teacher_whose_answers_helped_still_ships_and_both_are_told() -> None:
    found = verdict(result(labels=0.80, slam_soft=0.88, teacher=0.6), None)
    assert found.kind == "ship"
    assert [f.kind for f in found.findings] == ["ship", "stop_buying"]
    assert "helped all the same" in found.sentences[1]


def test_trust_that_is_too_high_on_test_is_told_with_its_likely_cause() -> None:
    found = verdict(result(labels=0.80, slam_soft=0.80), trust(1.0, 0.9))
    assert found.kind == "trust_mismatch"
    assert "trained on validation rows" in found.sentences[0]
    assert "100.0%" in found.sentences[0]
    assert "90.0%" in found.sentences[0]
    assert [f.kind for f in found.findings] == ["trust_mismatch", "labels_suffice"]


def test_trust_that_is_too_low_names_another_cause() -> None:
    found = verdict(result(labels=0.80, slam_soft=0.80), trust(0.7, 0.9))
    assert found.kind == "trust_mismatch"
    assert "another source" in found.sentences[0]


def test_slam_below_soft_distillation_is_a_target_mismatch() -> None:
    found = verdict(result(labels=0.80, soft_kd=0.84, slam_soft=0.70, slam_hard=0.6), None)
    assert found.kind == "trust_mismatch"
    assert "hard targets" in found.sentences[0]


def test_the_slam_arm_that_validation_prefers_is_the_one_compared() -> None:
    found = verdict(
        result(labels=0.70, soft_kd=0.80, slam_soft=0.60, slam_hard=0.85, chosen="slam_hard"), None
    )
    assert [f.kind for f in found.findings] == ["ship"]


def test_stop_buying_comes_before_a_trust_mismatch() -> None:
    found = verdict(result(labels=0.85, slam_soft=0.84, teacher=0.6), trust(0.9, 0.6))
    assert [f.kind for f in found.findings] == ["stop_buying", "trust_mismatch", "labels_suffice"]


def test_ship_comes_before_a_trust_mismatch_which_stays_on_the_list() -> None:
    found = verdict(result(labels=0.70, slam_soft=0.85), trust(1.0, 0.9))
    assert [f.kind for f in found.findings] == ["ship", "trust_mismatch"]


def test_a_labels_only_student_that_ships_is_never_called_distilled() -> None:
    found = verdict(result(labels=0.70, slam_soft=0.85, chosen="labels"), None)
    assert found.kind == "labels_suffice"
    assert "validation preferred labels" in found.sentences[0]


def test_a_teacher_that_was_not_asked_on_test_is_not_judged() -> None:
    found = verdict(result(labels=0.85, slam_soft=0.80, teacher=None), None)
    assert "not asked about the test rows" in " ".join(found.sentences)
    assert "teacher_accuracy" not in found.evidence


def test_few_test_rows_are_admitted_with_what_they_can_resolve() -> None:
    few = verdict(result(n=100, labels=0.8, slam_soft=0.82), None)
    many = verdict(result(n=1_000, labels=0.8, slam_soft=0.82), None)
    assert "only 100 rows" in few.sentences[-1]
    assert not any("only" in s and "rows:" in s for s in many.sentences)


def test_a_sound_trust_check_stays_quiet_95_times_in_100() -> None:
    rng, quiet = np.random.default_rng(1), 0
    for _ in range(400):
        # The fit on validation gives each half of the margins its own validation accuracy.
        truth, half = np.array([0.6, 0.95]), rng.integers(0, 2, 400)
        seen, unseen = half[:200], half[200:]
        right = rng.random(400) < truth[half]
        fitted = np.array([right[:200][seen == h].mean() for h in (0, 1)])
        check = trust_check(fitted[unseen], right[200:], validation_rows=200)
        quiet += check.holds
    assert 0.91 <= quiet / 400 <= 0.99


def test_a_trust_check_needs_one_alpha_a_row() -> None:
    with pytest.raises(ShapeError, match=r"\(3,\).*\(4,\)"):
        trust_check(np.ones(3), np.ones(4), validation_rows=10)
