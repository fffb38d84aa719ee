"""Peaks of activations against a trace of every tensor that is alive."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from limbeck.students.block_modules import student_module

from .test_search_spaces import bags, drawn, gen, images, transformers


class Trace(TorchDispatchMode):
    """After each operator, bytes of all storages that any tensor still uses, weights left out."""

    def __init__(self, weights, row):
        super().__init__()
        self.weights = {one.untyped_storage().data_ptr() for one in weights}
        self.alive = [weakref.ref(row)]
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.alive += [weakref.ref(t) for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        self.alive = [one for one in self.alive if one() is not None]
        held = [one().untyped_storage() for one in self.alive]
        found = {one.data_ptr(): one.nbytes() for one in held if one.nbytes()}
        self.peak = max(self.peak, sum(v for k, v in found.items() if k not in self.weights))
        return out


def traced(space, one, length=None):
    module, row = student_module(space, one, gen(), length=length)
    weights = [*module.parameters(), *module.buffers()]
    # A row is a view of pixels as they came; the trace holds it as the caller does.
    with torch.inference_mode(), Trace(weights, row) as trace:
        module(row)
    return trace.peak


def assert_traced(space, architectures):
    for one in architectures:
        assert space.costs["activation_bytes"].total(one) == traced(space, one), space.settings(one)


@pytest.mark.parametrize(
    ("size", "channels"), [(8, 1), (11, 3), (12, 1), (16, 3), (28, 1), (45, 3), (64, 3)]
)
def test_peaks_of_images_are_those_of_the_trace(size, channels):
    space = images(size, channels)
    assert_traced(space, [space.space.default, *drawn(space.space, 6, seed=size)])


@pytest.mark.parametrize("length", [1, 2, 7, 20])
def test_peaks_of_transformers_are_those_of_the_trace(length):
    space = transformers(length)
    assert_traced(space, [space.space.default, *drawn(space.space, 6, seed=length)])


@pytest.mark.parametrize("length", [1, 50])
def test_peaks_of_bags_are_those_of_the_trace(length):
    space = bags(length)
    assert_traced(space, [space.space.default, *drawn(space.space, 6)])


def test_a_bag_of_unknown_length_has_no_peak():
    assert "activation_bytes" not in bags().costs
