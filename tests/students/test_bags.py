import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.students.bags import bag_sum


def case(lengths, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 7, (sum(lengths),), generator=generator)
    table = torch.randn(7, 3, dtype=dtype, generator=generator).requires_grad_()
    ends = torch.tensor([0, *lengths]).cumsum(0)
    return ids, table, ends[:-1], lengths


def slow(ids, table, lengths):
    """The definition: one bag after the other."""
    return torch.stack([table[part].sum(0) for part in ids.split(lengths)])


@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_sums_and_gradients_are_those_of_the_definition(lengths, seed):
    ids, table, offsets, lengths = case(lengths, seed)
    weight = torch.randn(len(lengths), 3, dtype=torch.float64)
    (expected,) = torch.autograd.grad((slow(ids, table, lengths) * weight).sum(), table)
    out = bag_sum(ids, table, offsets)
    assert torch.allclose(out, slow(ids, table, lengths))
    (found,) = torch.autograd.grad((out * weight).sum(), table)
    assert torch.allclose(found, expected)


def test_gradcheck():
    ids, table, offsets, _ = case([3, 0, 2, 5], 0)
    assert torch.autograd.gradcheck(lambda t: bag_sum(ids, t, offsets), (table,))


def test_float32_is_close_to_float64():
    ids, table, offsets, _ = case([3, 4, 2], 1)
    single = table.detach().float().requires_grad_()
    bag_sum(ids, table, offsets).square().sum().backward()
    bag_sum(ids, single, offsets).square().sum().backward()
    assert single.grad.dtype == torch.float32
    assert torch.allclose(single.grad.double(), table.grad, atol=1e-4)
