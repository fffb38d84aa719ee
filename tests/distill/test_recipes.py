"""From the names in a run file to objectives: sums, settings, classes of one's own."""

import inspect
import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from limbeck.data.config import DataConfig
from limbeck.distill.config import ARMS, KNOWN, DistillConfig, ObjectiveConfig, TrainConfig
from limbeck.distill.recipes import (
    TITLES,
    check_objectives,
    checked_settings,
    expand,
    make_objective,
    title,
)
from limbeck.errors import ConfigError
from limbeck.objectives import OBJECTIVES, Combined, Slam, SoftKD, Taylor, Ups
from limbeck.teachers.config import TeacherConfig

MINE = '''
import torch
from torch import nn
from limbeck.objectives import Objective, Targets


class Mine(Objective):
    """A loss with a parameter that is drawn from torch's own generator."""

    name = "mine"

    def __init__(self, *, dim: int, rate: float = 0.5, kind: str | None = None):
        if dim == 13:
            raise RuntimeError("unlucky")
        self.dim, self.rate, self.kind = dim, rate, kind
        self.weight = nn.Linear(dim, 1)

    def fit(self, answers, evidence):
        return self

    def targets(self, answers):
        return Targets({})

    def loss(self, out, targets, labels):
        return self.label_loss(out, labels) if targets is None else out.embedding.sum(1)


class Wide(Mine):
    def width(self, num_classes):
        return 3 * num_classes


class Placed(Mine):
    def __init__(self, dim):
        super().__init__(dim=dim)


class Seeded(Mine):
    def __init__(self, *, seed: int = 0):
        super().__init__(dim=3)
        self.seed = seed


class Feature(Mine):
    uses_outputs = False

    def __init__(self):
        super().__init__(dim=3)


class Stranger:
    pass
'''
_numbers = itertools.count()


@pytest.fixture
def mine(tmp_path):
    """A module of the user's with a name of its own, since modules are cached by name."""
    module = f"my_losses_{next(_numbers)}"
    (tmp_path / f"{module}.py").write_text(MINE)
    return module


def config(folder, *arms, settings=None, **objective):
    return DistillConfig(
        data=DataConfig(labelled=Path("a.csv")),
        teacher=TeacherConfig(kind="fit"),
        budget=10,
        objective=ObjectiveConfig(arms=("labels", *arms), settings=settings or {}, **objective),
        code=folder,
    )


def test_every_registered_objective_can_be_an_arm_and_has_a_title():
    assert set(KNOWN) == set(OBJECTIVES) | {"labels_and_validation"}
    assert set(ARMS) <= set(KNOWN)
    for name in KNOWN:
        assert title(name) != name or name == "slam"
    assert {"slam_soft", "slam_hard"} <= set(TITLES)


def test_slam_of_an_undecided_target_is_two_arms_in_a_sum_too(tmp_path):
    both = config(tmp_path, "slam", "slam+a:B", "a:B+slam", "taylor")
    assert expand(both) == (
        *("labels", "slam_soft", "slam_hard", "slam_soft+a:B", "slam_hard+a:B"),
        *("a:B+slam_soft", "a:B+slam_hard", "taylor"),
    )
    assert expand(config(tmp_path, "slam+a:B", slam_target="hard")) == ("labels", "slam_hard+a:B")
    assert title("slam_hard+a:B") == "SLaM, hard target + a:B"


def test_settings_of_the_run_file_reach_the_objective(tmp_path):
    settings = {"taylor": {"order": 5}, "ups": {"positive": 1}, "slam": {"eps": 1e-3}}
    run = config(tmp_path, "taylor", "ups", "slam", "soft_kd", settings=settings, temperature=2.0,
                 slam_normalized=True)  # fmt: skip
    taylor, ups, slam = (make_objective(n, run) for n in ("taylor", "ups", "slam_hard"))
    assert isinstance(taylor, Taylor)
    assert taylor.order == 5
    assert isinstance(ups, Ups)
    assert (type(ups.positive), ups.positive) == (float, 1.0)
    assert isinstance(slam, Slam)
    assert (slam.target, slam.normalized, slam.eps) == ("hard", True, 1e-3)
    soft = make_objective("soft_kd", run)
    assert isinstance(soft, SoftKD)
    assert soft.temperature == 2.0


def test_a_sum_is_made_of_its_parts_with_their_settings_and_its_weight(tmp_path, mine):
    arm = f"slam+{mine}:Mine"
    settings = {f"{mine}:Mine": {"dim": 4, "rate": 2}, arm: {"weight": 3}}
    run = config(tmp_path, arm, settings=settings)
    made = make_objective(f"slam_hard+{mine}:Mine", run)
    assert isinstance(made, Combined)
    assert isinstance(made.first, Slam)
    assert (made.first.target, made.weight) == ("hard", 3.0)
    assert (made.second.dim, made.second.rate) == (4, 2.0)
    three = make_objective(f"slam_soft+{mine}:Mine+taylor", run)
    assert isinstance(three.first, Combined)
    assert isinstance(three.second, Taylor)


def test_what_a_constructor_draws_is_a_function_of_the_seed(tmp_path, mine):
    run = config(tmp_path, f"{mine}:Mine", settings={f"{mine}:Mine": {"dim": 4}})
    first, second = (make_objective(f"{mine}:Mine", run) for _ in range(2))
    assert first.weight.weight.equal(second.weight.weight)


def test_an_objective_with_a_seed_gets_the_run_s_unless_it_has_its_own(tmp_path, mine):
    arm = f"{mine}:Seeded"
    run = replace(config(tmp_path, arm), seed=7)
    assert make_objective(arm, run).seed == 7
    assert make_objective(f"slam_soft+{arm}", run).second.seed == 7
    run = replace(config(tmp_path, arm, settings={arm: {"seed": 3}}), seed=7)
    assert make_objective(arm, run).seed == 3


@pytest.mark.parametrize(
    ("arm", "settings", "message"),
    [
        ("taylor", {"taylor": {"ordr": 3}}, "taylor has no setting 'ordr'; did you mean 'order'"),
        ("taylor", {"taylor": {"order": 2.5}}, r"taylor.order=2.5: must be int, not float"),
        ("taylor", {"taylor": {"order": True}}, r"taylor.order=True: must be int, not bool"),
        ("taylor", {"taylor": {"order": 0}}, r"settings\.taylor: order=0: must be an integer >= 1"),
        ("ups", {"ups": {"rule": "mood"}}, "rule='mood': must be 'confidence' or 'ensemble'"),
        ("hard_kd", {"hard_kd": {"heat": 1}}, "hard_kd has no setting 'heat' and none at all"),
        ("soft_kd", {"soft_kd": {"temperature": 2}}, "set objective.temperature"),
        ("slam", {"slam": {"target": "hard"}}, "set objective.slam_target"),
        ("slam", {"slam": {"normalized": True}}, "set objective.slam_normalized"),
        ("slam+alpha_weighted", {}, "slam and alpha_weighted both correct"),
        ("slam+labels_and_validation", {}, "labels learns from labels alone"),
        ("slam+taylor", {"slam+taylor": {"wait": 1}}, "no setting 'wait'; did you mean 'weight'"),
        ("slam+taylor", {"slam+taylor": {"weight": 0}}, "weight=0.0"),
        ("vid+lelp", {}, r"vid teaches the head nothing.*turn the order, lelp\+vid"),
        ("no_such_module:Mine", {}, "objective.arms='no_such_module:Mine' cannot be imported"),
        ("M:Mine", {}, r"M:Mine.dim is missing"),
        ("M:Mine", {"M:Mine": {"dim": 13}}, "cannot be made .RuntimeError: unlucky"),
        ("M:Mine", {"M:Mine": {"dim": 2, "kind": 3}}, "kind=3: must be str or NoneType, not int"),
        ("M:Placed", {}, "takes dim by position; make the settings of an objective keyword-only"),
        ("M:Stranger", {}, "no subclass of limbeck.objectives.Objective"),
        ("M:Wide", {"M:Wide": {"dim": 2}}, "a head of 6 outputs for 2 classes, but its class_map"),
        ("M:Nobody", {}, "M:Nobody' cannot be imported"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_what_is_wrong(
    tmp_path, mine, arm, settings, message
):
    given = {name.replace("M:", f"{mine}:"): table for name, table in settings.items()}
    run = config(tmp_path, arm.replace("M:", f"{mine}:"), settings=given)
    with pytest.raises(ConfigError, match=message.replace("M:", f"{mine}:")):
        check_objectives(run, 2)


def test_every_builtin_arm_passes_the_check(tmp_path):
    check_objectives(config(tmp_path, *(set(KNOWN) - {"labels"})), 3)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_default_of_every_setting_is_of_the_type_that_it_asks_for(name):
    kind = OBJECTIVES[name]
    parameters = inspect.signature(kind).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert checked_settings("any", kind, defaults) == defaults


@pytest.mark.parametrize(
    ("arm", "settings"),
    [
        ("ups", {"ups": {"rule": "ensemble"}}),
        ("fidelity", {"fidelity": {"source": "spread"}}),
        ("slam+ups", {"ups": {"rule": "ensemble"}}),
    ],
)
def test_a_spread_that_the_teacher_does_not_give_is_refused_before_anything_is_bought(
    tmp_path, arm, settings
):
    run = config(tmp_path, arm, settings=settings)
    for one in (TeacherConfig(kind="fit"), TeacherConfig(kind="callable", function="a:b")):
        with pytest.raises(ConfigError, match=f"{one.kind} has one opinion"):
            check_objectives(replace(run, teacher=one), 2)
    for several in (TeacherConfig(kind="fit", members=2), TeacherConfig(kind="student")):
        check_objectives(replace(run, teacher=several), 2)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("weighted", "'weighted', which begins with labelled rows alone"),
        ("M:Feature", r"over embeddings alone.*'soft_kd\+M:Feature'"),
    ],
)
def test_without_labelled_rows_something_must_still_teach_the_whole_student(
    tmp_path, mine, arm, message
):
    arm = arm.replace("M:", f"{mine}:")
    run = config(tmp_path, arm, "labels_and_validation", "soft_kd")
    check_objectives(run, 2)
    run = replace(run, train=TrainConfig(labelled_weight=0.0))
    with pytest.raises(ConfigError, match=message.replace("M:", f"{mine}:")):
        check_objectives(run, 2)
    ok = config(tmp_path, "labels_and_validation", "slam", f"soft_kd+{mine}:Feature")
    check_objectives(replace(ok, train=run.train), 2)
