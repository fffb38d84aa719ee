"""CRD, contrastive distillation: tell the teacher's view of a row from its views of others.

Linear maps that are learnt bring both embeddings to 128 numbers of length 1: u of a row in the
batch, v of an entry in a bank that remembers the other side's rows. With N pool rows, K negatives,
a constant Z and e(u, v) = exp(u . v / 0.07) / Z, the pair is judged to be of the same row with
probability h = e / (e + K / N), and a row costs

    - log h(u, its own v) - sum over K negatives v of log(1 - h(u, v)),

once with the student's u among the teacher's v, and once the other way round; times 0.8.

Source: Tian, Krishnan, Isola, "Contrastive representation distillation", ICLR 2020, arXiv
1910.10699, Section 3; settings, banks and Z are those of the public code. What differs from it: the
rows of a class share the negatives of a step, which costs a product of matrices instead of K
gathered entries a row; negatives are drawn with replacement; a row's class is what the teacher
says; h is computed in log space, without a small number under the fraction.
"""

import copy
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from limbeck.answers import Answers
from limbeck.errors import ConfigError, LimbeckWarning, ShapeError
from limbeck.objectives.base import Evidence, Objective, StudentOut, Targets
from limbeck.objectives.checks import check_factor, working
from limbeck.objectives.contrast import Banks, ClassIndex
from limbeck.objectives.features import (
    embeddings_of,
    fitted_width,
    linear,
    no_answers,
    not_attached,
    project,
)
from limbeck.objectives.mixing import first_max

Source = Literal["class", "row"]
Positive = Literal["exact", "relax"]
_Group = tuple[int, Tensor, Tensor, Tensor, Tensor | None]
"""Anchor's side, members, scores of the positives, of the negatives, and which of them count."""
_MAPS = "maps."


def crd_loss(
    positive: Tensor,
    negatives: Tensor,
    log_z: Tensor | float,
    rows: int,
    *,
    kept: Tensor | None = None,
) -> Tensor:
    """Cost of one anchor among one positive and K negatives.

    Args:
        positive: u . v / temperature of each anchor and its positive, floating point, shape (B,).
        negatives: The same with its negatives, floating point, shape (B, K).
        log_z: log Z.
        rows: N, the rows that negatives are drawn from.
        kept: Which of the negatives count, bool, shape (B, K); all of them unless given. K of a
            row is how many do.

    Returns:
        Loss of each anchor in nats, >= 0, shape (B,), float32 (float64 for float64). An anchor
        without any negative costs 0 and has no gradient.

    Raises:
        ShapeError: shapes do not fit each other.

    Cost: O(B K).
    """
    if negatives.ndim != 2 or positive.shape != negatives.shape[:1]:
        raise ShapeError(
            f"the positives have shape {tuple(positive.shape)} and the negatives "
            f"{tuple(negatives.shape)}; give (B,) and (B, K)."
        )
    positive, negatives = working(positive), working(negatives)
    count = negatives.shape[1] if kept is None else kept.sum(dim=1)
    noise = (positive.new_ones(len(positive)) * count / rows).log()  # log (K / N)
    hit = functional.logsigmoid(positive - log_z - noise)
    miss = functional.logsigmoid((noise + log_z)[:, None] - negatives)
    if kept is not None:
        miss = torch.where(kept, miss, 0.0)
    return -hit - miss.sum(dim=1)


@final
class Crd(Objective):
    """Contrastive distillation as an objective. Pool rows do not teach the head.

    The loss is a function of the state, which moves in `begin_step` alone: a call with another
    share than the one before puts what the last loss saw into the banks and draws new negatives. A
    loop of your own therefore calls `begin_step(step / steps)` before each step. Only Z is set by
    the first loss. In training on several processes each has banks of its own, and a resumed run
    takes those of the first.

    Args:
        weight: Factor of the loss of pool rows, > 0.
        negatives: K >= 1; fewer where there are not so many.
        negatives_from: "class" takes rows whose most probable class is another one, "row" all other
            rows.
        positive: "exact" takes the row's own entry, "relax" that of a random row of its class.
        temperature: Divides the inner products, > 0.
        momentum: Share of the old entry that a bank keeps when its row is seen, in [0, 1).
        projected: Numbers that both maps give, >= 1.
    """

    name = "crd"
    needs_embeddings = True
    needs_rows = True
    uses_outputs = False

    def __init__(
        self,
        *,
        weight: float = 0.8,
        negatives: int = 16384,
        negatives_from: Source = "class",
        positive: Positive = "exact",
        temperature: float = 0.07,
        momentum: float = 0.5,
        projected: int = 128,
    ) -> None:
        check_factor("weight", weight)
        check_factor("temperature", temperature)
        for setting, count in (("negatives", negatives), ("projected", projected)):
            if type(count) is not int or count < 1:
                raise ConfigError(f"{setting}={count!r}: must be an integer >= 1.")
        if negatives_from not in ("class", "row"):
            raise ConfigError(f"negatives_from={negatives_from!r}: must be 'class' or 'row'.")
        if positive not in ("exact", "relax"):
            raise ConfigError(f"positive={positive!r}: must be 'exact' or 'relax'.")
        if not 0 <= momentum < 1:
            raise ConfigError(f"momentum={momentum}: must be in [0, 1); 0 forgets the old entry.")
        self.weight = weight
        self.negatives = negatives
        self.negatives_from: Source = negatives_from
        self.positive: Positive = positive
        self.temperature = temperature
        self.momentum = momentum
        self.projected = projected
        self._width: int | None = None
        self._index: ClassIndex | None = None
        self._maps: nn.ModuleDict | None = None
        self._banks: Banks | None = None
        self._share = math.nan

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy that knows D and the class of every row; the answers are read once.

        Warns where all rows are of one class, so that no negative is of another.

        Raises:
            ConfigError: there are no answers, or they hold no embeddings.
        """
        fitted, classes, count = copy.copy(self), [], 0
        for part in answers:
            if len(part.probs):
                fitted._width = embeddings_of(self.name, part).shape[1]
                classes.append(first_max(part.probs))
                count = part.probs.shape[1]
        if not classes:
            raise no_answers(self.name)
        fitted._index = ClassIndex.build(torch.cat(classes), count)
        if self.negatives_from == "class" and int((fitted._index.counts > 0).sum()) == 1:
            warnings.warn(
                "crd: the teacher puts all rows into one class, so there are no negatives of "
                "another and this loss teaches nothing; set negatives_from='row'.",
                LimbeckWarning,
                stacklevel=2,
            )
        return fitted

    def attach(self, embedding_dim: int, generator: torch.Generator) -> Self:
        """Return a copy with both maps and both banks: 8 N `projected` bytes.

        Raises:
            ConfigError: the objective has not been fitted.
        """
        width, attached = fitted_width(self.name, self._width), copy.copy(self)
        attached._maps = nn.ModuleDict(
            {
                "student": linear(embedding_dim, self.projected, generator),
                "teacher": linear(width, self.projected, generator),
            }
        )
        attached._banks = Banks.draw(len(self._rows()), self.projected, generator)
        attached._share = math.nan
        return attached

    def begin_step(self, share: float) -> None:
        """Put what the last step saw into the banks; the same share again is the same step."""
        if share == self._share or self._banks is None:
            return
        self._share = share
        self._banks.advance(self.momentum)

    def targets(self, answers: Answers) -> Targets:
        """Give `embeddings`, (B, D), and `classes`, int64 (B,); the loop adds `row`."""
        embeddings = embeddings_of(self.name, answers)
        return Targets({"embeddings": embeddings, "classes": first_max(answers.probs)})

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Shape (B,), in nats: of pool rows both anchors' cost, of labelled rows cross-entropy.

        Raises:
            ConfigError: nothing has been attached, or the targets do not say which rows these are.

        Cost: O(B K `projected`) time; 8 B K numbers are kept for the way back.
        """
        if targets is None:
            return self.label_loss(out, labels)
        if self._maps is None or self._banks is None:
            raise not_attached(self.name)
        if "row" not in targets.tensors:
            raise ConfigError(
                "crd: targets need a tensor 'row', int64 (B,), the place of each row among the "
                "answers that `fit` read; add it to what `targets(answers)` gave."
            )
        student = _unit(self._maps["student"], out.embedding)
        teacher = _unit(self._maps["teacher"], targets["embeddings"].to(student.dtype))
        rows = targets["row"]
        if len(rows) == 0:
            return student.sum(dim=1)
        if rows.device.type == "cpu" and int(rows.max()) >= len(self._rows()):
            raise ConfigError(
                f"crd: row {int(rows.max())} is not among the {len(self._rows())} rows that were "
                f"fitted; give `row` as places in the order of the answers that `fit` read."
            )
        self._banks.see(rows, student, teacher)
        state, classes = self._banks.state, targets["classes"]
        return self.weight * self._both_anchors(student, teacher, rows, classes, state)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Weights and biases of both maps."""
        return iter(()) if self._maps is None else self._maps.parameters()

    def state_dict(self) -> dict[str, Tensor]:
        """The maps, the banks, Z, and what the next `begin_step` puts into the banks."""
        if self._maps is None or self._banks is None:
            return {}
        maps = {_MAPS + name: tensor for name, tensor in self._maps.state_dict().items()}
        return {**maps, **self._banks.state}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave."""
        if self._maps is None:
            raise not_attached(self.name)
        maps = {n.removeprefix(_MAPS): t for n, t in state.items() if n.startswith(_MAPS)}
        self._maps.load_state_dict(maps)
        self._banks = Banks({n: t.clone() for n, t in state.items() if not n.startswith(_MAPS)})
        self._share = math.nan

    def _both_anchors(
        self,
        student: Tensor,
        teacher: Tensor,
        rows: Tensor,
        classes: Tensor,
        state: dict[str, Tensor],
    ) -> Tensor:
        """Costs with the student's and with the teacher's row as the anchor, in the rows' order."""
        index, where = self._rows(), rows.device
        seed, step = int(state["seed"]), int(state["step"])
        positives = rows
        if self.positive == "relax":
            positives = index.partners(rows.cpu(), seed, step).to(where)
        groups = []
        for spared, members in self._groups(classes):
            others = index.others(spared, self.negatives, seed, step).to(where)
            kept = others != rows[members, None] if spared is None else None
            for side, (anchor, bank) in enumerate(((student, "teacher"), (teacher, "student"))):
                u, entries = anchor[members] / self.temperature, state[bank]
                hit = (u * entries[positives[members]]).sum(dim=1)
                miss = u @ entries[others].to(u.dtype).T
                groups.append((side, members, hit, miss, kept))
        if bool(state["log_z"].isnan().any()):
            state["log_z"] = _first_z(groups, len(index)).to(state["log_z"])
        total = torch.zeros_like(student[:, 0])
        for side, members, hit, miss, kept in groups:
            cost = crd_loss(hit, miss, state["log_z"][side], len(index), kept=kept)
            total = total.index_add(0, members, cost)
        return total

    def _groups(self, classes: Tensor) -> Iterator[tuple[int | None, Tensor]]:
        """Rows that share negatives, and the class that these are not of."""
        if self.negatives_from == "row":
            yield None, torch.arange(len(classes), device=classes.device)
            return
        for spared in torch.unique(classes).tolist():
            yield spared, (classes == spared).nonzero().squeeze(1)

    def _rows(self) -> ClassIndex:
        assert self._index is not None
        return self._index


def _first_z(groups: list[_Group], rows: int) -> Tensor:
    """Log Z of both sides: `rows` times the mean of exp(u . v / temperature) over a batch."""
    found = []
    for side in range(2):
        scores = torch.cat(
            [
                torch.cat([hit, miss.flatten() if kept is None else miss[kept]]).detach()
                for mine, _, hit, miss, kept in groups
                if mine == side
            ]
        )
        found.append(scores.logsumexp(0) + math.log(rows / len(scores)))
    return torch.stack(found)


def _unit(module: nn.Module, embedding: Tensor) -> Tensor:
    return functional.normalize(project(module, embedding), dim=1)
