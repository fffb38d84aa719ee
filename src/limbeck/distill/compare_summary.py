"""The arithmetic of a comparison: from finished runs to intervals and sentences.

Everything is paired by seed: in one seed all arms see the same rows, start from the same weights
and read the pool in the same order, so their difference is steadier than each of them.
"""

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from limbeck.errors import ConfigError
from limbeck.numerics.intervals import Interval, paired_t
from limbeck.numerics.significance import LEVEL, POWER, holm, paired_p, seeds_needed
from limbeck.report.comparison import (
    SEEDS_TO_CLAIM,
    ArmOverSeeds,
    Comparison,
    PairOverSeeds,
    SeedRun,
)
from limbeck.report.record import RunRecord
from limbeck.report.results import ArmResult

RESOLUTION = 0.01
"""Difference in accuracy that the sentence about the seeds needed speaks of."""
CROSS_VALIDATED = "labels_and_validation"
"""The arm whose last step cross-validation chooses; its schedule is that of all arms."""
_SAME_EVERYWHERE = ("limbeck", "torch", "system")
_PER_MACHINE = ("threads", "cores", "teacher")


def summarise(
    records: Mapping[int, RunRecord],
    *,
    title: str,
    baseline: str,
    config_toml: str,
    pool_rows: Mapping[int, int | None],
    failed: Mapping[int, str],
    notes: Sequence[str] = (),
) -> Comparison:
    """Compare arms over seeds.

    Args:
        records: Finished runs by seed, two or more, all with the same arms.
        title: Of the page.
        baseline: Arm to compare with.
        config_toml: Settings that all seeds share.
        pool_rows: Pool rows that each seed could learn from.
        failed: Why other seeds are missing.
        notes: What else the reader must know.

    Raises:
        ConfigError: fewer than two runs, arms that differ, or arms that took unequal steps.
    """
    _check(records, baseline)
    runs = [records[seed] for seed in sorted(records)]
    steps = {seed: steps_of_run(records[seed], seed) for seed in records}
    arms = tuple(
        _over_seeds([run.evaluation.arm(arm.name) for run in runs]) for arm in first_arms(runs)
    )
    labels_arm = _labels_arm(arms)
    pairs = _pairs(runs, arms, baseline, labels_arm)
    taught = [run.evaluation.teacher for run in runs]
    teachers = [teacher for teacher in taught if teacher is not None]
    return Comparison(
        title=title,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        baseline=baseline,
        labels_arm=labels_arm,
        runs=tuple(
            _seed_run(seed, records[seed], steps[seed], pool_rows.get(seed))
            for seed in sorted(records)
        ),
        failed={str(seed): failed[seed] for seed in sorted(failed)},
        arms=arms,
        teacher=_over_seeds(teachers) if len(teachers) == len(runs) else None,
        pairs=pairs,
        needed=_needed(pairs, arms, len(runs)),
        notes=(*_notes(runs, pairs, steps, pool_rows), *notes),
        currency=next((run.cost.currency for run in runs if run.cost is not None), "USD"),
        config_toml=config_toml,
        environment={
            name: value
            for name, value in runs[0].environment.items()
            if name not in _PER_MACHINE or len({run.environment.get(name) for run in runs}) == 1
        },
    )


def steps_of_run(record: RunRecord, seed: int) -> int:
    """Gradient steps of every arm of a run.

    The arm that trains on validation rows too has no rows left to stop on: it follows the same
    schedule up to the step that cross-validation chose, so it may end earlier but never later.

    Raises:
        ConfigError: the arms took unequal steps.
    """
    steps = {arm.name: arm.steps for arm in record.evaluation.arms if arm.steps is not None}
    early = steps.pop(CROSS_VALIDATED, None)
    if len(set(steps.values())) != 1 or (early or 0) > max(steps.values()):
        told = dict(steps) if early is None else {**steps, CROSS_VALIDATED: early}
        raise ConfigError(
            f"seed {seed} trained its arms for unequal steps "
            f"({', '.join(f'{name} {n}' for name, n in told.items())}), so their difference would "
            f"be one of training time; delete its folder and run the comparison again."
        )
    return next(iter(steps.values()))


def first_arms(runs: Sequence[RunRecord]) -> tuple[ArmResult, ...]:
    """The arms, in the order of the run file."""
    return runs[0].evaluation.arms


def _check(records: Mapping[int, RunRecord], baseline: str) -> None:
    if len(records) < 2:
        raise ConfigError(
            f"{len(records)} seeds have finished; a comparison needs at least 2, since one run "
            f"cannot tell an arm from its luck."
        )
    names = {seed: tuple(arm.name for arm in r.evaluation.arms) for seed, r in records.items()}
    if len(set(names.values())) > 1:
        told = "; ".join(f"seed {seed}: {', '.join(arms)}" for seed, arms in names.items())
        raise ConfigError(f"the seeds hold different arms ({told}); choose another folder.")
    arms = next(iter(names.values()))
    if baseline not in arms:
        raise ConfigError(f"baseline={baseline!r} is none of the arms {', '.join(arms)}.")


def _over_seeds(results: Sequence[ArmResult]) -> ArmOverSeeds:
    first = results[0]
    seconds = [arm.seconds for arm in results if arm.seconds is not None]
    held_out = [arm.validation_accuracy for arm in results if arm.validation_accuracy is not None]
    return ArmOverSeeds(
        name=first.name,
        title=first.title,
        kind=first.kind,
        accuracy=paired_t(_accuracies(results)),
        macro_f1=paired_t(_f1s(results)),
        nll=paired_t(_losses(results)),
        minutes=paired_t(np.array(seconds) / 60) if len(seconds) == len(results) else None,
        validation_accuracy=float(np.mean(held_out)) if len(held_out) == len(results) else None,
        by_seed=tuple(_accuracies(results).tolist()),
    )


def _accuracies(results: Sequence[ArmResult]) -> NDArray[np.float64]:
    return np.array([arm.accuracy.estimate for arm in results])


def _f1s(results: Sequence[ArmResult]) -> NDArray[np.float64]:
    return np.array([arm.macro_f1 for arm in results])


def _losses(results: Sequence[ArmResult]) -> NDArray[np.float64]:
    """NLL after temperature scaling, which is how a student is exported."""
    return np.array([a.nll if a.nll_calibrated is None else a.nll_calibrated for a in results])


def _labels_arm(arms: Sequence[ArmOverSeeds]) -> str:
    """Chosen on validation: the best of two on test would be a little too good."""
    labels = [arm for arm in arms if arm.kind == "labels"]
    return max(labels, key=lambda arm: arm.validation_accuracy or 0.0).name


def _pairs(
    runs: Sequence[RunRecord], arms: Sequence[ArmOverSeeds], baseline: str, labels_arm: str
) -> tuple[PairOverSeeds, ...]:
    wanted = [(arm.name, baseline) for arm in arms if arm.name != baseline]
    wanted += [
        (arm.name, labels_arm)
        for arm in arms
        if arm.kind == "distilled" and baseline not in (arm.name, labels_arm)
    ]
    results = {arm.name: [run.evaluation.arm(arm.name) for run in runs] for arm in arms}
    titles = {arm.name: arm.title for arm in arms}
    p_values = [
        paired_p(_accuracies(results[first]) - _accuracies(results[second]))
        for first, second in wanted
    ]
    adjusted = holm(p_values)
    pairs = []
    for (first, second), p, p_holm in zip(wanted, p_values, adjusted, strict=True):
        a, b = results[first], results[second]
        differences = _accuracies(a) - _accuracies(b)
        interval = paired_t(differences)
        significant = len(runs) >= SEEDS_TO_CLAIM and interval.excludes_zero
        pairs.append(
            PairOverSeeds(
                first=first,
                second=second,
                accuracy=interval,
                macro_f1=paired_t(_f1s(a) - _f1s(b)),
                nll=paired_t(_losses(a) - _losses(b)),
                deviation=float(differences.std(ddof=1)),
                by_seed=tuple(differences.tolist()),
                p=p,
                p_holm=p_holm,
                significant=significant,
                sentence=_sentence(
                    titles[first], titles[second], interval, len(runs), len(wanted), p_holm
                ),
            )
        )
    return tuple(pairs)


def _sentence(
    first: str, second: str, interval: Interval, seeds: int, pairs: int, p_holm: float
) -> str:
    """What a pair says, in plain words."""
    # Adding 0.0 after rounding turns a minus zero into a plus.
    middle, low, high = (
        round(100 * x, 1) + 0.0 for x in (interval.estimate, interval.low, interval.high)
    )
    span = f"95% interval {low:+.1f} to {high:+.1f}"
    if seeds < SEEDS_TO_CLAIM:
        return (
            f"{first} is at {middle:+.1f} points against {second} ({span}); with {seeds} seeds "
            f"nothing is claimed."
        )
    if not interval.excludes_zero:
        return f"{first} and {second} cannot be told apart: {middle:+.1f} points ({span})."
    better = interval.estimate > 0
    sentence = (
        f"{first} is {abs(middle):.1f} points {'above' if better else 'below'} {second} ({span}): "
        f"{'better' if better else 'worse'}"
    )
    if p_holm >= LEVEL:
        return (
            f"{sentence}, taken alone; as one of {pairs} comparisons it may be luck (p after "
            f"Holm's correction {p_holm:.2f})."
        )
    return f"{sentence}."


def _needed(pairs: Sequence[PairOverSeeds], arms: Sequence[ArmOverSeeds], seeds: int) -> str:
    widest = max(pairs, key=lambda pair: pair.deviation)
    titles = {arm.name: arm.title for arm in arms}
    who = f"{titles[widest.first]} against {titles[widest.second]}"
    count = seeds_needed(widest.deviation, RESOLUTION, least=SEEDS_TO_CLAIM)
    what = "more than 10,000 seeds" if count is None else f"about {count:,} seeds"
    return (
        f"The differences of the pair that varies most ({who}) have a standard deviation of "
        f"{100 * widest.deviation:.2f} points over {seeds} seeds: a true difference of "
        f"{100 * RESOLUTION:.0f} point would be found in {POWER:.0%} of such comparisons with "
        f"{what}."
    )


def _notes(
    runs: Sequence[RunRecord],
    pairs: Sequence[PairOverSeeds],
    steps: Mapping[int, int],
    pool_rows: Mapping[int, int | None],
) -> list[str]:
    notes = []
    if len(runs) < SEEDS_TO_CLAIM:
        notes.append(
            f"{len(runs)} seeds are too few to call anything better or worse; run at least "
            f"{SEEDS_TO_CLAIM}."
        )
    if len(pairs) > 1:
        notes.append(
            f"{len(pairs)} pairs were compared, so one in {round(1 / LEVEL)} of those without a "
            f"difference will look like one; compare.json also holds p-values after Holm's "
            f"correction, which allows for that."
        )
    if any(arm.name == CROSS_VALIDATED for arm in first_arms(runs)):
        notes.append(
            f"The arm {CROSS_VALIDATED} follows the schedule of all arms, but stops at the step "
            f"that cross-validation chose: its own validation rows are among its training rows."
        )
    rows = [count for seed in steps if (count := pool_rows.get(seed)) is not None]
    for what, counts in (("gradient steps", list(steps.values())), ("pool rows", rows)):
        if len(set(counts)) > 1:
            notes.append(
                f"The seeds differ in {what} ({min(counts):,} to {max(counts):,}); within a seed "
                f"all arms have the same."
            )
    for name in _SAME_EVERYWHERE:
        values = dict.fromkeys(run.environment.get(name, "?") for run in runs)
        if len(values) > 1:
            notes.append(f"The seeds ran with different {name}: {', '.join(values)}.")
    return notes


def _seed_run(seed: int, record: RunRecord, steps: int, pool_rows: int | None) -> SeedRun:
    cost = record.cost
    return SeedRun(
        seed=seed,
        test_rows=record.evaluation.rows,
        pool_rows=pool_rows,
        steps=steps,
        bought=0 if cost is None else cost.bought,
        cached=0 if cost is None else cost.cached,
        money=0 if cost is None else cost.money,
        minutes=0.0 if cost is None else cost.minutes,
        shipped=record.evaluation.shipped,
        verdict=record.verdict.title,
    )


def differing_teachers(records: Mapping[int, RunRecord]) -> tuple[int, int] | None:
    """Two seeds that asked different teachers, or None."""
    asked = [(seed, r.environment.get("teacher", "")) for seed, r in sorted(records.items())]
    for (a, one), (b, other) in itertools.pairwise(asked):
        if one != other:
            return a, b
    return None
