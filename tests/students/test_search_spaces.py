"""Costs of the students' spaces against counted modules and enumeration."""

import itertools
import random
import time

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from limbeck.data.schema import Schema
from limbeck.errors import ConfigError
from limbeck.search import Bounds, LayerNAS
from limbeck.search.counting import count
from limbeck.students import (
    ImageCnnConfig,
    ImageCnnEncoder,
    TabularConfig,
    TextBagConfig,
    TextBagEncoder,
    TextTransformerConfig,
    TextTransformerEncoder,
    find_kind,
    student_space,
)
from limbeck.students.search_spaces import SEARCHED
from limbeck.students.subwords import train_tokenizer

TEXTS = ["the film was good", "a bad joke, badly told", "word " * 40]
CLASSES = 3
SCHEMA = Schema(("text",), (), (), label=None, classes=("a", "b", "c"))


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def images(size=32, channels=3, **options):
    base = ImageCnnConfig()
    config = ImageCnnConfig(size=size, channels=channels)
    encoder = ImageCnnEncoder("photo", config, (100.0,) * channels, (50.0,) * channels)
    return student_space("image_cnn", encoder, base, CLASSES, options=options)


def transformers(length=None, **options):
    base = TextTransformerConfig(vocab=300, max_tokens=20)
    tokenizer = train_tokenizer([[text] for text in TEXTS], 280)
    encoder = TextTransformerEncoder(("text",), base, tokenizer)
    return student_space("text_transformer", encoder, base, CLASSES, length=length, options=options)


def bags(length=None, **options):
    base = TextBagConfig()
    encoder = TextBagEncoder(("text",), base)
    return student_space("text_bag", encoder, base, CLASSES, length=length, options=options)


SPACES = {"image_cnn": images, "text_transformer": transformers, "text_bag": bags}
LESS = {
    "image_cnn": {"width": (16, 32), "last_width": (48, 96), "blocks": (1, 2), "last_blocks": (1,)},
    "text_transformer": {"dim": (32, 48, 64), "heads": (4, 3, 5)},
    "text_bag": {"buckets": (4096, 65_536)},
}
each = pytest.mark.parametrize("kind", list(SPACES))


def drawn(space, n, seed=0):
    rng = random.Random(seed)
    found = []
    while len(found) < n:
        one = tuple(rng.randrange(k) for k in space.sizes)
        if space.valid(one):
            found.append(one)
    return found


class Padded(nn.Module):
    """What an ONNX file is made from: rows as rectangles in, logits out."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, rows):
        return self.module.head(self.module.embed_padded(rows))


def counted(module, width, dtype=torch.int64):
    return count(Padded(module), torch.zeros(1, width, dtype=dtype))


def assert_counted(found, architecture, width, dtype=torch.int64):
    counts = counted(found.build(architecture, gen()), width, dtype)
    assert found.costs["macs"].total(architecture) == counts.macs
    assert found.costs["parameters"].total(architecture) == counts.parameters
    assert found.costs["bytes"].total(architecture) == 4 * counts.parameters


@pytest.mark.parametrize(
    ("size", "channels"), [(8, 1), (11, 3), (12, 1), (16, 3), (28, 1), (45, 3), (64, 3)]
)
def test_costs_of_images_are_those_of_the_counted_module(size, channels):
    found = images(size, channels)
    for one in [found.space.default, *drawn(found.space, 3, seed=size)]:
        assert_counted(found, one, size * size * channels, torch.uint8)


@pytest.mark.parametrize("length", [None, 1, 7])
def test_costs_of_transformers_are_those_of_the_counted_module(length):
    found = transformers(length)
    for one in [found.space.default, *drawn(found.space, 4, seed=length or 0)]:
        assert_counted(found, one, length or 20)


def test_costs_of_bags_are_those_of_the_counted_module_for_any_length():
    found = bags(50)
    for one in [found.space.default, *drawn(found.space, 4)]:
        for width in (1, 50):
            assert_counted(found, one, width)
        assert found.costs["sums"].total(one) == 50 * found.settings(one).dim
    assert "sums" not in bags().costs


@each
def test_no_cost_falls_when_an_option_rises(kind):
    found = SPACES[kind]()
    sizes = found.space.sizes
    for cost in found.costs.values():
        totals = np.empty(sizes)
        for one in itertools.product(*map(range, sizes)):
            totals[one] = cost.total(one)
        for axis, size in enumerate(sizes):
            assert cost.order(axis) == tuple(range(size))
            assert (np.diff(totals, axis=axis) >= 0).all()


@each
def test_bounds_are_those_of_enumeration(kind):
    found = SPACES[kind](**LESS[kind])
    space = found.space
    every = list(itertools.product(*map(range, space.sizes)))
    for cost in found.costs.values():
        assert cost.proven
        totals = {one: cost.total(one) for one in every}
        for n in range(len(space) + 1):
            for prefix in itertools.product(*map(range, space.sizes[:n])):
                inside = [total for one, total in totals.items() if one[:n] == prefix]
                assert cost.bounds(prefix) == Bounds(min(inside), max(inside))


@each
def test_options_may_come_in_any_order(kind):
    found = SPACES[kind](**{name: values[::-1] for name, values in SEARCHED[kind].options.items()})
    usual = SPACES[kind]()
    for cost, other in zip(found.costs.values(), usual.costs.values(), strict=True):
        assert cost.bounds(()) == other.bounds(())
        assert all(order == tuple(range(k))[::-1] for order, k in _orders(cost))


def _orders(cost):
    return [(cost.order(layer), k) for layer, k in enumerate(cost.space.sizes)]


@each
def test_a_cost_takes_less_than_a_millisecond(kind):
    found = SPACES[kind]()
    some = drawn(found.space, 200)
    taken = []
    for one in some:
        start = time.perf_counter()
        found.costs["macs"].total(one)
        taken.append(time.perf_counter() - start)
    assert np.median(taken) < 1e-3


@each
def test_the_default_is_the_base_and_builds_its_module(kind):
    found = SPACES[kind]()
    default = found.settings(found.space.default)
    assert default == found.base
    built = found.build(found.space.default, gen(4))
    plain = {"image_cnn": ImageCnnConfig(), "text_transformer": default, "text_bag": default}[kind]
    other = find_kind(kind).module(found.encoder, plain, CLASSES, gen(4))
    ours, theirs = built.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@each
def test_modules_have_the_options_and_read_rows_of_their_encoder(kind):
    found = SPACES[kind]()
    for one in drawn(found.space, 3, seed=1):
        settings, values = found.settings(one), found.space.values(one)
        assert all(getattr(settings, name) == value for name, value in values.items())
        encoder, module = found.encoder_of(one), found.build(one, gen()).eval()
        rows = _rows(kind)
        out = module(encoder.collate(encoder.encode(rows))).outputs
        assert out.shape == (rows.num_rows, CLASSES)
        assert out.isfinite().all()
        assert module.settings == settings


def _rows(kind):
    if kind == "image_cnn":
        files = [b"P6 9 7 255\n" + bytes(range(189))] * 2
        return pa.RecordBatch.from_pydict({"photo": pa.array(files, pa.large_binary())})
    return pa.RecordBatch.from_pydict({"text": pa.array(TEXTS, pa.large_string())})


def test_buckets_of_rows_are_those_of_the_option():
    found = bags()
    rows = _rows("text_bag")
    for buckets in (4096, 131_072):
        one = found.space.architecture({"buckets": buckets, "dim": 8, "hidden": 32})
        fresh = TextBagEncoder.fit([], SCHEMA, TextBagConfig(buckets=buckets))
        assert np.array_equal(found.encoder_of(one).encode(rows).values, fresh.encode(rows).values)


def test_heads_that_do_not_divide_the_width_are_not_valid():
    found = transformers(dim=(32, 48, 64), heads=(3, 4))
    for dim, heads in itertools.product(range(3), range(2)):
        expected = (32, 48, 64)[dim] % (3, 4)[heads] == 0
        assert found.space.valid((dim, heads, 0, 0)) == expected
    with pytest.raises(ConfigError, match="heads=3"):
        found.settings((0, 0, 0, 0))


def test_a_search_answers_with_a_student_in_range():
    found = images()
    limit = 0.2 * found.costs["macs"].bounds(()).high
    search = LayerNAS(
        found.costs["macs"],
        limit,
        constraints=[(found.costs["parameters"], 200_000)],
        generator=gen(),
    )
    for _ in range(50):
        trial = search.ask()
        search.tell(trial.number, float(sum(trial.architecture)))
    counts = counted(found.build(search.best.architecture, gen()), 32 * 32 * 3, torch.uint8)
    assert counts.macs <= limit
    assert counts.parameters <= 200_000


def test_the_smallest_images_have_one_stage_to_choose():
    assert [layer.name for layer in images(11).space.layers] == [
        *("width", "expansion", "last_width", "last_kernel", "last_blocks")
    ]
    assert len(images(12).space) == 7


@pytest.mark.parametrize("kind", ["tabular", "huggingface", "factory", "imagecnn"])
def test_kinds_that_cannot_be_searched_are_refused(kind):
    with pytest.raises(
        ConfigError, match=f"'{kind}'.*image_cnn, text_transformer, text_bag can be"
    ):
        student_space(kind, bags().encoder, TabularConfig(), 2)


def test_what_does_not_go_together_is_refused():
    encoder = bags().encoder
    with pytest.raises(ConfigError, match="give a TextBagEncoder and a TextBagConfig"):
        student_space("text_bag", encoder, ImageCnnConfig(), 2)
    with pytest.raises(ConfigError, match="got a TextBagEncoder"):
        student_space("image_cnn", encoder, ImageCnnConfig(), 2)
    with pytest.raises(ConfigError, match="classes=0"):
        student_space("text_bag", encoder, TextBagConfig(), 0)
    with pytest.raises(ConfigError, match="dim=7 of the base settings is not among"):
        student_space("text_bag", encoder, TextBagConfig(dim=7), 2)


def test_options_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="kernel=4"):
        images(kernel=(3, 4))
    with pytest.raises(ConfigError, match="int, not float"):
        images(width=(32, 16.5))
    with pytest.raises(ConfigError, match="did you mean 'hidden'"):
        bags(hiden=(3,))
    with pytest.raises(ConfigError, match="'kernel' of image_cnn is not searched"):
        images(8, kernel=(3,))
    with pytest.raises(ConfigError, match="option twice"):
        bags(dim=(16, 16))


def test_lengths_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match=r"length=21.*max_tokens=20"):
        transformers(21)
    with pytest.raises(ConfigError, match="length=0"):
        bags(0)
    with pytest.raises(ConfigError, match="leave length out"):
        student_space("image_cnn", images().encoder, ImageCnnConfig(), 2, length=3)
