"""The loop against the slowest thing that could be meant by it, and against itself when stopped."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from accelerate import Accelerator

from limbeck.answers import Answers
from limbeck.data.schema import Schema
from limbeck.distill.batches import EndlessPermutation
from limbeck.distill.config import TrainConfig
from limbeck.distill.job import Job, Labelled
from limbeck.distill.loop import learning_rate, predict, refresh_steps, train
from limbeck.distill.views import Stacked, Subset, folds, stack, subset
from limbeck.errors import ConfigError
from limbeck.objectives import (
    Combined,
    Evidence,
    HardKD,
    Slam,
    SoftKD,
    Supervised,
    Targets,
    Weighted,
    slam_loss,
)
from limbeck.objectives.base import Objective
from limbeck.students import MemoryStore, Store, build, settings_of
from limbeck.trust import NeighbourTrust

SCHEMA = Schema((), ("a", "b", "c"), (), "y", ("no", "yes"))


def rows(n, seed):
    x = np.random.default_rng(seed).normal(size=(n, 3))
    batch = pa.RecordBatch.from_arrays([pa.array(x[:, i]) for i in range(3)], names=["a", "b", "c"])
    return batch, torch.from_numpy((x[:, 0] > 0.3).astype(np.int64))


@dataclass
class Taught:
    """A pool whose answers are known."""

    store: Store
    probs: torch.Tensor
    objective: Objective

    def __len__(self):
        return len(self.store)

    @property
    def encoded(self):
        return self.store

    def answers(self, positions):
        ids = np.zeros((len(positions), 16), np.uint8)
        return Answers(ids, self.probs[torch.from_numpy(positions)])

    def take(self, positions):
        return self.store.take(positions), self.objective.targets(self.answers(positions))


def make_job(*, steps=12, patience=0, dropout=0.5, pool=True, held_out=True, stop_at=None):
    batch, _ = rows(40, 0)
    student = build(
        "tabular",
        settings_of("tabular", {"hidden": 8, "dropout": dropout}),
        SCHEMA,
        [batch],
        2,
        torch.Generator().manual_seed(0),
    )

    def labelled(n, seed):
        b, y = rows(n, seed)
        return Labelled(MemoryStore.build(student.encoder, [b]), y)

    pool_batch, truth = rows(30, 3)
    probs = torch.nn.functional.one_hot(truth, 2).float() * 0.8 + 0.1
    objective = SoftKD() if pool else Supervised()
    taught = Taught(MemoryStore.build(student.encoder, [pool_batch]), probs, objective)
    return Job(
        name="test",
        student=student,
        objective=objective,
        labelled=labelled(20, 1),
        pool=taught if pool else None,
        held_out=labelled(25, 2) if held_out else None,
        train=TrainConfig(pool_batch=8, labelled_batch=4, evaluations=4, patience=patience),
        steps=steps,
        stop_at=stop_at or steps,
        learning_rate=0.01,
        seed=5,
    )


class Feature(Objective):
    """Squared distance of the projected embedding from the teacher's probabilities times ten."""

    name = "feature"

    def __init__(self):
        g = torch.Generator().manual_seed(1)
        self.projector = torch.nn.Parameter(torch.randn(8, 2, generator=g))
        self.offset = torch.nn.Parameter(torch.zeros(2))

    def fit(self, answers, evidence):
        return self

    def targets(self, answers):
        return Targets({"logits": 10 * answers.probs})

    def loss(self, out, targets, labels):
        if targets is None:
            return self.label_loss(out, labels)
        return (out.embedding @ self.projector + self.offset - targets["logits"]).square().sum(1)

    def parameters(self):
        return iter([self.projector, self.offset])

    def state_dict(self):
        return {"projector": self.projector.data, "offset": self.offset.data}

    def load_state_dict(self, state):
        self.projector.data.copy_(state["projector"])
        self.offset.data.copy_(state["offset"])


def with_feature(job):
    """The same job with SLaM and a loss over embeddings, whose parameters are trained with it."""
    told = Evidence(job.pool.probs, job.labelled.labels, lambda p: p.max(dim=1).values, 2)
    objective = Combined(Slam(target="hard"), Feature(), weight=0.5).fit([], told)
    return replace(job, objective=objective, pool=replace(job.pool, objective=objective))


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


def weights(job):
    return {k: v.clone() for k, v in job.student.module.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def nothing(step, point):
    pass


@pytest.mark.parametrize("weight", [1.0, 0.3, 0.0])
def test_it_takes_the_steps_that_a_bare_loop_would_take(accelerator, tmp_path, weight):
    job = make_job(dropout=0.0, held_out=False)
    job = replace(job, train=replace(job.train, labelled_weight=weight))
    alone = replace(job, student=copy.deepcopy(job.student), labelled=None)
    module = copy.deepcopy(job.student.module)
    vectors = [p for p in module.parameters() if p.ndim <= 1]
    matrices = [p for p in module.parameters() if p.ndim > 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": job.train.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=1.0,
    )
    pool, labelled = EndlessPermutation(30, 8, 10), EndlessPermutation(20, 4, 11)
    encoder = job.student.encoder
    for step in range(12):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(job, step)
        p, a = pool.rows(step), labelled.rows(step)
        z = module(encoder.collate(job.pool.store.take(p))).outputs
        taught = -(job.pool.probs[p] * torch.log_softmax(z, 1)).sum(1).mean()
        z = module(encoder.collate(job.labelled.rows.take(a))).outputs
        told = torch.nn.functional.cross_entropy(z, job.labelled.labels[a])
        optimizer.zero_grad()
        (taught + weight * told).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), job.train.clip_norm)
        optimizer.step()
    train(job, tmp_path / "c", "s", accelerator, nothing)
    for name, value in module.state_dict().items():
        assert torch.allclose(value, job.student.module.state_dict()[name], atol=1e-5)
    if weight == 0:  # as without the rows
        train(alone, tmp_path / "alone", "s", accelerator, nothing)
        for name, value in module.state_dict().items():
            assert torch.allclose(value, alone.student.module.state_dict()[name], atol=1e-5)


def test_labelled_rows_alone_have_their_whole_weight(accelerator, tmp_path):
    jobs = [make_job(pool=False) for _ in range(2)]
    jobs[1] = replace(jobs[1], train=replace(jobs[1].train, labelled_weight=0.0))
    for i, job in enumerate(jobs):
        train(job, tmp_path / f"{i}", "s", accelerator, nothing)
    assert same(weights(jobs[0]), weights(jobs[1]))


class Stop(Exception):
    pass


@pytest.mark.parametrize("pool", [True, False])
def test_stopped_at_any_step_and_resumed_it_ends_with_the_same_bytes(accelerator, tmp_path, pool):
    whole = make_job(pool=pool)
    expected = train(whole, tmp_path / "whole", "s", accelerator, nothing)
    for at in range(1, 13):

        def on_step(step, point, at=at):
            if step == at:
                raise Stop

        path = tmp_path / f"stopped{at}"
        with pytest.raises(Stop):
            train(make_job(pool=pool), path, "s", accelerator, on_step)
        job = make_job(pool=pool)
        again = train(job, path, "s", accelerator, nothing)
        assert same(weights(job), weights(whole))
        assert again.curve == expected.curve


def test_an_objectives_parameters_are_trained_and_clipped_with_the_student(accelerator, tmp_path):
    job = with_feature(make_job(dropout=0.0, held_out=False))
    module, feature = copy.deepcopy(job.student.module), Feature()
    trained = [*module.parameters(), *feature.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=1.0,
    )
    pool, labelled = EndlessPermutation(30, 8, 10), EndlessPermutation(20, 4, 11)
    collate = job.student.encoder.collate
    for step in range(12):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(job, step)
        p, a = pool.rows(step), labelled.rows(step)
        out, probs = module(collate(job.pool.store.take(p))), job.pool.probs[p]
        slam = slam_loss(out.outputs, probs, probs.max(1).values, 2, target="hard")
        matched = out.embedding @ feature.projector + feature.offset - 10 * probs
        z = module(collate(job.labelled.rows.take(a))).outputs
        told = torch.nn.functional.cross_entropy(z, job.labelled.labels[a])
        optimizer.zero_grad()
        ((slam + 0.5 * matched.square().sum(1)).mean() + told).backward()
        # One norm over both, far above the bound: clipping the student alone would differ.
        assert torch.nn.utils.clip_grad_norm_(trained, job.train.clip_norm) > 5
        optimizer.step()
    train(job, tmp_path / "c", "s", accelerator, nothing)
    for name, value in module.state_dict().items():
        assert torch.allclose(value, job.student.module.state_dict()[name], atol=1e-5)
    for mine, theirs in zip(feature.parameters(), job.objective.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_an_objectives_parameters_survive_a_stop_at_any_step_to_the_byte(accelerator, tmp_path):
    whole = with_feature(make_job())
    train(whole, tmp_path / "whole", "s", accelerator, nothing)
    start, end = Feature().state_dict(), whole.objective.state_dict()
    assert not same({f"second.{k}": v for k, v in start.items()}, end)
    for at in (1, 3, 4, 7, 11):

        def on_step(step, point, at=at):
            if step == at:
                raise Stop

        path = tmp_path / f"stopped{at}"
        with pytest.raises(Stop):
            train(with_feature(make_job()), path, "s", accelerator, on_step)
        job = with_feature(make_job())
        train(job, path, "s", accelerator, nothing)
        assert same(weights(job), weights(whole))
        assert same(job.objective.state_dict(), end)


def test_a_checkpoint_between_evaluations_is_as_good(accelerator, tmp_path, monkeypatch):
    whole = make_job()
    expected = train(whole, tmp_path / "whole", "s", accelerator, nothing)
    monkeypatch.setattr("limbeck.distill.loop.SECONDS_AT_RISK", -1.0)  # after every step
    path, starts = tmp_path / "stopped", []

    def on_step(step, point):
        starts.append(step)
        raise Stop

    for _ in range(11):
        with pytest.raises(Stop):
            train(make_job(), path, "s", accelerator, on_step)
    job = make_job()
    again = train(job, path, "s", accelerator, nothing)
    assert starts == list(range(1, 12))
    assert same(weights(job), weights(whole))
    assert [p.step for p in again.curve] == [p.step for p in expected.curve]
    for a, b in zip(again.curve, expected.curve, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, abs=1e-6)


def test_the_weights_are_those_of_the_best_evaluation(accelerator, tmp_path):
    job = make_job(steps=40)
    kept = {}

    def on_step(step, point):
        if point is not None:
            kept[step] = weights(job)

    trained = train(job, tmp_path / "c", "s", accelerator, on_step)
    scores = {p.step: (p.accuracy, -p.calibrated_nll) for p in trained.curve}
    assert trained.best_step == max(scores, key=lambda s: (scores[s], -s))
    assert same(weights(job), kept[trained.best_step])


def test_without_held_out_rows_the_last_step_is_kept(accelerator, tmp_path):
    trained = train(make_job(held_out=False), tmp_path / "c", "s", accelerator, nothing)
    assert trained.best_step == trained.last_step == 12


def test_patience_ends_a_run_that_no_longer_gets_better(accelerator, tmp_path):
    job = replace(make_job(steps=400, patience=2), learning_rate=0.1)
    job = replace(job, train=replace(job.train, evaluations=100))
    trained = train(job, tmp_path / "c", "s", accelerator, nothing)
    assert trained.last_step < 400
    best = next(i for i, p in enumerate(trained.curve) if p.step == trained.best_step)
    assert len(trained.curve) - 1 - best == 2


def test_the_learning_rate_rises_then_falls_to_zero():
    job = make_job(steps=100)
    rates = [learning_rate(job, step) for step in range(100)]
    peak = int(np.argmax(rates))
    assert rates[peak] == job.learning_rate
    assert all(np.diff(rates[: peak + 1]) > 0)
    assert all(np.diff(rates[peak + 1 :]) < 0)
    assert rates[-1] < 1e-3 * job.learning_rate


def test_training_leaves_the_callers_generators_alone(accelerator, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    train(make_job(), tmp_path / "c", "s", accelerator, nothing)
    assert torch.equal(torch.rand(3), expected)


def test_predictions_do_not_depend_on_the_batch():
    job = make_job()
    whole = predict(job.student.module, job, job.labelled.rows, torch.device("cpu"))
    parts = predict(job.student.module, job, job.labelled.rows, torch.device("cpu"), batch=3)
    assert torch.allclose(whole, parts, atol=1e-6)
    assert torch.allclose(whole.exp().sum(1), torch.ones(20), atol=1e-6)


def entries(store, positions):
    ragged = store.take(np.asarray(positions))
    return [p.tolist() for p in np.split(ragged.values, np.cumsum(ragged.lengths)[:-1])]


def store_of(rows):
    return MemoryStore(
        np.concatenate([np.array(r, np.int32) for r in rows]), np.array([len(r) for r in rows])
    )


def test_views_give_the_rows_that_they_say():
    a, b = store_of([[1], [2, 2], []]), store_of([[4, 4], [5]])
    assert entries(Stacked(a, b), [4, 0, 3, 1, 2]) == [[5], [1], [4, 4], [2, 2], []]
    assert entries(Subset(a, np.array([1, 0])), [0, 1]) == [[2, 2], [1]]
    both = stack(
        Labelled(a, torch.tensor([0, 1, 0])),
        subset(Labelled(b, torch.tensor([1, 0])), np.array([1])),
    )
    assert both.labels.tolist() == [0, 1, 0, 0]
    assert entries(both.rows, [3]) == [[5]]


def test_folds_are_even_stratified_and_seeded():
    labels = np.repeat([0, 1, 2], [31, 17, 6])
    fold = folds(labels, 3, 0)
    sizes = np.bincount(fold, minlength=3)
    assert sizes.max() - sizes.min() <= 1
    for c in range(3):
        counts = np.bincount(fold[labels == c], minlength=3)
        assert counts.max() - counts.min() <= 1
    assert np.array_equal(fold, folds(labels, 3, 0))
    assert not np.array_equal(fold, folds(labels, 3, 1))


def weighing_job(**settings):
    """A job whose teacher errs on every fifth row, with weights that are estimated anew."""
    job = make_job()
    probs = job.pool.probs.clone()
    probs[::5] = 1 - probs[::5]
    held_out = job.held_out
    told = torch.nn.functional.one_hot(held_out.labels, 2).float() * 0.6 + 0.2
    told[::4] = 1 - told[::4]
    evidence = Evidence(
        told,
        held_out.labels,
        lambda p: p.max(dim=1).values,
        2,
        lambda logs: NeighbourTrust.fit(told, logs, held_out.labels),
    )
    # Without a largest weight: a young student's would nearly all be cut to 1.
    objective = Weighted(estimator="mean", clip_max=100.0, **settings).fit([], evidence)
    pool = replace(job.pool, probs=probs, objective=objective)
    return replace(job, objective=objective, pool=pool, evidence=held_out.rows)


def test_weights_are_estimated_after_the_start_and_then_every_so_many_epochs():
    job = weighing_job(pretrain=0.25, refresh_every=1.0)  # 12 steps, an epoch of 30 / 8 steps
    assert list(refresh_steps(job)) == [3, 7, 11]
    assert list(refresh_steps(job, processes=2)) == [3, 5, 7, 9, 11]
    assert list(refresh_steps(weighing_job(pretrain=0.25, refresh_every=0.0))) == [3]
    assert list(refresh_steps(weighing_job(pretrain=0.0, refresh_every=0.25))) == list(range(12))
    assert list(refresh_steps(make_job())) == []


def test_only_labelled_rows_teach_before_the_first_estimate(accelerator, tmp_path):
    weighted = weighing_job(pretrain=0.5, refresh_every=0.0)
    shorter = replace(weighted, stop_at=6)
    train(shorter, tmp_path / "a", "s", accelerator, nothing)
    assert shorter.objective.weights is None
    # The same steps with a loss of nothing on the pool.
    silent = weighing_job(pretrain=0.5)
    silent = replace(silent, pool=replace(silent.pool, probs=torch.full((30, 2), 0.5)), stop_at=6)
    train(silent, tmp_path / "b", "s", accelerator, nothing)
    assert same(weights(shorter), weights(silent))


def test_the_weights_are_those_of_the_student_at_the_moment_of_the_estimate(accelerator, tmp_path):
    job = weighing_job(pretrain=0.5, refresh_every=0.0)
    train(replace(job, stop_at=6, held_out=None), tmp_path / "a", "s", accelerator, nothing)
    module = copy.deepcopy(job.student.module)
    asked = replace(job, student=replace(job.student, module=module))
    device = torch.device("cpu")
    near = job.objective._near(predict(module, asked, job.evidence, device))
    expected = near.mean_weight(job.pool.probs, predict(module, asked, job.pool.store, device))
    whole = weighing_job(pretrain=0.5, refresh_every=0.0)
    train(replace(whole, held_out=None), tmp_path / "b", "s", accelerator, nothing)
    found = whole.objective.weights
    torch.testing.assert_close(found, expected.clamp(1e-3, 100.0))
    assert len(found.unique()) > 1


@pytest.mark.parametrize("refresh_every", [0.0, 0.5])
def test_an_arm_that_refreshes_resumes_with_the_same_bytes(accelerator, tmp_path, refresh_every):
    settings = {"pretrain": 0.25, "refresh_every": refresh_every}
    whole = weighing_job(**settings)
    train(whole, tmp_path / "whole", "s", accelerator, nothing)
    for at in range(1, 13):
        path = tmp_path / f"stopped{at}"

        def stop(step, point, at=at):
            if step == at:
                raise Stop

        first = weighing_job(**settings)
        # Evaluated, and so kept, after every step: the stop falls before, on and after estimates.
        often = replace(first.train, evaluations=12)
        with pytest.raises(Stop):
            train(replace(first, train=often), path, "s", accelerator, stop)
        second = weighing_job(**settings)
        train(replace(second, train=often), path, "s", accelerator, nothing)
        every = weighing_job(**settings)
        train(replace(every, train=often), tmp_path / f"every{at}", "s", accelerator, nothing)
        assert same(weights(every), weights(second))
        assert torch.equal(every.objective.weights, second.objective.weights)


def test_a_teacher_that_is_right_on_validation_trains_the_student_of_hard_distillation(
    accelerator, tmp_path
):
    job, plain = make_job(), make_job()
    told = torch.nn.functional.one_hot(job.held_out.labels, 2).float() * 0.6 + 0.2
    evidence = Evidence(
        told,
        job.held_out.labels,
        lambda p: p.max(dim=1).values,
        2,
        lambda logs: NeighbourTrust.fit(told, logs, job.held_out.labels),
    )
    for one, objective in ((job, Weighted(pretrain=0.0).fit([], evidence)), (plain, HardKD())):
        ready = replace(
            one,
            objective=objective,
            pool=replace(one.pool, objective=objective),
            evidence=one.held_out.rows,
        )
        train(ready, tmp_path / objective.name, "s", accelerator, nothing)
    assert same(weights(job), weights(plain))


@pytest.mark.parametrize("held_out", [True, False])
def test_a_loss_that_is_no_number_is_told_with_the_arm_and_the_step(
    accelerator, tmp_path, held_out
):
    job = make_job(held_out=held_out)
    with torch.no_grad():
        next(job.student.module.parameters()).fill_(torch.nan)
    with pytest.raises(ConfigError, match=r"arm test up to step 3 is nan.*learning_rate=0\.01"):
        train(job, tmp_path / "c", "s", accelerator, nothing)
