"""An evaluation of made-up arms whose numbers can be counted by hand."""

import json

import numpy as np
import pytest

from limbeck.distill.evaluate import ArmRun, TeacherRun, evaluate, from_dict, to_dict
from limbeck.errors import ConfigError, DataError, ShapeError
from limbeck.report.results import Evaluation

CLASSES = ("no", "yes")
N = 200
LABELS = np.arange(N) % 2


def right_on(rows: int, *, sure: float = 0.9) -> np.ndarray:
    """Log-probabilities of a model that is right on the first `rows` rows, float32, (N, 2)."""
    says = np.where(np.arange(N) < rows, LABELS, 1 - LABELS)
    probs = np.full((N, 2), 1 - sure)
    probs[np.arange(N), says] = sure
    return np.log(probs).astype(np.float32)


def arm(name: str, rows: int, **changes: object) -> ArmRun:
    kind = "labels" if name.startswith("labels") else "distilled"
    values: dict[str, object] = {
        "name": name,
        "title": name.replace("_", " "),
        "kind": kind,
        "test_log_probs": right_on(rows),
        "chosen": name == "slam_soft",
        "temperature": None if name == "labels_and_validation" else 1.0,
        "validation_accuracy": rows / N,
        "validation_nll": 0.5,
    }
    return ArmRun(**(values | changes))  # type: ignore[arg-type]


def run(*arms: ArmRun, teacher_right: int | None = 180) -> Evaluation:
    probs = None if teacher_right is None else np.exp(right_on(teacher_right))
    chosen = arms or (
        arm("labels", 140),
        arm("labels_and_validation", 150),
        arm("soft_kd", 160),
        arm("slam_soft", 170),
    )
    return evaluate(chosen, TeacherRun(probs), LABELS, CLASSES, generator=np.random.default_rng(0))


def test_accuracies_are_counted_and_lie_inside_their_intervals() -> None:
    result = run()
    assert [a.accuracy.estimate for a in result.arms] == [0.7, 0.75, 0.8, 0.85]
    assert result.teacher is not None
    assert result.teacher.accuracy.estimate == 0.9
    for a in result.arms:
        assert a.accuracy.low < a.accuracy.estimate < a.accuracy.high


def test_the_arm_to_beat_is_the_better_labels_only_arm() -> None:
    assert run().labels_arm == "labels_and_validation"


def test_the_share_of_the_teachers_gain_is_counted_from_the_arm_to_beat() -> None:
    assert run().gain_kept == pytest.approx((0.85 - 0.75) / (0.9 - 0.75))


def test_no_share_is_given_when_the_teacher_gains_nothing() -> None:
    assert run(teacher_right=151).gain_kept is None
    assert run(teacher_right=None).gain_kept is None


def test_every_pair_is_compared_and_turns_around() -> None:
    result = run()
    assert len(result.differences) == 5 * 4 // 2
    forward = result.difference("slam_soft", "labels")
    assert forward.estimate == pytest.approx(0.15)
    assert result.difference("labels", "slam_soft") == -forward
    assert result.difference("slam_soft", "teacher").estimate == pytest.approx(-0.05)


def test_a_paired_interval_is_narrower_than_two_separate_ones() -> None:
    result = run()  # the arms are right on nested sets of rows: strongly paired
    difference = result.difference("slam_soft", "soft_kd")
    apart = [result.arm(n).accuracy.half_width for n in ("slam_soft", "soft_kd")]
    assert difference.half_width < 0.75 * np.hypot(*apart)


def test_numbers_of_a_uniformly_sure_model_follow_from_its_sureness() -> None:
    slam = run().arm("slam_soft")
    assert slam.nll == pytest.approx(-0.85 * np.log(0.9) - 0.15 * np.log(0.1), rel=1e-5)
    assert slam.ece == pytest.approx(0.9 - 0.85, abs=1e-6)
    assert slam.brier == pytest.approx(0.85 * 2 * 0.01 + 0.15 * 2 * 0.81, rel=1e-5)
    assert slam.confusion == ((85, 15), (15, 85))
    assert slam.macro_f1 == pytest.approx(0.85)
    assert {(c.truth, c.predicted, c.count) for c in slam.confused} == {(0, 1, 15), (1, 0, 15)}


def test_rankings_of_two_classes_are_measured_with_paired_differences() -> None:
    result = run()
    assert (result.positive, result.positive_share) == ("yes", 0.5)
    # Half the pairs of an arm that is right on a share r of each class: r^2 won, 2 r (1 - r) tied.
    for a, r in zip(result.arms, (0.7, 0.75, 0.8, 0.85), strict=True):
        assert a.roc_auc is not None
        assert a.roc_auc.estimate == pytest.approx(r * r + r * (1 - r))
        assert a.average_precision == pytest.approx(r * r + (1 - r) * 0.5)
        assert a.roc == ((0.0, 0.0), pytest.approx((1 - r, r)), (1.0, 1.0))
        assert a.precision_recall == (pytest.approx((r, r)), (1.0, 0.5))
    assert len(result.roc_differences) == 5 * 4 // 2
    gap = result.roc_difference("slam_soft", "labels")
    assert gap.estimate == pytest.approx(0.15)
    assert gap == -result.roc_difference("labels", "slam_soft")


def test_the_other_class_as_the_positive_one_gives_the_mirrored_ranking() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(N, 2)) + np.eye(2)[LABELS]
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    arms = [arm("labels", 140), arm("slam_soft", 170, test_log_probs=logs)]
    found = {
        name: evaluate(
            arms,
            TeacherRun(None),
            LABELS,
            CLASSES,
            generator=np.random.default_rng(0),
            positive=name,
        )
        for name in CLASSES
    }
    one, other = (found[name].arm("slam_soft") for name in CLASSES)
    assert one.roc_auc is not None
    assert other.roc_auc is not None
    assert one.roc_auc.estimate == pytest.approx(other.roc_auc.estimate)
    assert one.average_precision != pytest.approx(other.average_precision)
    assert one.accuracy == other.accuracy


def test_probabilities_that_round_to_one_are_still_ranked() -> None:
    odds = np.where(LABELS == 1, 60.0, 50.0)  # both are 1.0 as float64 probabilities
    logs = np.stack([-odds, np.zeros(N)], axis=1).astype(np.float32)
    sure = run(arm("labels", 140), arm("slam_soft", 1, test_log_probs=logs)).arm("slam_soft")
    assert sure.roc_auc is not None
    assert sure.roc_auc.estimate == 1.0


def test_one_class_on_test_leaves_the_ranking_out() -> None:
    arms = [arm("labels", 140), arm("slam_soft", 170)]
    rng = np.random.default_rng(0)
    result = evaluate(arms, TeacherRun(None), np.zeros(N, int), CLASSES, generator=rng)
    assert result.positive is None
    assert result.roc_differences == ()
    assert result.arms[0].roc_auc is None
    with pytest.raises(ConfigError, match="were not compared"):
        result.roc_difference("labels", "slam_soft")


def test_an_evaluation_written_before_rankings_were_measured_is_still_read() -> None:
    old = to_dict(run())
    for name in ("positive", "positive_share", "roc_differences"):
        del old[name]
    for one in (*old["arms"], old["teacher"]):  # type: ignore[misc]
        for name in ("roc_auc", "average_precision", "roc", "precision_recall"):
            del one[name]
    assert from_dict(old).arms[0].roc_auc is None


def test_temperature_scaling_with_the_right_temperature_removes_the_calibration_error() -> None:
    # Sureness 0.9 becomes 0.85 at T = logit(0.9) / logit(0.85).
    temperature = np.log(9) / np.log(0.85 / 0.15)
    slam = run(arm("labels", 140), arm("slam_soft", 170, temperature=temperature)).arm("slam_soft")
    assert slam.ece > 0.04
    assert slam.ece_calibrated == pytest.approx(0.0, abs=1e-6)
    assert slam.nll_calibrated is not None
    assert slam.nll_calibrated < slam.nll


def test_an_arm_that_trained_on_validation_has_no_calibrated_numbers() -> None:
    both = run().arm("labels_and_validation")
    assert both.temperature is None
    assert both.ece_calibrated is None
    assert both.nll_calibrated is None
    assert both.reliability_calibrated == ()


def test_the_candidate_is_the_chosen_arm_or_else_the_best_distilled_one_on_validation() -> None:
    assert run().candidate == "slam_soft"
    chosen_labels = run(
        arm("labels", 140, chosen=True),
        arm("soft_kd", 150, validation_accuracy=0.9),
        arm("hard_kd", 170, validation_accuracy=0.8),
    )
    assert chosen_labels.candidate == "soft_kd"
    assert chosen_labels.shipped == "labels"


def test_a_perfect_arm_keeps_an_honest_interval() -> None:
    perfect = run(arm("labels", 140), arm("slam_soft", N)).arm("slam_soft").accuracy
    assert perfect.estimate == perfect.high == 1.0
    assert 0.97 < perfect.low < 1.0


def test_a_teacher_that_says_exactly_zero_is_measured() -> None:
    probs = np.eye(2)[1 - LABELS]
    result = evaluate(
        (arm("labels", 140), arm("slam_soft", 170)),
        TeacherRun(probs),
        LABELS,
        CLASSES,
        generator=np.random.default_rng(0),
    )
    assert result.teacher is not None
    assert result.teacher.nll == pytest.approx(100.0)


def test_many_classes_keep_the_frequent_mistakes_instead_of_the_table() -> None:
    c = 60
    labels = np.arange(N) % c
    logs = np.log(np.full((N, c), 0.1 / (c - 1)))
    logs[np.arange(N), (labels + 1) % c] = np.log(0.9)
    arms = [
        ArmRun("labels", "labels", "labels", logs),
        ArmRun("slam_soft", "slam", "distilled", logs, chosen=True),
    ]
    names = [f"c{i}" for i in range(c)]
    result = evaluate(arms, TeacherRun(None), labels, names, generator=np.random.default_rng(0))
    assert result.arm("labels").confusion == ()
    assert len(result.arm("labels").confused) == 20
    assert result.positive is result.arm("labels").roc_auc is None
    assert all(m.predicted == (m.truth + 1) % c for m in result.arm("labels").confused)


@pytest.mark.parametrize("teacher_right", [180, None])
def test_json_gives_the_same_evaluation_back(teacher_right: int | None) -> None:
    curve = ((10, 0.5, None, None), (20, 0.4, 0.6, 0.7))
    result = run(
        arm("labels", 140),
        arm("slam_soft", 170, curve=curve, settings={"k": 2, "lr": 1e-3, "target": "soft"}),
        teacher_right=teacher_right,
    )
    text = json.dumps(to_dict(result), allow_nan=False)
    assert from_dict(json.loads(text)) == result


def test_the_same_generator_gives_the_same_evaluation() -> None:
    assert run() == run()


def test_nan_is_refused_with_its_place() -> None:
    result = run(arm("labels", 140), arm("slam_soft", 170, validation_nll=float("nan")))
    with pytest.raises(DataError, match=r"evaluation\.arms\[1\]\.validation_nll is nan"):
        to_dict(result)


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ([arm("labels", 140, chosen=True)], "at least one labels-only arm and one distilled"),
        ([arm("soft_kd", 140), arm("slam_soft", 140)], "at least one labels-only arm"),
        ([arm("labels", 140), arm("soft_kd", 140)], "0 arms are chosen"),
        ([arm("labels", 1), arm("labels", 2), arm("slam_soft", 3)], "names must differ"),
    ],
)
def test_arms_that_leave_nothing_to_compare_are_refused(arms: list[ArmRun], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(*arms)


def test_an_arm_with_missing_rows_is_refused_by_name() -> None:
    short = arm("slam_soft", 170, test_log_probs=right_on(170)[:-1])
    with pytest.raises(ShapeError, match=r"slam_soft .*\(199, 2\).*\(200, 2\)"):
        run(arm("labels", 140), short)


def test_an_unknown_arm_is_refused_with_the_known_names() -> None:
    with pytest.raises(ConfigError, match=r"labels, .*teacher"):
        run().arm("slam")
    with pytest.raises(ConfigError, match="were not compared"):
        run().difference("labels", "labels")
