"""SLaM and its rivals at work: noisy half-spaces, and digits with a spoilt teacher."""

import math
import statistics
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from limbeck.objectives import hard_kd_loss, kd_loss, slam_loss
from limbeck.trust import IsotonicTrust, margin, top_k

Loss = Callable[[Tensor, Tensor], Tensor]

few_rows = pytest.mark.filterwarnings("ignore:trust is fitted on:limbeck.errors.LimbeckWarning")


def halfspace(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Unit vectors of 20 dimensions at least 0.1 away from x_1 = 0, and their side."""
    g = torch.Generator().manual_seed(seed)
    x = functional.normalize(torch.randn(6 * n, 20, generator=g), dim=1)
    x = x[x[:, 0].abs() >= 0.1][:n]
    assert len(x) == n
    return x, (x[:, 0] > 0).long()


def flip(y: Tensor, alpha: Tensor, seed: int) -> Tensor:
    """Labels that are right with probability alpha."""
    g = torch.Generator().manual_seed(10_000 + seed)
    return torch.where(torch.rand(len(y), generator=g) < alpha, y, 1 - y)


def linear_error(x: Tensor, labels: Tensor, alpha: Tensor, seed: int, decay: float = 1e-4) -> float:
    """Train a logistic student with hard SLaM and give its error on fresh clean rows."""
    w = torch.zeros(20, requires_grad=True)
    optimiser = torch.optim.Adam([w], 0.5)
    teacher = functional.one_hot(labels, 2).float()
    for _ in range(120):
        optimiser.zero_grad()
        z = x @ w
        loss = slam_loss(torch.stack([-z / 2, z / 2], 1), teacher, alpha, 2, target="hard")
        (loss.mean() + decay * w.square().sum()).backward()
        optimiser.step()
    fresh, side = halfspace(4000, 500 + seed)
    return float(((fresh @ w.detach() > 0).long() != side).float().mean())


def test_error_on_a_halfspace_with_random_classification_noise_falls_with_more_rows():
    errors = []
    for n in (500, 2000, 8000):
        runs = []
        for seed in range(4):
            x, y = halfspace(n, seed)
            alpha = torch.full((n,), 0.7)
            runs.append(linear_error(x, flip(y, alpha, seed), alpha, seed))
        errors.append(statistics.fmean(runs))
    assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2]
    assert errors[2] < 0.03


def step(distance: Tensor) -> Tensor:
    return torch.where(distance < 0.25, 0.55, 1.0)


def slope(distance: Tensor) -> Tensor:
    return (0.55 + 0.45 * (distance - 0.1) / 0.4).clamp(max=1.0)


@pytest.mark.parametrize(("noise", "decay"), [(step, 1e-4), (slope, 1e-3)])
def test_knowing_which_labels_are_noisy_beats_cross_entropy_on_a_halfspace(noise, decay):
    # Instance-dependent noise: alpha is 0.55 near the boundary and 1 far from it. With a constant
    # alpha both losses find the same direction, so there would be no gap to see. The smooth kind
    # of noise needs the stronger weight decay: with 1e-4 the bounded loss has the larger error.
    gaps = []
    for seed in range(5):
        x, y = halfspace(500, seed)
        alpha = noise(x[:, 0].abs())
        labels = flip(y, alpha, seed)
        plain = linear_error(x, labels, torch.ones(500), seed, decay)
        gaps.append(plain - linear_error(x, labels, alpha, seed, decay))
    standard_error = statistics.stdev(gaps) / math.sqrt(len(gaps))
    assert statistics.fmean(gaps) > 3 * standard_error
    assert statistics.fmean(gaps) > 0.01


class Digits:
    """Standardised digits, a strong net's standardised logits, and one seed's split."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        images, classes = load_digits(return_X_y=True)
        raw = torch.tensor(images / 16, dtype=torch.float32)
        self.y = torch.tensor(classes)
        self.x = (raw - raw.mean(0)) / raw.std(0).clamp_min(1e-6)
        strong = fit(raw, 0, 20, lambda z, rows: functional.cross_entropy(z, self.y[rows]))
        logits = strong(raw).detach()
        self.logits = (logits - logits.mean(0)) / logits.std(0)

    def teacher(self, sigma: float, seed: int) -> Tensor:
        g = torch.Generator().manual_seed(2000 + seed)
        noise = sigma * torch.randn(self.logits.shape, generator=g)
        return torch.softmax(2 * self.logits + noise, 1)

    def split(self, seed: int, labelled: int = 60) -> tuple[Tensor, Tensor, Tensor]:
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(1000 + seed))
        train, test = order[:900], order[900:]
        return train[:labelled], train[labelled:], test

    def student(
        self,
        seed: int,
        labelled: Tensor,
        pool: Tensor,
        loss: Loss,
        before_epoch: Callable[[int, nn.Module], None] = lambda epoch, net: None,
    ) -> nn.Module:
        """Train on the mean loss of pool rows plus the mean cross-entropy of labelled rows."""
        x, y = self.x[labelled], self.y[labelled]

        def total(z: Tensor, rows: Tensor) -> Tensor:
            pooled = loss(z[: len(rows)], pool[rows]).mean()
            return pooled + functional.cross_entropy(z[len(rows) :], y)

        return fit(self.x[pool], seed, 60, total, always=x, before_epoch=before_epoch)

    def accuracy(self, net: nn.Module, rows: Tensor) -> float:
        with torch.no_grad():
            return float((net(self.x[rows]).argmax(1) == self.y[rows]).float().mean())


def fit(
    x: Tensor,
    seed: int,
    epochs: int,
    loss: Loss,
    always: Tensor | None = None,
    before_epoch: Callable[[int, nn.Module], None] = lambda epoch, net: None,
) -> nn.Module:
    """Train a net of one hidden layer; `loss` sees logits (of `always` too) and row numbers."""
    g = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    for p in net.parameters():
        nn.init.uniform_(p, -0.1, 0.1, generator=g)
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    for epoch in range(epochs):
        before_epoch(epoch, net)
        for rows in torch.randperm(len(x), generator=g).split(128):
            optimiser.zero_grad()
            inputs = x[rows] if always is None else torch.cat([x[rows], always])
            loss(net(inputs), rows).backward()
            optimiser.step()
    return net


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def arms(digits: Digits, sigma: float, seed: int) -> dict[str, float]:
    """Test accuracies of the arms of the end-to-end table, one seed."""
    labelled, pool, test = digits.split(seed)
    probs = digits.teacher(sigma, seed)
    known, truth = probs[labelled], digits.y[labelled]
    trust = IsotonicTrust.fit(margin(known), known.argmax(1) == truth)
    k, alpha, hard = top_k(known, truth), trust.alpha(margin(probs)), probs.argmax(1)

    def slam(target, normalized):
        return lambda z, rows: slam_loss(
            z, probs[rows], alpha[rows], k, target=target, normalized=normalized
        )

    losses = {
        "hard KD": lambda z, rows: hard_kd_loss(z, hard[rows]),
        "soft KD": lambda z, rows: kd_loss(z, probs[rows]),
        "hard norm": slam("hard", True),
        "hard": slam("hard", False),
        "soft": slam("soft", False),
    }
    return {
        name: digits.accuracy(digits.student(seed, labelled, pool, loss), test)
        for name, loss in losses.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(("sigma", "least"), [(2.0, 0.05), (4.0, 0.12)])
def test_the_end_to_end_table_has_its_shape(digits, sigma, least):
    runs = [arms(digits, sigma, seed) for seed in range(5)]

    def gap(a: str, b: str) -> tuple[float, float]:
        differences = [run[a] - run[b] for run in runs]
        return statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(5)

    # Un-normalised SLaM >= normalised SLaM > hard KD, and SLaM > soft KD, growing with the noise.
    for better, worse in (("hard", "hard KD"), ("soft", "hard KD"), ("hard", "soft KD")):
        mean, error = gap(better, worse)
        assert mean > 0, (better, worse)
        assert mean > 3 * error or mean > least, (better, worse)
    assert gap("hard", "hard KD")[0] > least
    mean, error = gap("hard", "hard norm")
    assert mean > -3 * error


@pytest.mark.slow
@few_rows
def test_oracle_trust_is_far_above_estimated_trust_since_it_drops_wrong_labels(digits):
    gaps = []
    for seed in range(3):
        labelled, pool, test = digits.split(seed, labelled=40)
        probs = digits.teacher(2.0, seed)
        known, truth = probs[labelled], digits.y[labelled]
        right = probs.argmax(1) == digits.y
        trust = IsotonicTrust.fit(margin(known), known.argmax(1) == truth)
        scores = []
        for alpha in (torch.where(right, 1.0, 0.5), trust.alpha(margin(probs))):
            net = digits.student(
                seed,
                labelled,
                pool,
                lambda z, rows, a=alpha: slam_loss(z, probs[rows], a[rows], 2, target="hard"),  # noqa: B023
            )
            scores.append(digits.accuracy(net, test))
        gaps.append(scores[0] - scores[1])
    assert min(gaps) > 0.02
