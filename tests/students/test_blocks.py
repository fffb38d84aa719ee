"""Blocks against whole modules: their counts add up, and run in a row they are the network."""

import pytest
import torch
from torch import nn

from limbeck.errors import ConfigError
from limbeck.students.block_modules import block_module, student_module
from limbeck.students.blocks import SIZES, Block, all_blocks, blocks_of, work_of

from .test_search_spaces import bags, drawn, gen, images, transformers

SPACES = {
    "8 px": lambda: images(8, 1),
    "28 px": lambda: images(28, 1),
    "64 px": lambda: images(64, 3),
    "transformer": lambda: transformers(7),
    "bag": lambda: bags(50),
}
each = pytest.mark.parametrize("name", list(SPACES))


@each
def test_multiply_adds_of_blocks_are_those_of_the_architecture(name):
    space = SPACES[name]()
    for one in [space.space.default, *drawn(space.space, 20)]:
        macs = sum(work_of(block).macs for block in blocks_of(space, one))
        assert macs == space.costs["macs"].total(one)


@each
@pytest.mark.parametrize("padded", [False, True])
def test_each_block_reads_what_the_one_before_gives(name, padded):
    """Shapes, and in PyTorch's form the order in memory too, which decides the time."""
    space = SPACES[name]()
    for one in [space.space.default, *drawn(space.space, 3)]:
        x = None
        for block in blocks_of(space, one):
            module, example = block_module(block, space, gen(), padded=padded)
            if x is not None:
                assert (x.shape, x.dtype) == (example.shape, example.dtype), block
                if x.ndim == 4 and not padded:
                    assert x.stride() == example.stride(), block
            with torch.inference_mode():
                x = module(example if x is None else x)
        whole, row = student_module(space, one, gen(), padded=padded)
        with torch.inference_mode():
            assert whole(row).shape == x.shape


@pytest.mark.parametrize("name", ["8 px", "28 px", "64 px"])
def test_maps_in_a_whole_network_lie_in_memory_as_those_of_the_blocks(name):
    space = SPACES[name]()
    whole, row = student_module(space, space.space.default, gen())
    seen = []
    for residual in whole.module.body:
        residual.register_forward_pre_hook(lambda _, args: seen.append(args[0].stride()))
    with torch.inference_mode():
        whole(row)
    blocks = [b for b in blocks_of(space, space.space.default) if b.part == "residual"]
    assert seen == [block_module(b, space, gen()).example.stride() for b in blocks]


@each
def test_weights_of_blocks_are_those_of_the_module_that_a_row_reads(name):
    space = SPACES[name]()
    for block in all_blocks(space)[::7]:
        module = block_module(block, space, gen()).module
        matrices = sum(
            part.weight.numel()
            for part in module.modules()
            if isinstance(part, nn.Linear | nn.Conv2d)
        )
        if block.part not in ("tokens", "bag"):
            assert work_of(block).weights == 4 * matrices


def test_a_block_comes_as_often_as_it_is_in_the_network():
    space = images(28, 1)
    one = space.space.architecture(
        {**space.space.values(space.space.default), "blocks": 3, "last_blocks": 2}
    )
    assert [block.name for block in blocks_of(space, one)] == [
        "stem 1 32 28 2",
        "residual 32 32 32 3 14 2",
        *["residual 32 32 32 3 7 1"] * 2,
        "residual 32 96 96 3 7 2",
        "residual 96 96 96 3 4 1",
        "head 96 4 3",
    ]


@each
def test_all_blocks_are_those_of_some_architecture(name):
    space = SPACES[name]()
    found = all_blocks(space)
    assert len(set(found)) == len(found)
    for one in drawn(space.space, 30):
        assert set(blocks_of(space, one)) <= set(found)
    assert all(len(b.sizes) == len(SIZES[b.part]) and Block.named(b.name) == b for b in found)


def test_the_length_of_a_bag_must_be_known():
    with pytest.raises(ConfigError, match="n-grams of a row; give its length"):
        blocks_of(bags(), bags().space.default)
    assert blocks_of(bags(), bags().space.default, length=9)[0].sizes[-1] == 9


@pytest.mark.parametrize("name", ["", "residual 1 2", "stem 1 2 3 x", "foot 1"])
def test_names_that_are_none_are_refused(name):
    with pytest.raises(ConfigError, match="is no block"):
        Block.named(name)


def test_a_space_too_large_to_walk_is_refused():
    space = images(28, 1, width=tuple(range(16, 48)), last_width=tuple(range(64, 192)))
    with pytest.raises(ConfigError, match="give fewer options"):
        all_blocks(space)
