"""Counts against closed forms and against torch's own counter on real tensors."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from limbeck.errors import ShapeError
from limbeck.search import spaces
from limbeck.search.counting import count


def flops(module, *inputs):
    """Half the floating-point operations that torch counts while it computes."""
    # The counter does not know fused attention on a CPU.
    plain = sdpa_kernel(SDPBackend.MATH)
    with plain, FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    total = counter.get_total_flops()
    assert total % 2 == 0
    return total // 2


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [(3, 2, 1, 1), (5, 1, 0, 2)])
def test_a_convolution_costs_its_window_at_every_output(kernel, stride, padding, dilation, groups):
    layer = nn.Conv2d(8, 16, kernel, stride, padding, dilation, groups)
    counts = count(layer, torch.zeros(2, 8, 19, 17))
    height, width = (
        (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for side in (19, 17)
    )
    assert counts.macs == 2 * height * width * 16 * (8 // groups) * kernel**2
    assert counts.parameters == 16 * (8 // groups) * kernel**2 + 16
    assert counts.activation_bytes == 4 * 2 * (8 * 19 * 17 + 16 * height * width)


def test_a_transposed_convolution_costs_its_window_at_every_input():
    layer = nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2)
    assert count(layer, torch.zeros(1, 6, 5, 7)).macs == 5 * 7 * 6 * (4 // 2) * 9


def test_a_linear_layer_costs_its_matrix_for_every_row():
    counts = count(nn.Linear(7, 5), torch.zeros(3, 4, 7))
    assert counts == (7 * 5 + 5, 3 * 4 * 7 * 5, 4 * 3 * 4 * (7 + 5))


def test_norms_biases_activations_and_pools_cost_no_multiply_adds():
    module = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2), nn.Sigmoid())
    assert count(module, torch.zeros(1, 3, 8, 8)).macs == 0


class Attention(nn.Module):
    """Written with functions, which no hook on a module sees."""

    def __init__(self, fused):
        super().__init__()
        self.qkv = nn.Linear(12, 36)
        self.fused = fused

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.fused:
            return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return torch.softmax(q @ k.transpose(1, 2), -1) @ v


@pytest.mark.parametrize("fused", [False, True])
def test_matrix_products_are_counted_wherever_they_are_called(fused):
    n, s, d = 2, 9, 12
    macs = count(Attention(fused), torch.zeros(n, s, d)).macs
    assert macs == n * s * d * 3 * d + 2 * n * s * s * d


def test_attention_modules_are_counted_to_the_last_product():
    n, s, d = 2, 6, 16
    layer = nn.TransformerEncoderLayer(d, 4, 32, dropout=0.0, batch_first=True)
    x = torch.randn(n, s, d)
    projections, feed, attend = 4 * n * s * d * d, 2 * n * s * d * 32, 2 * n * s * s * d
    assert count(layer, x).macs == projections + feed + attend == flops(layer.train(), x)


@pytest.mark.parametrize("name", spaces.SPACES)
def test_whole_networks_agree_with_torchs_counter(name):
    named = spaces.SPACES[name]
    module = named.build(named.space.default, classes=10).eval()
    x = torch.randn(2, 3, 32, 32)
    counts = count(module, x)
    assert counts.macs == flops(module, x)
    assert counts.parameters == sum(p.numel() for p in module.parameters())


def test_the_module_is_left_as_it_was():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU())
    module.train()
    module[1].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    count(module, torch.randn(2, 3, 8, 8))
    assert [one.training for one in module] == [True, False, True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not any(one._forward_hooks for one in module.modules())
    assert all(p.device.type == "cpu" and p.requires_grad for p in module.parameters())


def test_shared_parameters_count_once_and_their_products_each_time():
    layer = nn.Linear(5, 5)
    counts = count(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(1, 5))
    assert (counts.parameters, counts.macs) == (30, 50)


def test_the_peak_of_a_chain_is_its_widest_pair_of_neighbours():
    chain = nn.Sequential(nn.Linear(10, 100), nn.ReLU(), nn.Linear(100, 7), nn.Identity())
    assert count(chain, torch.zeros(3, 10)).activation_bytes == 4 * 3 * 200
    assert count(chain.double(), torch.zeros(3, 10).double()).activation_bytes == 8 * 3 * 200
    assert count(nn.Identity(), torch.zeros(3, 10)).activation_bytes == 4 * 3 * 10


def test_several_inputs_are_given_as_a_tuple():
    counts = count(nn.Bilinear(3, 4, 5), (torch.zeros(2, 3), torch.zeros(2, 4)))
    assert counts.parameters == 3 * 4 * 5 + 5
    assert counts.activation_bytes == 4 * 2 * (3 + 4 + 5)


class Branching(nn.Module):
    def forward(self, x):
        return x if float(x.sum()) > 0 else -x


@pytest.mark.parametrize("module", [nn.Linear(4, 3), Branching()])
def test_what_cannot_run_on_shapes_is_refused_in_one_sentence(module):
    module.train()
    with pytest.raises(ShapeError, match=r"could not run .* on shapes \(2, 5\)"):
        count(module, torch.zeros(2, 5))
    assert module.training
