"""What every objective must do, whoever wrote it. Walks the registry and installed packages."""

import numpy as np
import pytest
import torch
from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import ConfigError
from limbeck.objectives import (
    OBJECTIVES,
    Evidence,
    Objective,
    Snapshot,
    StudentOut,
    Targets,
    objective_class,
)
from limbeck.registry import names
from limbeck.trust import NeighbourTrust

C, D = 4, 6
NAMES = names("objectives", OBJECTIVES)
BAD_SETTINGS: dict[str, list[dict[str, object]]] = {
    "labels": [],
    "hard_kd": [],
    "soft_kd": [{"temperature": 0.0}, {"temperature": -1.0}],
    "alpha_weighted": [{"target": "mild"}],
    "fidelity": [
        *({"beta": bad} for bad in (-1.0, float("inf"), float("nan"))),
        {"source": "mood"},
        {"target": "mild"},
    ],
    "taylor": [{"order": 0}, {"order": 1.5}],
    "ups": [
        {"rule": "mood"},
        *({"positive": bad} for bad in (0.5, 1.1)),
        *({"negative": bad} for bad in (0.0, 0.5)),
        {"positive_spread": -0.1},
        {"negative_spread": float("nan")},
    ],
    "weighted": [{"target": "mild"}, {"pretrain": 1.0}, {"refresh_every": -1.0}],
    "slam": [{"target": "mild"}, {"eps": 0.0}, {"eps": 1.0}],
}


def answers(rows: int, seed: int = 0) -> Answers:
    g = torch.Generator().manual_seed(seed)
    probs = torch.softmax(2 * torch.randn(rows, C, generator=g), dim=1)
    ids = np.arange(rows * 16, dtype=np.uint8).reshape(rows, 16)
    embeddings = torch.randn(rows, D, generator=g)
    return Answers(ids, probs, embeddings, 0.05 * torch.rand(rows, C, generator=g))


def fitted(name: str) -> Objective:
    told = answers(40, seed=9)
    labels = told.probs.argmax(dim=1)
    known = Evidence(
        told.probs,
        labels,
        lambda p: p.max(dim=1).values.clamp(0.5, 1.0),
        3,
        lambda logs: NeighbourTrust.fit(told.probs, logs, labels),
    )
    return objective_class(name)().fit([answers(16), answers(16, seed=1)], known)


def student(objective: Objective, rows: int, dtype: torch.dtype = torch.float32) -> StudentOut:
    g = torch.Generator().manual_seed(5)
    width = objective.width(C)
    outputs = torch.randn(rows, width, dtype=torch.float64, generator=g).to(dtype)
    embedding = torch.randn(rows, D, dtype=torch.float64, generator=g).to(dtype)
    return StudentOut(outputs.requires_grad_(), embedding.requires_grad_())


def both_losses(objective: Objective, out: StudentOut, rows: int) -> list[Tensor]:
    """The loss of labelled rows and, where it learns from answers, of pool rows."""
    losses = [objective.loss(out, None, torch.arange(rows) % C)]
    if objective.needs_answers:
        losses.append(objective.loss(out, objective.targets(answers(rows)), None))
    return losses


@pytest.mark.parametrize("name", NAMES)
def test_it_is_registered_under_its_own_name(name):
    assert objective_class(name).name == name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_there_is_one_finite_loss_a_row_with_finite_gradients(name, rows):
    objective = fitted(name)
    out = student(objective, rows)
    for loss in both_losses(objective, out, rows):
        assert loss.shape == (rows,)
        assert loss.isfinite().all()
        loss.sum().backward()
        assert out.outputs.grad is not None
        assert out.outputs.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_inputs_give_the_same_loss_and_are_left_unchanged(name):
    objective = fitted(name)
    out, told = student(objective, 7), answers(7)
    before = [x.detach().clone() for x in (out.outputs, out.embedding, told.probs)]
    losses = [both_losses(objective, out, 7) for _ in range(2)]
    if objective.needs_answers:
        objective.targets(told)
    for first, second in zip(*losses, strict=True):
        assert torch.equal(first, second)
    for old, new in zip(before, (out.outputs, out.embedding, told.probs), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_of_a_batch_costs_what_it_costs_alone(name):
    objective = fitted(name)
    out = student(objective, 7)
    together = both_losses(objective, out, 7)
    told = answers(7)
    for i in range(7):
        row = StudentOut(out.outputs[i : i + 1], out.embedding[i : i + 1])
        one = objective.loss(row, None, torch.tensor([i % C]))
        torch.testing.assert_close(one[0], together[0][i])
        if objective.needs_answers:
            parts = (told.ids, told.probs, told.embeddings, told.spread)
            alone = Answers(*(part[i : i + 1] for part in parts))
            one = objective.loss(row, objective.targets(alone), None)
            torch.testing.assert_close(one[0], together[1][i])


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_close_to_float64(name):
    objective = fitted(name)
    pairs = zip(
        both_losses(objective, student(objective, 7, torch.float32), 7),
        both_losses(objective, student(objective, 7, torch.float64), 7),
        strict=True,
    )
    for single, double in pairs:
        torch.testing.assert_close(single, double.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_outputs_give_a_float32_loss(name):
    objective = fitted(name)
    for loss in both_losses(objective, student(objective, 7, torch.bfloat16), 7):
        assert loss.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", NAMES)
def test_the_gpu_agrees_with_the_cpu(name):
    objective = fitted(name)
    out, device = student(objective, 7), torch.device("cuda")
    moved = StudentOut(out.outputs.to(device), out.embedding.to(device))
    labels = torch.arange(7) % C
    torch.testing.assert_close(
        objective.loss(moved, None, labels.to(device)).cpu(), objective.loss(out, None, labels)
    )
    if objective.needs_answers:
        targets = objective.targets(answers(7))
        torch.testing.assert_close(
            objective.loss(moved, targets.to(device), None).cpu(),
            objective.loss(out, targets, None),
        )


@pytest.mark.parametrize("name", NAMES)
def test_targets_are_named_tensors_with_a_row_each(name):
    objective = fitted(name)
    targets = objective.targets(answers(7))
    assert isinstance(targets, Targets)
    assert all(len(tensor) == 7 for tensor in targets.tensors.values())
    assert not any(tensor.requires_grad for tensor in targets.tensors.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_head_is_at_least_as_wide_as_the_classes(name):
    assert fitted(name).width(C) >= C


@pytest.mark.parametrize("name", NAMES)
def test_class_probabilities_are_normalised(name):
    objective = fitted(name)
    probs = objective.class_log_probs(student(objective, 7)).exp()
    assert probs.shape == (7, C)
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(7))


@pytest.mark.parametrize("name", NAMES)
def test_a_refitted_objective_with_the_saved_state_gives_the_same_loss(name):
    first, second = fitted(name), fitted(name)
    second.load_state_dict(first.state_dict())
    out = student(first, 7)
    for a, b in zip(both_losses(first, out, 7), both_losses(second, out, 7), strict=True):
        assert torch.equal(a, b)


def refreshed(name: str) -> Objective:
    """Fitted, and with a snapshot of a student taken in, where it takes any."""
    objective = fitted(name)
    told = answers(40, seed=9)
    logs = torch.log_softmax(torch.randn(40, C, generator=torch.Generator().manual_seed(2)), dim=1)
    pool = answers(7)
    objective.refresh(Snapshot(logs, [(pool, torch.log_softmax(pool.probs, dim=1))]))
    assert len(told) == len(logs)
    return objective


REFRESHING = [name for name in NAMES if objective_class(name).refresh is not Objective.refresh]


@pytest.mark.parametrize("name", REFRESHING)
def test_what_a_refresh_has_learnt_is_the_same_each_time_and_lies_in_the_state(name):
    first, second, late = refreshed(name), refreshed(name), fitted(name)
    assert first.refresh_every is not None
    late.load_state_dict(first.state_dict())
    out = student(first, 7)
    targets = Targets({**first.targets(answers(7)).tensors, "row": torch.arange(7)})
    losses = [objective.loss(out, targets, None) for objective in (first, second, late)]
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(losses[0], losses[2])


@pytest.mark.parametrize("name", NAMES)
def test_neither_targets_nor_labels_is_refused(name):
    objective = fitted(name)
    with pytest.raises(ConfigError, match="neither targets nor labels"):
        objective.loss(student(objective, 2), None, None)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_bad_settings_are_refused(name):
    for settings in BAD_SETTINGS[name]:
        (setting,) = settings
        with pytest.raises(ConfigError, match=setting):
            objective_class(name)(**settings)
