"""What a minibatch holds does not depend on how it was read; the quicker way is kept."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from limbeck.data.images import netpbm
from limbeck.data.schema import Schema
from limbeck.distill.config import TrainConfig
from limbeck.distill.feed import TRIAL, WARM_UP, Feed, Pace
from limbeck.distill.job import Job, Labelled
from limbeck.objectives import Supervised
from limbeck.students import MemoryStore, build


def chosen(inline, ahead, *, noise=lambda i: 0.0):
    """What a pace says of 100 steps that take so many seconds each way."""
    pace, now, said = Pace(), 0.0, []
    for i in range(100):
        said.append(pace.ahead(now))
        now += (ahead if said[-1] else inline) + noise(i)
    return said


@pytest.mark.parametrize(("inline", "ahead"), [(1.0, 0.9), (0.9, 1.0)])
def test_the_quicker_way_is_kept(inline, ahead):
    said = chosen(inline, ahead)
    assert set(said[WARM_UP + 2 * TRIAL + 3 :]) == {ahead < inline}


def test_both_ways_are_tried_before_one_is_chosen():
    said = chosen(1.0, 2.0)
    assert said[: WARM_UP + 2 * TRIAL] == [False] * (WARM_UP + TRIAL) + [True] * TRIAL


@pytest.mark.parametrize("slow", [0, 5, WARM_UP + TRIAL, WARM_UP + TRIAL + 1, 20])
def test_one_slow_step_decides_nothing(slow):
    for inline, ahead in ((1.0, 0.9), (0.9, 1.0)):
        said = chosen(inline, ahead, noise=lambda i: 100.0 * (i == slow))
        assert said[-1] == (ahead < inline)


def test_reading_ahead_gives_the_same_minibatches():
    job = pictures()
    apart, ahead = Feed(job, 0, 1), Feed(job, 0, 1)
    ahead._pace.ahead = lambda now: True
    try:
        for step in range(6):
            ahead.prefetch(step, 6)
            one, other = apart.get(step), ahead.get(step)
            assert set(one.inputs) == set(other.inputs)
            for name, tensor in one.inputs.items():
                assert torch.equal(tensor, other.inputs[name])
            assert torch.equal(one.labels, other.labels)
    finally:
        apart.close()
        ahead.close()


def pictures():
    """A job whose minibatches are drawn at random and varied at random."""
    rng = np.random.default_rng(0)
    files = [netpbm(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(40)]
    rows = pa.RecordBatch.from_pydict({"image": pa.array(files, pa.large_binary())})
    schema = Schema((), (), (), "label", ("a", "b"), image=("image",))
    settings = {"augment": "rand"}
    student = build("image_cnn", settings, schema, [rows], 2, torch.Generator().manual_seed(0))
    store = MemoryStore.build(student.encoder, [rows])
    return Job(
        name="pictures",
        student=student,
        objective=Supervised(),
        labelled=Labelled(store, torch.from_numpy(rng.integers(0, 2, 40))),
        pool=None,
        held_out=None,
        train=TrainConfig(labelled_batch=8),
        steps=6,
        stop_at=6,
        learning_rate=1e-3,
        seed=0,
    )
