"""The methods of the comparison, and the few settings that validation may choose from."""

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Self

import torch
from torch import Tensor, nn

from limbeck.answers import Answers
from limbeck.objectives import (
    Combined,
    Evidence,
    Objective,
    SoftKD,
    StudentOut,
    Targets,
    objective_class,
)
from limbeck.objectives.oracle_split import Lookup, OracleSplit

Settings = dict[str, object]

TAUS: list[Settings] = [{"temperature": tau} for tau in (1.0, 2.0, 4.0, 8.0)]
SPLIT: list[Settings] = [
    {"temperature": tau, "beta": beta}
    for tau, beta in ((1.0, 3.0), (2.0, 3.0), (4.0, 3.0), (2.0, 1.0))
]
FEATURES: list[Settings] = [
    {"temperature": tau, "weight": weight} for tau, weight in product((2.0, 4.0), (0.1, 1.0))
]
"""Temperature of soft KD, and the weight of the loss over embeddings beside it."""
GRIDS: dict[str, list[Settings]] = {
    "hard labels": [{"smoothing": share} for share in (0.0, 0.05, 0.1, 0.2)],
    "soft_kd": TAUS,
    "lelp": SPLIT,
    "lelp with trust": [{**s, "trust": True} for s in SPLIT],
    "pca_split": SPLIT,
    "random_projections": SPLIT,
    "random_split": TAUS,
    "kmeans_split": TAUS,
    "agglomerative_split": TAUS,
    "oracle_split": TAUS,
    "subclass": TAUS,
    "dkd": [{"beta": beta, "temperature": 2.0} for beta in (1.0, 2.0, 4.0, 8.0)],
    "dist": TAUS,
    "fitnet": FEATURES,
    "embedding": FEATURES,
    "vid": FEATURES,
    "rkd": FEATURES,
    "crd": FEATURES,
    "slam": [{"target": t, "normalized": n} for t, n in product(("soft", "hard"), (False, True))],
    "slam and vid": [{"weight": weight} for weight in (0.01, 0.1, 0.3, 1.0)],
}
"""Settings of each method, four a method. Those of losses over embeddings go with soft KD."""
TITLES = {
    "hard labels": "true labels, no teacher",
    "soft_kd": "soft KD",
    "lelp": "LELP",
    "pca_split": "plain PCA",
    "random_projections": "random projections",
    "random_split": "random split",
    "kmeans_split": "k-means split",
    "agglomerative_split": "agglomerative split",
    "oracle_split": "oracle split (true fine labels)",
    "subclass": "Subclass Distillation",
    "dkd": "DKD",
    "dist": "DIST",
    "fitnet": "soft KD + FitNet",
    "embedding": "soft KD + embeddings",
    "vid": "soft KD + VID",
    "rkd": "soft KD + RKD",
    "crd": "soft KD + CRD",
    "slam": "SLaM",
    "lelp with trust": "LELP with trust",
    "slam and vid": "SLaM + VID",
}
OVER_EMBEDDINGS = ("fitnet", "embedding", "vid", "rkd", "crd")
SEEDED = ("lelp", "pca_split", "random_projections", "random_split", "kmeans_split",
          "agglomerative_split")  # fmt: skip


class FirstRows(Objective):
    """A loss over embeddings on the first rows of each minibatch: all triples of 256 take minutes.

    Args:
        objective: Any that looks at embeddings alone.
        rows: How many rows it sees; its mean over them is the mean over all.
    """

    name = "first_rows"
    needs_embeddings, uses_outputs, relational = True, False, True

    def __init__(self, objective: Objective, rows: int) -> None:
        self.inner, self.rows = objective, rows

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """The same around the fitted objective."""
        return type(self)(self.inner.fit(answers, evidence), self.rows)

    def attach(self, embedding_dim: int, generator: torch.Generator) -> Self:
        """The same around the attached objective."""
        return type(self)(self.inner.attach(embedding_dim, generator), self.rows)

    def targets(self, answers: Answers) -> Targets:
        """Those of the objective."""
        return self.inner.targets(answers)

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Zero for all rows but the first ones."""
        assert targets is not None
        few, count = min(self.rows, len(out.outputs)), len(out.outputs)
        seen = StudentOut(out.outputs[:few], out.embedding[:few])
        some = Targets({name: t[:few] for name, t in targets.tensors.items()})
        each = self.inner.loss(seen, some, None) * (count / few)
        return torch.nn.functional.pad(each, (0, count - few))

    def parameters(self) -> Iterator[nn.Parameter]:
        """Those of the objective."""
        return self.inner.parameters()


def make(
    method: str,
    settings: Settings,
    seed: int,
    hidden: Callable[[], tuple[Lookup, list[int]]],
) -> Objective:
    """The objective, not yet fitted.

    Args:
        method: A key of `GRIDS` but "hard labels".
        settings: One of its settings.
        seed: Of rotations and clusters, for those that draw any.
        hidden: Finds the fine labels, and how many each class has, for the oracle.
    """
    if method == "oracle_split":
        return OracleSplit(*hidden(), **settings)
    if method in OVER_EMBEDDINGS:
        plain = SoftKD(temperature=settings["temperature"])
        return Combined(plain, _over_embeddings(method), weight=settings["weight"])
    if method == "slam and vid":
        return Combined(
            objective_class("slam")(), _over_embeddings("vid"), weight=settings["weight"]
        )
    name = "lelp" if method == "lelp with trust" else method
    drawn = {"seed": seed} if name in SEEDED else {}
    return objective_class(name)(**settings, **drawn)


def _over_embeddings(name: str) -> Objective:
    """As the suites have it, but for what would take hours."""
    if name == "crd":
        return objective_class(name)(negatives=256)
    made = objective_class(name)()
    return FirstRows(made, 64) if name in ("rkd", "vid") else made
