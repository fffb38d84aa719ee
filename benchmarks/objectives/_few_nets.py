"""Teachers and students with few classes: networks with one hidden layer, trained side by side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.answers import Answers
from limbeck.objectives import Objective, StudentOut, Targets

BATCH, EVALUATIONS, RATE = 256, 8, 3e-3
LARGEST = 8_000_000
"""Numbers of targets that are kept for a whole pool; more are computed for each minibatch."""


class Nets(nn.Module):
    """Networks with one hidden layer, their embedding, side by side in one product of matrices.

    Args:
        width: Of the inputs.
        hidden: Of the embedding.
        heads: Outputs of each network.
        seeds: Of the first weights, one a network.
        dropout: Share of the embedding dropped in training.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        heads: Sequence[int],
        seeds: Sequence[int],
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        count = len(heads)
        self.heads = list(heads)
        bodies, tops = [], []
        for seed in seeds:
            g = torch.Generator().manual_seed(seed)
            bodies.append(torch.randn(width, hidden, generator=g) * (2 / width) ** 0.5)
            tops.append(torch.randn(hidden, max(heads), generator=g) / hidden**0.5)
        self.body = nn.Parameter(torch.stack(bodies))
        self.body_bias = nn.Parameter(torch.zeros(count, 1, hidden))
        self.head = nn.Parameter(torch.stack(tops))
        self.head_bias = nn.Parameter(torch.zeros(count, 1, max(heads)))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> list[StudentOut]:
        """What each network makes of the same rows (b, width)."""
        inputs = x.expand(len(self.heads), *x.shape)
        hidden = self.dropout(torch.relu(torch.baddbmm(self.body_bias, inputs, self.body)))
        outputs = torch.baddbmm(self.head_bias, hidden, self.head)
        return [StudentOut(outputs[i, :, :w], hidden[i]) for i, w in enumerate(self.heads)]

    @torch.no_grad()
    def look(self, x: Tensor) -> list[StudentOut]:
        """The same in evaluation mode, for many rows."""
        self.eval()
        blocks = [self(block) for block in x.split(4_096)]
        self.train()
        return [
            StudentOut(
                torch.cat([o.outputs for o in parts]), torch.cat([o.embedding for o in parts])
            )
            for parts in zip(*blocks, strict=True)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """A fitted objective and what it wants of a pool.

    Args:
        objective: Fitted and attached.
        answers: Of the pool, in its order.
        targets: Of the whole pool, or None where they take too much room.
    """

    objective: Objective
    answers: Answers
    targets: Targets | None

    @classmethod
    def of(cls, objective: Objective, answers: Answers) -> "Arm":
        """Keep the targets where they are small."""
        few = objective.targets(part(answers, np.arange(min(8, len(answers))))).tensors
        size = sum(t[0].numel() for t in few.values()) * len(answers)
        return cls(objective, answers, objective.targets(answers) if size <= LARGEST else None)

    def loss(self, out: StudentOut, rows: Tensor) -> Tensor:
        """Mean loss of a minibatch."""
        if self.targets is None:
            found = dict(self.objective.targets(part(self.answers, rows.numpy())).tensors)
        else:
            found = {name: t[rows] for name, t in self.targets.tensors.items()}
        if self.objective.needs_rows:
            found["row"] = rows
        return self.objective.loss(out, Targets(found), None).mean()


def part(answers: Answers, rows: np.ndarray) -> Answers:
    """Answers of some rows."""
    at = torch.from_numpy(rows)
    embeddings = None if answers.embeddings is None else answers.embeddings[at]
    return Answers(answers.ids[rows], answers.probs[at], embeddings)


@dataclass(frozen=True, slots=True)
class Score:
    """Of the step that is best on validation; accuracies as shares of one.

    `plain` reads the classes at temperature 1, whatever the temperature of the training.
    """

    validation: float
    test: float
    plain: float
    step: int


def score(
    objective: Objective, outs: Sequence[StudentOut], labels: Mapping[str, Tensor], step: int
) -> Score:
    """Judge what a student makes of validation and of test rows.

    Args:
        objective: Reads the outputs.
        outs: Of all validation rows, then of all test rows.
        labels: Of both splits by name.
        step: Steps taken.
    """
    seen, tested = (objective.class_log_probs(out) for out in outs)
    outputs = outs[1].outputs
    plain = outputs.view(len(outputs), tested.shape[1], -1).logsumexp(dim=2)
    return Score(
        accuracy(seen, labels["validation"]),
        accuracy(tested, labels["test"]),
        accuracy(plain, labels["test"]),
        step,
    )


def train(
    nets: Nets,
    x: Tensor,
    losses: Sequence[Callable[[StudentOut, Tensor], Tensor]],
    steps: int,
    seed: int,
    *,
    begin: Callable[[float], None] = lambda share: None,
    extra: Sequence[nn.Parameter] = (),
    look: Callable[[int], None] = lambda step: None,
) -> None:
    """Train all networks on the same minibatches, each by its own loss.

    Args:
        nets: Trained in place.
        x: Inputs, shape (n, width).
        losses: One a network: of its outputs and the rows, a scalar.
        steps: Gradient steps.
        seed: Of the order.
        begin: Told the share of the schedule before each step.
        extra: Further parameters to train.
        look: Called with the number of steps taken, eight times.
    """
    optimizer = torch.optim.AdamW(
        [*nets.parameters(), *extra], lr=RATE, weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    g = torch.Generator().manual_seed(seed)
    nets.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for step in range(steps):
            rows = torch.randint(len(x), (BATCH,), generator=g)
            begin(step / steps)
            optimizer.zero_grad()
            outs = nets(x[rows])
            total = torch.stack([f(out, rows) for f, out in zip(losses, outs, strict=True)]).sum()
            torch.autograd.backward(total)
            optimizer.step()
            schedule.step()
            if (step + 1) % (steps // EVALUATIONS) == 0:
                look(step + 1)


def accuracy(log_probs: Tensor, labels: Tensor) -> float:
    """Share of rows whose most probable class is the label."""
    return float((log_probs.argmax(dim=1) == labels).double().mean())
