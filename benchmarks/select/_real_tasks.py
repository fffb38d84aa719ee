"""Splits of one seed, the teacher, and students that are trained side by side."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from benchmarks.select._real_features import SOURCES, clusters, features
from torch import Tensor, nn
from torch.nn import functional

from limbeck.objectives import kd_loss, slam_loss
from limbeck.trust import IsotonicTrust, margin, top_k

HIDDEN, BATCH_LABELLED, BATCH_BOUGHT, STEPS, RATE = 32, 16, 48, 100, 1e-2
TEACHER_HIDDEN, TEACHER_BATCH, TEACHER_STEPS, TEACHER_RATE = 128, 128, 400, 3e-3


class Nets(nn.Module):
    """MLPs with one hidden layer, from the same first weights; their embedding is that layer.

    Side by side in one product of matrices each step takes a fraction of the time.
    """

    def __init__(self, count: int, width: int, hidden: int, classes: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layers = nn.Linear(width, hidden), nn.Linear(hidden, classes)
        for name, layer in zip(("body", "head"), layers, strict=True):
            for part, start in ((name, layer.weight.T), (f"{name}_bias", layer.bias[None])):
                copies = start.detach().repeat(count, 1, 1)
                self.register_parameter(part, nn.Parameter(copies))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (count, b, classes) of inputs (count, b, width), each net its own."""
        hidden = torch.relu(torch.baddbmm(self.body_bias, x, self.body))
        return torch.baddbmm(self.head_bias, hidden, self.head)

    @torch.no_grad()
    def look(self, net: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities and embeddings by one of the nets."""
        embedding = torch.relu(torch.addmm(self.body_bias[net], x, self.body[net]))
        logits = torch.addmm(self.head_bias[net], embedding, self.head[net])
        return torch.softmax(logits, 1), embedding


@dataclass(frozen=True, slots=True, eq=False)
class Bought:
    """Inputs and answers, as many for each student: (students, n, width), (students, n, classes).

    Args:
        x: Inputs.
        told: The teacher's probabilities.
        noisy: Students that learn by SLaM, the last ones; those before by soft distillation.
    """

    x: Tensor
    told: Tensor
    noisy: Tensor


class Task:
    """Splits and a teacher of one seed: a larger net that rows of its own have trained."""

    def __init__(self, name: str, teacher: str, seed: int) -> None:
        source, (x, y, x_test, y_test) = SOURCES[name], features(name)
        order = np.random.default_rng(seed).permutation(len(x))
        sizes = (source.labelled, source.validation, source.pool)
        parts = dict(zip(("labelled", "validation", "pool", "own"),
                         np.split(order, np.cumsum(sizes)), strict=True))  # fmt: skip
        parts["own"] = parts["own"][: source.teachers[teacher]]
        self.seed, self.classes = seed, int(y.max()) + 1
        self.clusters = clusters(name)[parts["pool"]]
        self.x = {part: torch.from_numpy(x[rows]) for part, rows in parts.items()}
        self.y = {part: torch.from_numpy(y[rows]) for part, rows in parts.items()}
        self.x["test"], self.y["test"] = torch.from_numpy(x_test), torch.from_numpy(y_test)
        self._teacher = self._train_teacher()
        self.told = {part: self.ask(self.x[part]) for part in ("validation", "pool", "test")}
        self.right = {part: told.argmax(1) == self.y[part] for part, told in self.told.items()}
        self.error = {part: 1 - float(r.float().mean()) for part, r in self.right.items()}
        self.trust = IsotonicTrust.fit(margin(self.told["validation"]), self.right["validation"])
        self.k = top_k(self.told["validation"], self.y["validation"])

    def ask(self, x: Tensor) -> Tensor:
        """The teacher's probabilities."""
        return self._teacher.look(0, x)[0]

    def train(self, bought: Bought) -> Nets:
        """Train students from scratch on the labelled rows and on what each has bought."""
        count, n, width = bought.x.shape
        nets = Nets(count, width, HIDDEN, self.classes, self.seed)
        x, told, alpha = self._joined(bought)
        slam, soft = bought.noisy.nonzero()[:, 0], (~bought.noisy).nonzero()[:, 0]
        labelled = x.shape[1] - n
        # Mean over labelled rows and mean over bought rows count alike.
        sizes = torch.tensor([BATCH_LABELLED, BATCH_BOUGHT if n else 0])
        share = (1 / sizes).repeat_interleave(sizes)
        first = torch.randint(labelled, (STEPS, BATCH_LABELLED), generator=self._draws())
        second = torch.randint(max(n, 1), (STEPS, int(sizes[1])), generator=self._draws())
        rows = torch.cat([first, labelled + second], dim=1)

        def loss(step: int) -> Tensor:
            at = rows[step]
            logits, target = nets(x.index_select(1, at)), told.index_select(1, at)
            each = [kd_loss(logits[soft].flatten(0, 1), target[soft].flatten(0, 1))]
            if len(slam):
                each.append(slam_loss(logits[slam].flatten(0, 1), target[slam].flatten(0, 1),
                                      alpha[:, at].flatten(), self.k,
                                      target="hard", normalized=True))  # fmt: skip
            return (torch.cat(each).view(count, -1) * share).sum()

        return _fit(nets, STEPS, RATE, loss)

    def _draws(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def _joined(self, bought: Bought) -> tuple[Tensor, Tensor, Tensor]:
        """Labelled and bought rows of each student, their targets, and SLaM's trust in those.

        With trust 1 SLaM is the cross-entropy with the label.
        """
        count = len(bought.x)
        labels = functional.one_hot(self.y["labelled"], self.classes).float()
        x = torch.cat([self.x["labelled"].expand(count, -1, -1), bought.x], dim=1)
        told = torch.cat([labels.expand(count, -1, -1), bought.told], dim=1)
        answers = bought.told[bought.noisy]
        alpha = self.trust.alpha(margin(answers.flatten(0, 1))).view(answers.shape[:2])
        return x, told, torch.cat([torch.ones(len(answers), len(labels)), alpha], dim=1)

    def _train_teacher(self) -> Nets:
        x, y = self.x["own"], self.y["own"]
        net = Nets(1, x.shape[1], TEACHER_HIDDEN, self.classes, 1_000 + self.seed)
        generator = self._draws()

        def loss(step: int) -> Tensor:
            at = torch.randint(len(y), (TEACHER_BATCH,), generator=generator)
            return functional.cross_entropy(net(x[None, at])[0], y[at])

        return _fit(net, TEACHER_STEPS, TEACHER_RATE, loss)


def _fit(nets: Nets, steps: int, rate: float, loss: Callable[[int], Tensor]) -> Nets:
    optimizer = torch.optim.Adam(nets.parameters(), rate, fused=True)
    for step in range(steps):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
    return nets.eval()
