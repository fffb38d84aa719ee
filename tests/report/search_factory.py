"""Searches as they are: LayerNAS over spaces of the library, with made-up rewards."""

import math
import random
from collections.abc import Callable, Sequence

import torch

from limbeck.report.search import SearchDiagnostics, SearchLayer, SearchTrial, SearchView
from limbeck.search import Cost, LayerNAS, LayerNASConfig, LayerwiseSpace
from limbeck.search.spaces.mobilenet import mobilenet_v2
from limbeck.students import ImageCnnConfig, ImageCnnEncoder, student_space

Rule = Callable[[int], float | None]
UNITS = {"macs": "multiply-adds", "parameters": "parameters", "bytes": "bytes"}


def cnn_search(
    *,
    trials: int = 80,
    share: float = 0.5,
    seed: int = 0,
    tail: str = "fit",
    sometimes: bool = True,
) -> SearchView:
    """A search over `image_cnn` under a share of the base student's multiply-adds."""
    encoder = ImageCnnEncoder("photo", ImageCnnConfig(size=32, channels=3), (0.0,) * 3, (1.0,) * 3)
    found = student_space("image_cnn", encoder, ImageCnnConfig(), 10)
    cost = found.costs["macs"]
    return run(found.space, cost, "macs", share, trials=trials, seed=seed, tail=tail,
               sometimes=sometimes)  # fmt: skip


def mobile_search(*, trials: int = 120, share: float = 0.7, seed: int = 0) -> SearchView:
    """A search over the blocks of a mobile network: many layers."""
    net = mobilenet_v2()
    return run(net.space, net.parameters(classes=10), "parameters", share, trials=trials, seed=seed)


def run(
    space: LayerwiseSpace, cost: Cost, name: str, share: float, *, trials: int, seed: int,
    tail: str = "fit", sometimes: bool = True,
) -> SearchView:  # fmt: skip
    base = tuple(layer.default or 0 for layer in space.layers)
    limit = share * cost.total(base)
    generator = torch.Generator().manual_seed(seed)
    search = LayerNAS(cost, limit, LayerNASConfig(tail=tail), generator=generator)  # type: ignore[arg-type]
    rng = random.Random(seed)
    worth = [[rng.gauss(0, 0.02) for _ in layer.options] for layer in space.layers]
    shown: list[SearchTrial] = []
    for number in range(trials):
        trial = search.ask()
        if trial is None:
            break
        failed, stopped = sometimes and number % 23 == 11, sometimes and number % 9 == 7
        reward = None if failed or stopped else _reward(trial.cost / limit, trial.architecture,
                                                        worth, rng)  # fmt: skip
        search.tell(trial.number, reward)
        shown.append(
            SearchTrial(
                trial.number,
                trial.architecture,
                trial.cost,
                trial.in_range,
                reward,
                trial.note.how,
                8.0 + 4 * rng.random(),
                400 if reward is not None else 100,
                stopped=stopped,
            )
        )
    d = search.diagnostics()
    low, high = search.ranges[-1]
    return SearchView(
        kind="image_cnn",
        method="layernas",
        arm="Soft distillation",
        reward="validation accuracy",
        cost=name,
        unit=UNITS[name],
        low=None,
        high=limit,
        base_cost=cost.total(base),
        seed=seed,
        layers=tuple(
            SearchLayer(each.name, tuple(map(str, each.options)), each.default or 0)
            for each in space.layers
        ),
        trials=tuple(shown),
        best=None if search.best is None else search.best.number,
        front=tuple(one.number for one in search.front()),
        diagnostics=SearchDiagnostics(
            d.status, d.swept, d.out_of_range, d.validity, d.kept, d.widths, d.loss_of_limit
        ),
        edges=tuple(low + (high - low) * i / 20 for i in range(21)),
        notes=("trials were trained for 400 steps, the final training for 4,000.",),
        measured=tuple(
            (one.number, one.cost, one.cost * (0.97 + 0.1 * rng.random()))
            for one in search.front()[-4:]
        ),
    )


def _reward(
    share: float, options: Sequence[int], worth: Sequence[Sequence[float]], rng: random.Random
) -> float:
    big = 0.86 - 0.12 * math.exp(-3 * share)
    own = sum(each[at] for each, at in zip(worth, options, strict=True)) / math.sqrt(len(worth))
    return min(0.99, big + own + rng.gauss(0, 0.004))
