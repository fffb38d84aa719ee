"""A sum of two objectives: what goes to which part, and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from limbeck.answers import Answers
from limbeck.errors import ConfigError
from limbeck.objectives import (
    AlphaWeighted,
    Combined,
    Crd,
    Evidence,
    Fidelity,
    FitNet,
    HardKD,
    Lelp,
    Objective,
    Rkd,
    Slam,
    Snapshot,
    SoftKD,
    StudentOut,
    Supervised,
    Targets,
    Taylor,
    Ups,
    Vid,
    Weighted,
    kd_loss,
    slam_loss,
    weighted_loss,
)
from limbeck.trust import NeighbourTrust

G = torch.Generator().manual_seed(0)
PROBS = torch.softmax(2 * torch.randn(6, 4, generator=G), 1)
TOLD = Answers(np.zeros((6, 16), np.uint8), PROBS, torch.randn(6, 5, generator=G))
OUT = StudentOut(torch.randn(6, 4, generator=G), torch.randn(6, 3, generator=G))
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


class Feature(Objective):
    """Squared distance of the projected embedding from the teacher's."""

    name = "feature"

    def __init__(self, *, wide: int = 0) -> None:
        generator = torch.Generator().manual_seed(1)
        self.projector = nn.Parameter(torch.randn(3, 5, generator=generator))
        self.wide = wide
        self.read = 0
        self.seen: list[str] = []

    def width(self, num_classes):
        return num_classes + self.wide

    def fit(self, answers, evidence):
        self.read = sum(len(part) for part in answers)
        return self

    def targets(self, answers):
        return Targets({"embeddings": answers.embeddings})

    def loss(self, out, targets, labels):
        if targets is None:
            return self.label_loss(out, labels) + 100.0
        self.seen = sorted(targets.tensors)
        return (out.embedding @ self.projector - targets["embeddings"]).square().mean(1)

    def parameters(self):
        return iter([self.projector])

    def state_dict(self):
        return {"projector": self.projector.data}

    def load_state_dict(self, state):
        self.projector.data.copy_(state["projector"])


def evidence():
    alpha = lambda p: p.max(dim=1).values.clamp(0.5, 1)  # noqa: E731
    return Evidence(PROBS, LABELS, alpha, 2)


def test_pool_rows_cost_the_weighted_sum_and_labelled_rows_the_first_part_once():
    feature = Feature()
    both = Combined(Slam(target="hard"), feature, weight=0.3).fit([TOLD], evidence())
    found = both.loss(OUT, both.targets(TOLD), None)
    slam = slam_loss(OUT.outputs, PROBS, evidence().alpha(PROBS), 2, target="hard")
    matched = (OUT.embedding @ feature.projector - TOLD.embeddings).square().mean(1)
    torch.testing.assert_close(found, slam + 0.3 * matched)
    torch.testing.assert_close(both.loss(OUT, None, LABELS), Supervised().loss(OUT, None, LABELS))


def test_what_a_loop_adds_to_the_targets_reaches_both_parts():
    first, second = Feature(), Feature()
    both = Combined(first, second)
    targets = both.targets(TOLD)
    assert sorted(targets.tensors) == ["first.embeddings", "second.embeddings"]
    both.loss(OUT, Targets({**targets.tensors, "row": torch.arange(6)}), None)
    assert first.seen == second.seen == ["embeddings", "row"]


def test_sums_can_be_summed():
    one, two = SoftKD(), Feature()
    three = Combined(Combined(one, two, weight=0.5), HardKD(), weight=2.0)
    wanted = (
        kd_loss(OUT.outputs, PROBS)
        + 0.5 * two.loss(OUT, two.targets(TOLD), None)
        + 2 * HardKD().loss(OUT, HardKD().targets(TOLD), None)
    )
    torch.testing.assert_close(three.loss(OUT, three.targets(TOLD), None), wanted)


@pytest.mark.parametrize("answers", [[TOLD, TOLD], iter([TOLD, TOLD])])
def test_each_part_reads_all_answers_when_it_is_fitted(answers):
    first, second = Feature(), Feature()
    Combined(first, second).fit(answers, None)
    assert first.read == second.read == 12


def test_parameters_and_state_are_those_of_both_parts():
    first, second = Feature(), Feature()
    both = Combined(first, second)
    assert list(both.parameters()) == [first.projector, second.projector]
    with torch.no_grad():
        second.projector.add_(1.0)
    fresh = Combined(Feature(), Feature())
    fresh.load_state_dict({name: t.clone() for name, t in both.state_dict().items()})
    assert torch.equal(fresh.first.projector, first.projector)
    assert torch.equal(fresh.second.projector, second.projector)
    with pytest.raises(KeyError, match="third"):
        fresh.load_state_dict({"third.x": torch.zeros(1)})


def test_class_probabilities_are_those_of_the_first_part():
    assert torch.equal(
        Combined(SoftKD(), Feature()).class_log_probs(OUT), SoftKD().class_log_probs(OUT)
    )


def test_trust_and_correction_are_known_of_a_sum():
    for part, trust, corrects in (
        (Slam(), True, True),
        (AlphaWeighted(), True, True),
        (Fidelity(), False, True),
        (Taylor(), False, False),
        (Ups(), False, False),
    ):
        both = Combined(part, Feature())
        assert (part.uses_trust, part.corrects_noise) == (trust, corrects)
        assert (both.uses_trust, both.corrects_noise) == (trust, corrects)


@pytest.mark.parametrize("second", [AlphaWeighted(), Fidelity(), Combined(Feature(), Slam())])
def test_two_corrections_of_one_noise_are_refused(second):
    with pytest.raises(ConfigError, match=r"slam and \w+ both correct .* twice"):
        Combined(Slam(), second)


@pytest.mark.parametrize("first", [Vid(), FitNet(leads=0.5), Combined(Rkd(), Crd())])
def test_a_first_part_that_teaches_no_head_is_refused_where_the_second_does(first):
    for second in (SoftKD(), Lelp()):
        with pytest.raises(ConfigError, match=f"{first.name} .* {second.name} .* turn the order"):
            Combined(first, second)
    assert not Combined(first, Vid()).uses_outputs
    assert Combined(Lelp(), first).width(2) == 16


def test_parts_that_need_different_heads_are_refused():
    with pytest.raises(ConfigError, match="slam needs a head of 4 outputs and feature one of 6"):
        Combined(Slam(), Feature(wide=2)).width(4)


@pytest.mark.parametrize("parts", [(Supervised(), Feature()), (Slam(), Supervised())])
def test_a_part_that_learns_from_labels_alone_is_refused(parts):
    with pytest.raises(ConfigError, match="labels learns from labels alone"):
        Combined(*parts)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_a_weight_that_is_no_positive_number_is_refused(weight):
    with pytest.raises(ConfigError, match="weight="):
        Combined(SoftKD(), Feature(), weight=weight)


def test_a_part_that_refreshes_makes_the_sum_refresh_with_its_schedule():
    known = Evidence(
        PROBS,
        LABELS % 4,
        lambda p: p.max(dim=1).values,
        2,
        lambda logs: NeighbourTrust.fit(PROBS, logs, LABELS % 4),
    )
    both = Combined(Weighted(refresh_every=2.0, pretrain=0.3), Feature()).fit([TOLD], known)
    assert (both.refresh_every, both.pretrain) == (2.0, 0.3)
    logs = torch.log_softmax(OUT.outputs, 1)
    both.refresh(Snapshot(logs, [(TOLD, logs)]))
    targets = Targets({**both.targets(TOLD).tensors, "row": torch.arange(6)})
    weights = both.state_dict()["first.weights"]
    parts = weighted_loss(OUT.outputs, PROBS, weights)
    feature = both.second.loss(OUT, Targets({"embeddings": TOLD.embeddings}), None)
    torch.testing.assert_close(both.loss(OUT, targets, None), parts + feature)
    assert Combined(Slam(), Feature()).refresh_every is None
    restless = Feature()
    restless.refresh_every = 1.0
    with pytest.raises(ConfigError, match="both refresh"):
        Combined(Weighted(), restless)
