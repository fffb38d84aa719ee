"""Times against sleeps, and what is left as it was."""

import time

import pytest
import torch
from torch import nn

from limbeck.errors import ConfigError
from limbeck.students import TextBagConfig, TextBagEncoder, TextBagModule, time_module


class Sleeper(nn.Module):
    """Sleeps as told, in turn; remembers how it was called."""

    def __init__(self, *milliseconds):
        super().__init__()
        self.inner = nn.Dropout()
        self.milliseconds = milliseconds
        self.calls = []

    def forward(self, *inputs):
        turn = len(self.calls) % len(self.milliseconds)
        self.calls.append(
            (torch.get_num_threads(), self.training, torch.is_grad_enabled(), len(inputs))
        )
        time.sleep(self.milliseconds[turn] / 1e3)


def test_the_time_is_the_median_of_the_calls_in_milliseconds():
    taken = time_module(Sleeper(4, 4, 4, 40), torch.zeros(1), repeats=12, warmup=0)
    assert 4 <= taken < 20


def test_calls_before_are_not_timed():
    module = Sleeper(30, 30, 1, 1, 1, 1)
    assert time_module(module, torch.zeros(1), repeats=4, warmup=2) < 20
    assert len(module.calls) == 6


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_flags_and_gradients_are_as_told_and_then_as_before(threads):
    module = Sleeper(0)
    module.inner.eval()
    before = torch.get_num_threads()
    time_module(module, (torch.zeros(1), torch.zeros(2)), threads=threads, repeats=2, warmup=1)
    assert module.calls == [(threads, False, False, 2)] * 3
    assert torch.get_num_threads() == before
    assert module.training
    assert not module.inner.training


def test_threads_and_flags_come_back_after_an_error():
    module = nn.Linear(3, 2)
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError):
        time_module(module, torch.zeros(1, 4), threads=before + 1)
    assert torch.get_num_threads() == before
    assert module.training


def test_a_student_is_timed_on_the_inputs_of_its_encoder():
    config = TextBagConfig(buckets=64, dim=4, hidden=4)
    encoder = TextBagEncoder(("t",), config)
    module = TextBagModule(encoder, config, 2, torch.Generator().manual_seed(0))
    inputs = {"ids": torch.tensor([3, 4, 5]), "offsets": torch.tensor([0])}
    assert 0 < time_module(module, inputs, repeats=5) < 1000


@pytest.mark.parametrize(("name", "value"), [("threads", 0), ("repeats", 0), ("warmup", -1)])
def test_bad_numbers_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        time_module(nn.Identity(), torch.zeros(1), **{name: value})
