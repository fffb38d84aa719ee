"""The arithmetic of a comparison, on hand-made metrics, against scipy."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import stats

from limbeck.distill.compare_summary import summarise
from limbeck.errors import ConfigError
from limbeck.numerics.intervals import Interval
from limbeck.report.comparison import Comparison
from limbeck.report.record import RunRecord
from tests.report.factory import make_record

ARMS = ("labels", "labels_and_validation", "hard_kd", "soft_kd")
# Test accuracies: a row a seed, a column an arm, the teacher last.
TABLE = np.array(
    [
        [0.800, 0.810, 0.842, 0.850, 0.90],
        [0.790, 0.800, 0.829, 0.845, 0.90],
        [0.810, 0.830, 0.851, 0.855, 0.90],
        [0.795, 0.815, 0.834, 0.848, 0.90],
        [0.805, 0.800, 0.848, 0.852, 0.90],
    ]
)


@cache
def _record() -> RunRecord:
    return make_record(rows=200)


def run(
    row: np.ndarray, *, steps: dict[str, int] | None = None, teacher: bool = True, **changes: object
) -> RunRecord:
    """A finished run with these test accuracies; macro-F1 is a tenth lower, NLL 1 - accuracy."""
    record = _record()
    arms = tuple(
        replace(
            record.evaluation.arm(name),
            accuracy=Interval(float(x), float(x) - 0.01, float(x) + 0.01),
            macro_f1=float(x) - 0.1,
            nll_calibrated=1 - float(x),
            seconds=60 * float(x),
            steps=(steps or {}).get(name, 100 if name == "labels_and_validation" else 300),
        )
        for name, x in zip(ARMS, row, strict=False)
    )
    taught = replace(
        record.evaluation.teacher, accuracy=Interval(float(row[-1]), 0.0, 1.0), name="teacher"
    )
    evaluation = replace(
        record.evaluation, arms=arms, teacher=taught if teacher else None, shipped="soft_kd"
    )
    return replace(record, evaluation=evaluation, **changes)


def compared(table: np.ndarray = TABLE, *, baseline: str = "hard_kd", **options: object):
    records = {seed: run(row) for seed, row in enumerate(table)}
    return summarise(
        records,
        title="Rows",
        baseline=baseline,
        config_toml="",
        pool_rows=dict.fromkeys(records, 80),
        failed={},
        **options,
    )


def test_means_and_intervals_are_those_of_scipy():
    found = compared()
    for i, arm in enumerate(found.arms):
        x = TABLE[:, i]
        low, high = stats.t.interval(0.95, len(x) - 1, x.mean(), stats.sem(x))
        for interval, shift, sign in (
            (arm.accuracy, 0.0, 1), (arm.macro_f1, -0.1, 1), (arm.minutes, 0.0, 1),
        ):  # fmt: skip
            assert interval.estimate == pytest.approx(sign * x.mean() + shift)
            assert (interval.low, interval.high) == pytest.approx((low + shift, high + shift))
        assert (arm.nll.low, arm.nll.high) == pytest.approx((1 - high, 1 - low))
        assert arm.by_seed == pytest.approx(tuple(x))


def test_pairs_are_compared_by_seed_as_a_paired_t_test_does():
    found = compared()
    columns = {name: TABLE[:, i] for i, name in enumerate(ARMS)}
    for pair in found.pairs:
        a, b = columns[pair.first], columns[pair.second]
        test = stats.ttest_rel(a, b)
        low, high = test.confidence_interval(0.95)
        assert pair.accuracy.estimate == pytest.approx((a - b).mean())
        assert (pair.accuracy.low, pair.accuracy.high) == pytest.approx((low, high))
        assert pair.p == pytest.approx(test.pvalue)
        assert pair.deviation == pytest.approx(np.std(a - b, ddof=1))
        assert pair.macro_f1.estimate == pytest.approx((a - b).mean())
        assert pair.nll.estimate == pytest.approx((b - a).mean())
        assert pair.significant == (test.pvalue < 0.05)


def test_every_arm_meets_the_baseline_and_distilled_arms_meet_the_best_from_labels():
    found = compared()
    assert found.labels_arm in ("labels", "labels_and_validation")
    assert [(p.first, p.second) for p in found.pairs] == [
        ("labels", "hard_kd"),
        ("labels_and_validation", "hard_kd"),
        ("soft_kd", "hard_kd"),
        ("soft_kd", found.labels_arm),
    ]
    # Against labels alone every distilled arm has been compared already.
    again = compared(baseline=found.labels_arm)
    assert len(again.pairs) == 3
    assert {p.second for p in again.pairs} == {found.labels_arm}


def test_the_best_from_labels_is_chosen_on_validation_not_on_test():
    records = {}
    for seed, row in enumerate(TABLE):
        record = run(row)
        arms = tuple(
            replace(arm, validation_accuracy=0.9 if arm.name == "labels" else 0.7)
            for arm in record.evaluation.arms
        )
        records[seed] = replace(record, evaluation=replace(record.evaluation, arms=arms))
    found = summarise(
        records, title="", baseline="soft_kd", config_toml="", pool_rows={}, failed={}
    )
    assert found.labels_arm == "labels"  # though it is the worse of the two on test


def test_sentences_say_better_worse_or_cannot_be_told_apart():
    found = compared()
    told = {(p.first, p.second): p.sentence for p in found.pairs}
    gap = 100 * (TABLE[:, 3] - TABLE[:, 2]).mean()
    assert told["soft_kd", "hard_kd"].startswith(
        f"Soft distillation is {gap:.1f} points above Hard distillation (95% interval +"
    )
    assert ": better" in told["soft_kd", "hard_kd"]
    assert ": worse" in told["labels", "hard_kd"]
    noisy = TABLE.copy()
    noisy[:, 3] = TABLE[:, 2] + np.array([0.02, -0.02, 0.01, -0.01, 0.002])
    pair = compared(noisy).against("soft_kd", "hard_kd")
    assert "cannot be told apart: +0.0 points" in pair.sentence
    assert not pair.significant


def test_what_does_not_survive_the_number_of_comparisons_is_told():
    table = TABLE.copy()
    # p is 0.038: enough for one test, and not where two other pairs show less than that.
    table[:, 3] = TABLE[:, 2] + np.array([0.012, 0.002, 0.009, 0.001, 0.010])
    table[:, 1] = TABLE[:, 2] + np.array([0.01, -0.01, 0.01, -0.01, 0.002])
    pair = compared(table).against("soft_kd", "hard_kd")
    assert pair.p < 0.05
    assert pair.p_holm == pytest.approx(3 * pair.p)
    assert pair.significant
    assert "as one of 4 comparisons it may be luck" in pair.sentence


def test_with_fewer_than_five_seeds_nothing_is_claimed():
    found = compared(TABLE[:4])
    assert all(p.accuracy.excludes_zero for p in found.pairs)
    assert not any(p.significant for p in found.pairs)
    assert all("with 4 seeds nothing is claimed" in p.sentence for p in found.pairs)
    assert any("too few" in note for note in found.notes)
    assert not any("too few" in note for note in compared().notes)


def test_the_number_of_pairs_and_the_seeds_needed_are_told():
    found = compared()
    assert any(note.startswith("4 pairs were compared") for note in found.notes)
    widest = max(found.pairs, key=lambda p: p.deviation)
    assert f"{100 * widest.deviation:.2f} points over 5 seeds" in found.needed
    # A t-test needs deviation / sqrt(n) well below a point: solved with scipy's noncentral t.
    n = next(
        n
        for n in range(5, 999)
        if stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, 0.01 / widest.deviation * n**0.5) >= 0.8
    )
    assert f"80% of such comparisons with about {n} seeds" in found.needed


def test_the_teacher_has_a_row_only_where_every_seed_asked_it():
    assert compared().teacher.accuracy == Interval(pytest.approx(0.9), 0.9, 0.9)
    records = {seed: run(row, teacher=seed != 2) for seed, row in enumerate(TABLE)}
    found = summarise(records, title="", baseline="labels", config_toml="", pool_rows={}, failed={})
    assert found.teacher is None


def test_a_comparison_survives_json():
    found = compared(notes=["a note"])
    assert Comparison.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(
    "steps", [{"hard_kd": 200}, {"labels_and_validation": 301}, {"labels": 299}]
)
def test_arms_that_took_unequal_steps_are_refused(steps):
    records = {0: run(TABLE[0]), 1: run(TABLE[1], steps=steps)}
    with pytest.raises(ConfigError, match=r"seed 1 trained its arms for unequal steps .*delete"):
        summarise(records, title="", baseline="labels", config_toml="", pool_rows={}, failed={})


def test_the_arm_whose_steps_are_cross_validated_may_end_early_and_this_is_told():
    found = compared()
    assert {r.steps for r in found.runs} == {300}
    assert any("stops at the step that cross-validation chose" in note for note in found.notes)


def test_one_seed_and_differing_arms_are_refused():
    with pytest.raises(ConfigError, match="needs at least 2"):
        compared(TABLE[:1])
    other = run(TABLE[1])
    fewer = replace(other.evaluation, arms=other.evaluation.arms[:-1])
    records = {0: run(TABLE[0]), 1: replace(other, evaluation=fewer)}
    with pytest.raises(ConfigError, match="hold different arms"):
        summarise(records, title="", baseline="labels", config_toml="", pool_rows={}, failed={})


def test_seeds_that_differ_in_rows_steps_or_versions_are_told():
    records = {
        0: run(TABLE[0], environment={"torch": "2.13.0", "limbeck": "1", "system": "x"}),
        1: run(
            TABLE[1],
            steps=dict.fromkeys(ARMS, 310),
            environment={"torch": "2.14.0", "limbeck": "1", "system": "x"},
        ),
    }
    found = summarise(
        records, title="", baseline="labels", config_toml="", pool_rows={0: 80, 1: 78}, failed={}
    )
    notes = " ".join(found.notes)
    assert "differ in gradient steps (300 to 310)" in notes
    assert "differ in pool rows (78 to 80)" in notes
    assert "different torch: 2.13.0, 2.14.0" in notes
