"""Tables of blocks on made-up devices whose times are known functions of the blocks."""

import itertools
import json

import numpy as np
import pytest

from limbeck.errors import ConfigError
from limbeck.search import LayerNAS
from limbeck.students.block_costs import BlockTable
from limbeck.students.block_fit import draw_networks, fit_blocks
from limbeck.students.blocks import all_blocks, blocks_of, work_of

from .test_search_spaces import bags, drawn, gen, images, transformers

SPACES = {
    "image_cnn": lambda: images(28, 1, width=(16, 32), last_width=(48, 96)),
    "text_transformer": lambda: transformers(7, dim=(48, 64), heads=(4, 3)),
    "text_bag": lambda: bags(50),
}
each = pytest.mark.parametrize("kind", list(SPACES))


def alone(block):
    """A block's time that is no simple function of its sizes."""
    work = work_of(block)
    return 0.02 + work.macs / 1e7 + work.maps**0.5 / 1e4 + (hash(block.sizes) % 7) / 50


def device(space, scale=1.3, per_block=-0.01, base=0.2, per_megabyte=0.4):
    """A device whose networks take what the formula says."""

    def time(one):
        chain = blocks_of(space, one)
        weights = sum(work_of(block).weights for block in chain) / 1e6
        blocks = sum(map(alone, chain))
        return scale * blocks + per_block * len(chain) + base + per_megabyte * weights

    return time


def fitted(space, time, noise=(0.0, 0.0), n=12):
    networks = draw_networks(space, 2 * n, 0)
    pairs = [(one, time(one)) for one in networks]
    blocks = {block.name: alone(block) for block in all_blocks(space)}
    return fit_blocks(space, blocks, pairs[:n], pairs[n:], noise=noise)


@each
def test_a_device_that_adds_up_blocks_is_recovered_exactly(kind):
    space = SPACES[kind]()
    time = device(space)
    table = fitted(space, time)
    assert table.r2 == pytest.approx(1, abs=1e-9)
    assert table.worst_error <= 1e-9
    table.check(r2=1 - 1e-9, worst=1e-8)
    for one in drawn(space.space, 40, seed=1):
        assert table.total(space, one) == pytest.approx(time(one), rel=1e-8)


def test_the_correction_is_that_of_the_device_where_networks_tell_its_parts_apart():
    space = SPACES["image_cnn"]()
    table = fitted(space, device(space))
    np.testing.assert_allclose(table.correction, (1.3, -0.01, 0.2, 0.4), rtol=1e-6)


def test_sums_that_are_right_are_not_corrected():
    space = SPACES["image_cnn"]()
    table = fitted(space, device(space, 1, 0, 0, 0))
    np.testing.assert_allclose(table.correction, (1, 0, 0, 0), atol=1e-9)


def test_a_device_with_a_term_of_its_own_is_refused():
    space = SPACES["image_cnn"]()
    time, space_ = device(space), space.space
    table = fitted(space, lambda one: time(one) * (1 + 2 * (space_.values(one)["width"] == 32)))
    assert not table.good
    with pytest.raises(ConfigError, match=r"r2=.*held-out networks, but pruning.*measured twice"):
        table.check()


def test_r2_and_errors_are_those_of_the_held_out_networks():
    space = SPACES["image_cnn"]()
    time, n = device(space), 12
    rng = np.random.default_rng(0)
    networks = draw_networks(space, 2 * n, 0)
    pairs = [(one, time(one) * float(np.exp(0.2 * rng.normal()))) for one in networks]
    blocks = {block.name: alone(block) for block in all_blocks(space)}
    table = fit_blocks(space, blocks, pairs[:n], pairs[n:])
    true = np.array([value for _, value in pairs[n:]])
    wrong = np.array([table.total(space, one) for one, _ in pairs[n:]]) - true
    assert table.r2 == pytest.approx(1 - (wrong**2).mean() / true.var())
    assert table.worst_error == pytest.approx(max(abs(wrong) / true))
    assert table.median_error == pytest.approx(np.median(abs(wrong) / true))


@pytest.mark.parametrize(
    ("r2", "worst", "good"), [(0.9, 0.15, True), (0.89, 0, False), (1, 0.16, False)]
)
def test_both_figures_must_be_good_enough(r2, worst, good):
    space = SPACES["text_bag"]()
    saved = fitted(space, device(space)).to_dict() | {"r2": r2, "worst_error": worst}
    table = BlockTable.from_dict(space, saved)
    assert table.good == good
    if good:
        table.check()
        with pytest.raises(ConfigError, match=r"r2 >= 0.95"):
            table.check(r2=0.95)


@each
def test_the_cost_has_the_totals_and_the_bounds_of_enumeration(kind):
    space = SPACES[kind]()
    table = fitted(space, device(space))
    cost = table.cost(space)
    assert cost.proven
    every = [
        one for one in itertools.product(*map(range, space.space.sizes)) if space.space.valid(one)
    ]
    totals = {one: table.total(space, one) for one in every}
    for n in range(len(space.space) + 1):
        for prefix in {one[:n] for one in every}:
            inside = [total for one, total in totals.items() if one[:n] == prefix]
            assert cost.bounds(prefix) == pytest.approx((min(inside), max(inside)), rel=1e-12)


def test_a_search_keeps_a_limit_in_milliseconds():
    space = images(28, 1)
    table = fitted(space, device(space))
    limit = 0.3 * table.cost(space).bounds(()).high
    search = LayerNAS(table.cost(space), limit, generator=gen())
    for _ in range(40):
        trial = search.ask()
        search.tell(trial.number, float(sum(trial.architecture)))
        assert table.total(space, trial.architecture) <= limit * (1 + 1e-9)


@each
def test_a_saved_table_comes_back(kind):
    space = SPACES[kind]()
    table = fitted(space, device(space), noise=(0.01, 0.02))
    back = BlockTable.from_dict(SPACES[kind](), json.loads(json.dumps(table.to_dict())))
    assert back.to_dict() == table.to_dict()
    one = space.space.default
    assert back.total(space, one) == table.total(space, one)


def test_another_space_is_refused():
    space = SPACES["image_cnn"]()
    saved = fitted(space, device(space)).to_dict()
    others = {
        "layers": images(28, 1),
        "inputs": images(32, 1, width=(16, 32), last_width=(48, 96)),
        "kind and layers and inputs": bags(50),
    }
    for differs, other in others.items():
        with pytest.raises(ConfigError, match=f"another {differs}"):
            BlockTable.from_dict(other, saved)
    with pytest.raises(ConfigError, match="lacks blocks, r2"):
        BlockTable.from_dict(space, {k: v for k, v in saved.items() if k not in ("blocks", "r2")})


def test_a_table_that_gives_networks_for_nothing_is_refused():
    space = SPACES["text_bag"]()
    saved = fitted(space, device(space)).to_dict() | {"correction": [1.0, 0.0, -9.0, 0.0]}
    with pytest.raises(ConfigError, match=r"costs -.* ms; measure the cost again"):
        BlockTable.from_dict(space, saved).cost(space)


def test_what_cannot_be_fitted_is_refused():
    space = SPACES["text_bag"]()
    pairs = [(one, 1.0) for one in draw_networks(space, 24, 0)]
    blocks = {block.name: 1.0 for block in all_blocks(space)}
    with pytest.raises(ConfigError, match=r"samples=7.*at least 8"):
        fit_blocks(space, blocks, pairs[:7], pairs[12:])
    with pytest.raises(ConfigError, match=r"held_out=3.*at least 4"):
        fit_blocks(space, blocks, pairs[:8], pairs[21:])
    with pytest.raises(ConfigError, match="in the fitted and in the held-out set"):
        fit_blocks(space, blocks, pairs[:8], pairs[7:])
    with pytest.raises(ConfigError, match="must be finite and > 0"):
        fit_blocks(space, blocks, [*pairs[:7], (pairs[7][0], float("nan"))], pairs[8:])
    with pytest.raises(ConfigError, match="was not measured"):
        fit_blocks(space, {}, pairs[:12], pairs[12:])


def test_networks_are_drawn_once_each_and_valid_and_the_same_for_a_seed():
    space = transformers(7, dim=(48, 64), heads=(4, 3))
    drawn_ = draw_networks(space, 20, 3)
    assert len(set(drawn_)) == 20
    assert all(space.space.valid(one) for one in drawn_)
    assert drawn_ == draw_networks(space, 20, 3)
    with pytest.raises(ConfigError, match="only 27 could be drawn"):
        draw_networks(space, 28, 0)
