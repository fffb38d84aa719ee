"""The best small network under a limit on its parameters, on digits that ship with scikit-learn.

    python examples/search_architecture.py

LayerNAS asks for 40 architectures of a space of 512; each is trained for a moment and scored on
validation rows. The test rows are looked at once, for the answer.
"""

import itertools

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.search import Layer, LayerNAS, LayerwiseSpace, MonotoneCost

WIDTHS = (4, 8, 12, 16, 24, 32, 48, 64)
LIMIT = 3_000
TRIALS = 40


def parameters(architecture: tuple[int, ...]) -> float:
    """Weights and biases of 64 inputs, three hidden layers and 10 outputs."""
    sizes = [64, *(WIDTHS[s] for s in architecture), 10]
    return float(sum(a * b + b for a, b in itertools.pairwise(sizes)))


def train(architecture: tuple[int, ...], x: Tensor, y: Tensor) -> nn.Module:
    """100 steps of Adam on all rows."""
    torch.manual_seed(0)
    sizes = [64, *(WIDTHS[s] for s in architecture)]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Linear(sizes[-1], 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network


def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of rows that are right."""
    with torch.no_grad():
        return float((network(x).argmax(1) == y).float().mean())


def main() -> None:
    """Search, and tell what was found."""
    torch.set_num_threads(1)  # networks this small gain nothing from a second one
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    fit, validation, test = order[:600], order[600:1200], order[1200:]

    space = LayerwiseSpace(tuple(Layer(f"hidden {i}", WIDTHS) for i in (1, 2, 3)))
    search = LayerNAS(
        MonotoneCost(space, parameters), LIMIT, generator=torch.Generator().manual_seed(0)
    )
    for _ in range(TRIALS):
        trial = search.ask()
        if trial is None:  # everything under the limit has been tried
            break
        network = train(trial.architecture, x[fit], y[fit])
        search.tell(trial.number, accuracy(network, x[validation], y[validation]))

    best = search.best
    assert best is not None
    network = train(best.architecture, x[fit], y[fit])
    print(f"best of {len(search.history.trials)}: {space.values(best.architecture)}")
    print(f"parameters {best.cost:.0f} of {LIMIT}")
    print(f"validation {best.reward:.1%}  test {accuracy(network, x[test], y[test]):.1%}")
    print("the best for every limit:")
    for found in search.front():
        print(f"  {found.cost:6.0f} parameters  {found.reward:.1%}")


if __name__ == "__main__":
    main()
