"""Contrastive distillation against slow loops; what is drawn, remembered and kept over a stop."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.answers import Answers
from limbeck.errors import ConfigError, LimbeckWarning, ShapeError
from limbeck.objectives import Crd, StudentOut, Targets, crd_loss
from limbeck.objectives.contrast import ClassIndex, remembered

POOL, NARROW, WIDE, CLASSES = 12, 3, 5, 3
CLASS_OF = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 1, 2, 0, 1])


def pool(rows=slice(None)):
    g = torch.Generator().manual_seed(1)
    probs = torch.full((POOL, CLASSES), 0.1)
    probs[torch.arange(POOL), CLASS_OF] = 0.8
    embeddings = torch.randn(POOL, WIDE, generator=g)
    return Answers(np.zeros((POOL, 16), np.uint8)[rows], probs[rows], embeddings[rows])


def made(seed=3, **settings):
    fitted = Crd(**{"negatives": 4, "projected": 6, **settings}).fit([pool()], None)
    return fitted.attach(NARROW, torch.Generator().manual_seed(seed))


def batch(objective, rows, seed=2, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    e = torch.randn(POOL, NARROW, generator=g).to(dtype)[rows]
    rows = torch.as_tensor(rows)
    targets = objective.targets(pool(rows.numpy()))
    return StudentOut(e, e), Targets({**targets.tensors, "row": rows})


def scores(seed=0, rows=4, negatives=7):
    g = torch.Generator().manual_seed(seed)
    both = 3 * torch.randn(rows, negatives + 1, dtype=torch.float64, generator=g)
    return both[:, 0], both[:, 1:]


def slow(positive, negatives, z, n):
    """The equation, pair by pair."""
    k, e = len(negatives), math.exp(positive) / z
    loss = -math.log(e / (e + k / n))
    for score in negatives:
        e = math.exp(score) / z
        loss -= math.log(1 - e / (e + k / n))
    return loss


def test_the_loss_is_that_of_telling_pairs_apart_one_by_one():
    positive, negatives = scores()
    wanted = [slow(p, n, 50.0, 30) for p, n in zip(positive.tolist(), negatives.tolist(),
                                                   strict=True)]  # fmt: skip
    found = crd_loss(positive, negatives, math.log(50.0), 30)
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


def test_negatives_that_do_not_count_might_as_well_not_be_there():
    positive, negatives = scores()
    kept = torch.ones_like(negatives, dtype=torch.bool)
    kept[:, 5:] = False
    found = crd_loss(positive, negatives, 2.0, 30, kept=kept)
    torch.testing.assert_close(found, crd_loss(positive, negatives[:, :5], 2.0, 30))


@pytest.mark.parametrize("count", [0, 3])
def test_an_anchor_without_negatives_costs_nothing_and_has_no_gradient(count):
    positive, negatives = scores(negatives=count)
    p, n = positive.clone().requires_grad_(), negatives.clone().requires_grad_()
    found = crd_loss(p, n, 2.0, 30, kept=torch.zeros_like(n, dtype=torch.bool))
    found.sum().backward()
    assert torch.equal(found.detach(), torch.zeros(4, dtype=torch.float64))
    assert torch.equal(p.grad, torch.zeros_like(p))
    assert torch.equal(n.grad, torch.zeros_like(n))


def test_gradients_are_those_of_finite_differences():
    positive, negatives = (x.clone().requires_grad_() for x in scores())
    assert torch.autograd.gradcheck(lambda p, n: crd_loss(p, n, 2.0, 30), (positive, negatives))


def test_scores_at_the_ends_are_finite_in_single_precision():
    positive = torch.tensor([-1 / 0.07, 1 / 0.07], requires_grad=True)
    found = crd_loss(positive, torch.tensor([[-1 / 0.07], [1 / 0.07]]), 30.0, 10**6)
    found.sum().backward()
    assert found.isfinite().all()
    assert positive.grad.isfinite().all()
    half = crd_loss(positive.bfloat16(), torch.zeros(2, 3).bfloat16(), 30.0, 10)
    assert half.dtype == torch.float32


def test_scores_of_other_rows_are_refused():
    with pytest.raises(ShapeError, match=r"give \(B,\) and \(B, K\)"):
        crd_loss(torch.zeros(3), torch.zeros(4, 2), 0.0, 5)


@given(seed=st.integers(0, 2**31), count=st.integers(1, 30))
def test_negatives_are_rows_of_every_class_but_one(seed, count):
    index = ClassIndex.build(CLASS_OF, CLASSES)
    for spared in range(CLASSES):
        drawn = index.others(spared, count, seed, 1)
        there = int((spared != CLASS_OF).sum())
        assert len(drawn) == min(count, there)
        assert (CLASS_OF[drawn] != spared).all()
        if count >= there:
            assert drawn.unique().numel() == there
    assert len(index.others(None, count, seed, 1)) == min(count, POOL)


def test_each_row_that_may_be_drawn_is_drawn_equally_often():
    index = ClassIndex.build(CLASS_OF, CLASSES)
    drawn = torch.cat([index.others(0, 6, 0, step) for step in range(2000)])
    share = torch.bincount(drawn, minlength=POOL)[CLASS_OF != 0] / len(drawn)
    torch.testing.assert_close(share, torch.full((7,), 1 / 7), atol=0.01, rtol=0)


def test_partners_are_any_rows_of_the_same_class_equally_often():
    index, rows = ClassIndex.build(CLASS_OF, CLASSES), torch.arange(POOL)
    found = torch.stack([index.partners(rows, 0, step) for step in range(3000)])
    for row in range(POOL):
        assert (CLASS_OF[found[:, row]] == CLASS_OF[row]).all()
        mine = CLASS_OF[row] == CLASS_OF
        share = torch.bincount(found[:, row], minlength=POOL)[mine] / 3000
        torch.testing.assert_close(
            share, torch.full_like(share, 1 / int(mine.sum())), atol=0.04, rtol=0
        )
    order = torch.randperm(POOL, generator=torch.Generator().manual_seed(0))
    assert torch.equal(index.partners(order, 0, 5), index.partners(rows, 0, 5)[order])


def test_an_entry_is_mixed_with_what_was_seen_and_brought_to_length_one():
    g = torch.Generator().manual_seed(0)
    bank, seen = torch.randn(5, 4, generator=g), torch.randn(3, 4, generator=g)
    rows, entries = remembered(bank, torch.tensor([4, 1, 4]), seen, 0.25)
    assert rows.tolist() == [1, 4]
    for entry, row, fresh in zip(entries, rows, (seen[1], (seen[0] + seen[2]) / 2), strict=True):
        mixed = 0.25 * bank[row] + 0.75 * fresh
        torch.testing.assert_close(entry, mixed / mixed.norm())


def unit(x):
    return [v / math.hypot(*x) for v in x]


def by_hand(objective, rows, relax=False, from_row=False):
    """Both anchors of each row, pair by pair, from the maps, the banks and the draws."""
    state = {name: t.tolist() for name, t in objective.state_dict().items()}
    out, targets = batch(objective, rows)
    index = ClassIndex.build(CLASS_OF, CLASSES)
    pairs = {"student": [], "teacher": []}
    for i, row in enumerate(rows):
        spared = None if from_row else int(CLASS_OF[row])
        others = index.others(spared, objective.negatives, state["seed"], state["step"]).tolist()
        others = [x for x in others if x != row]
        own = row
        if relax:
            own = int(index.partners(torch.tensor([row]), state["seed"], state["step"]))
        for side, bank, e in (
            ("student", "teacher", out.embedding[i].tolist()),
            ("teacher", "student", targets["embeddings"][i].tolist()),
        ):
            weight, bias = state[f"maps.{side}.weight"], state[f"maps.{side}.bias"]
            u = unit([sum(w * x for w, x in zip(line, e, strict=True)) + b
                      for line, b in zip(weight, bias, strict=True)])  # fmt: skip
            found = [sum(x * y for x, y in zip(u, state[bank][j], strict=True)) / 0.07
                     for j in (own, *others)]  # fmt: skip
            pairs[side].append(found)
    total = torch.zeros(len(rows))
    for found in pairs.values():
        every = [math.exp(x) for row in found for x in row]
        z = sum(every) / len(every) * POOL
        total += torch.tensor([slow(row[0], row[1:], z, POOL) for row in found])
    return total


@pytest.mark.parametrize("negatives", [4, 100])
@pytest.mark.parametrize("positive", ["exact", "relax"])
@pytest.mark.parametrize("source", ["class", "row"])
def test_the_objective_is_both_anchors_among_entries_of_the_other_bank(negatives, positive, source):
    objective = made(negatives=negatives, positive=positive, negatives_from=source)
    rows = [5, 0, 7, 1, 3]
    objective.begin_step(0.0)
    wanted = by_hand(objective, rows, positive == "relax", source == "row")
    found = objective.loss(*batch(objective, rows), None)
    torch.testing.assert_close(found, 0.8 * wanted, atol=1e-4, rtol=1e-4)


def test_the_embeddings_gradient_is_that_of_finite_differences():
    objective = made()
    objective.begin_step(0.0)
    out, targets = batch(objective, [5, 0, 7], dtype=torch.float64)
    objective.loss(out, targets, None)  # sets Z
    e = out.embedding.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: objective.loss(StudentOut(x, x), targets, None), e)


def test_z_is_set_by_the_first_batch_and_never_again():
    objective = made()
    objective.begin_step(0.0)
    assert objective.state_dict()["log_z"].isnan().all()
    objective.loss(*batch(objective, [0, 1, 2]), None)
    first = objective.state_dict()["log_z"].clone()
    assert first.isfinite().all()
    objective.begin_step(0.1)
    objective.loss(*batch(objective, [3, 4]), None)
    assert torch.equal(objective.state_dict()["log_z"], first)


def test_banks_and_draws_move_with_the_share_alone():
    objective = made(negatives=2)
    objective.begin_step(0.0)
    out, targets = batch(objective, [0, 1, 5])
    first = objective.loss(out, targets, None)
    objective.begin_step(0.0)
    assert torch.equal(objective.loss(out, targets, None), first)
    before = {n: t.clone() for n, t in objective.state_dict().items()}
    objective.begin_step(0.1)
    after = objective.state_dict()
    for side in ("student", "teacher"):
        rows, entries = remembered(before[side], targets["row"], before[f"seen_{side}"], 0.5)
        wanted = before[side].clone()
        wanted[rows] = entries
        torch.testing.assert_close(after[side], wanted)
        assert not torch.equal(after[side][targets["row"]], before[side][targets["row"]])
        assert torch.equal(after[side][6:], before[side][6:])
    assert int(after["step"]) == int(before["step"]) + 1
    assert not torch.equal(objective.loss(out, targets, None), first)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_one_that_is_stopped_and_restored_goes_on_as_if_it_never_was(stop):
    def steps(objective, first, last):
        optimizer = torch.optim.SGD(objective.parameters(), lr=0.05)
        for step in range(first, last):
            objective.begin_step(step / 4)
            optimizer.zero_grad()
            rows = [(3 * step + i) % POOL for i in range(4)]
            objective.loss(*batch(objective, rows, seed=step), None).mean().backward()
            optimizer.step()
        return objective

    whole = steps(made(), 0, 4).state_dict()
    kept = {n: t.clone() for n, t in steps(made(), 0, stop).state_dict().items()}
    other = made(seed=8)
    other.load_state_dict(kept)
    resumed = steps(other, stop, 4).state_dict()
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_training_makes_a_row_of_the_student_point_at_its_own_row_of_the_teacher():
    objective = made(negatives_from="row", negatives=64, projected=8)
    out, targets = batch(objective, list(range(POOL)))
    e = out.embedding.clone().requires_grad_()
    optimizer = torch.optim.Adam([e, *objective.parameters()], lr=0.05)
    for step in range(150):
        objective.begin_step(step / 150)
        optimizer.zero_grad()
        objective.loss(StudentOut(e, e), targets, None).mean().backward()
        optimizer.step()
    state = objective.state_dict()
    nearest = (state["student"] @ state["teacher"].T).argmax(1)
    assert (nearest == torch.arange(POOL)).float().mean() > 0.9


def test_a_pool_of_one_class_says_that_nothing_is_taught():
    one = Answers(pool().ids, torch.tensor([[0.8, 0.1, 0.1]]).repeat(POOL, 1), pool().embeddings)
    with pytest.warns(LimbeckWarning, match="all rows into one class.*negatives_from='row'"):
        objective = Crd().fit([one], None).attach(NARROW, torch.Generator())
    out, _ = batch(objective, [0, 1])
    targets = objective.targets(Answers(one.ids[:2], one.probs[:2], one.embeddings[:2]))
    found = objective.loss(out, Targets({**targets.tensors, "row": torch.arange(2)}), None)
    assert torch.equal(found, torch.zeros(2))
    Crd(negatives_from="row").fit([one], None)


def test_targets_without_the_rows_places_are_refused():
    objective = made()
    out, targets = batch(objective, [0, 1])
    bare = Targets({name: t for name, t in targets.tensors.items() if name != "row"})
    with pytest.raises(ConfigError, match="crd: targets need a tensor 'row'"):
        objective.loss(out, bare, None)
    beyond = Targets({**bare.tensors, "row": torch.tensor([0, POOL])})
    with pytest.raises(ConfigError, match=f"row {POOL} is not among the {POOL} rows"):
        objective.loss(out, beyond, None)
