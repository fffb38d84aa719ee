"""One round's choice: what a rule says of candidates, and a share that is drawn at random."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.distill.config import DistillConfig
from limbeck.distill.encoding import EncodedRows
from limbeck.distill.job import Job
from limbeck.distill.pool_scores import PoolScores, verdicts
from limbeck.distill.round_files import Batch
from limbeck.distill.views import Subset
from limbeck.errors import ConfigError
from limbeck.numerics.inclusion import with_audit
from limbeck.select import ExpectedGain, Selector, gains_of, selector_class
from limbeck.select.gains import MEASURES
from limbeck.select.scoring import Score
from limbeck.teachers.imports import import_object

_AUDIT = 1_000_003
"""Sets apart the random numbers of rows that are drawn beside those of a rule."""


def make_rule(config: DistillConfig) -> Selector:
    """The configured rule, with the configured measure where it looks at gains.

    Raises:
        ConfigError: there is no such rule or measure (the nearest one is named).
    """
    name = config.buy.rule
    kind = selector_class(name) if ":" not in name else _own_rule(name, config)
    rule = kind()
    score = _score(config)
    if hasattr(rule, "measure"):
        rule.measure = score
    return rule


def choose_batch(
    config: DistillConfig,
    encoded: EncodedRows,
    job: Job,
    device: torch.device,
    *,
    number: int,
    size: int,
    bought: NDArray[np.int64],
    last: NDArray[np.int64],
    memory: dict[str, Tensor],
    teacher_error: float,
    error_at: Callable[[Tensor], Tensor],
    pool_size: int,
) -> tuple[Batch, dict[str, Tensor]]:
    """Choose the rows of a round.

    Args:
        config: The rule, its measure, the audit share and the seed.
        encoded: All rows that may be chosen, and the labelled ones.
        job: The student of now.
        device: Where it is evaluated.
        number: Of the round, from 1.
        size: Rows of the round.
        bought: Pool rows of all rounds before, int64.
        last: Those of the round just before, which were candidates in it.
        memory: What the rule remembers of the rounds before.
        teacher_error: Share of validation rows that the teacher gets wrong.
        error_at: The student's margins of any rows, (b,), to the probability that the teacher is
            wrong there, for a rule that wants an estimate at each row.
        pool_size: Rows of the pool.

    Returns:
        The batch, and what the rule remembers now.

    Cost: one pass of the student over the candidates, two for rules with a memory.
    """
    rule = make_rule(config)
    if memory:
        rule.load_state_dict(memory)
    pool = _Pool(encoded, job, device, bought, pool_size, teacher_error)
    if number > 1 and "history" in rule.needs:
        before = pool.candidates(np.setdiff1d(bought, last))
        rule.observe(before.rows, gains_of(before, _score(config)))
    generator = torch.Generator().manual_seed(seed_of(config, number))
    scores = pool.candidates(bought)
    if isinstance(rule, ExpectedGain):
        margins, _ = verdicts(job, Subset(encoded.pool, scores.places), device)
        scores = replace(scores, teacher_error=error_at(torch.from_numpy(margins)))
    gains = _ready_gains(scores, rule)
    n = len(scores.rows)
    k = min(size, n)
    audit = audit_rows(config, k)
    found = rule.select(scores, k - audit, generator)
    at = torch.searchsorted(scores.rows, found.rows)
    drawn, probs = _audited(found.candidate_probs, at, n, audit, generator)
    places = torch.cat([at, drawn])
    order = places.argsort()
    places = places[order]
    rows = scores.rows[places].numpy()
    margins, classes = verdicts(job, pool.encoded_rows(rows), device)
    batch = Batch(
        rows=rows,
        probs=probs[places].numpy(),
        audit=(order >= len(at)).numpy(),
        gains=np.full(k, np.nan, np.float32) if gains is None else gains[places].float().numpy(),
        margins=margins,
        classes=classes,
        candidates=n,
        support=found.support,
    )
    return batch, rule.state_dict()


def draw_beside(
    config: DistillConfig, encoded: EncodedRows, bought: NDArray[np.int64], size: int
) -> Batch:
    """Draw rows uniformly, from those not drawn before, for a curve beside that of the rule.

    Args:
        config: The seed.
        encoded: All rows that may be drawn.
        bought: Rows of this series that were drawn before, int64.
        size: Rows of the round.
    """
    rest = np.setdiff1d(encoded.pool_rows, bought)
    k, seed = min(size, len(rest)), seed_of(config, _AUDIT + len(bought))
    rows = np.sort(np.random.default_rng(seed).choice(rest, k, replace=False))
    nothing = np.full(k, np.nan, np.float32)
    share = np.full(k, k / max(1, len(rest)))
    everyone, unknown = np.ones(k, np.bool_), np.full(k, -1, np.int64)
    return Batch(rows, share, everyone, nothing, nothing, unknown, len(rest), len(rest))


def audit_rows(config: DistillConfig, k: int) -> int:
    """How many of k rows are drawn at random; at least one where any are to be."""
    share = config.buy.audit_share
    if config.buy.rule == "uniform" or share == 0 or k < 2:
        return 0
    return min(k - 1, max(1, round(share * k)))


def seed_of(config: DistillConfig, number: int) -> int:
    """Seed of a round, a function of the run's seed and its number."""
    return int(np.random.SeedSequence([config.seed, number]).generate_state(1)[0])


def _audited(
    probs: Tensor | None, at: Tensor, n: int, audit: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw `audit` of the candidates that are not chosen; and inclusion probabilities of all.

    Where the rule has no probabilities, what was drawn alone has one, given what the rule chose.
    """
    rest = torch.ones(n, dtype=torch.bool).index_fill_(0, at, False).nonzero()[:, 0]
    drawn = rest[torch.randperm(len(rest), generator=generator)[:audit]]
    if probs is not None:
        return drawn, with_audit(probs, audit, n, chosen=len(at))
    found = torch.full((n,), torch.nan, dtype=torch.float64)
    return drawn, found.index_fill_(0, drawn, audit / max(1, len(rest)))


def _ready_gains(scores: PoolScores, rule: Selector) -> Tensor | None:
    """Gains of the candidates for a rule that goes by gains, and for it to go by: computed once."""
    if not hasattr(rule, "measure"):
        return None
    gains = gains_of(scores, rule.measure)
    of_pool = torch.zeros(scores.pool_size)
    of_pool[scores.rows] = gains
    rule.measure = of_pool
    return gains


@dataclass(frozen=True, slots=True, eq=False)
class _Pool:
    """The encoded pool under one student."""

    encoded: EncodedRows
    job: Job
    device: torch.device
    bought: NDArray[np.int64]
    size: int
    teacher_error: float

    def candidates(self, without: NDArray[np.int64]) -> PoolScores:
        """All rows but some."""
        positions = self.encoded.pool_rows
        return PoolScores(
            job=self.job,
            device=self.device,
            encoded=self.encoded.pool,
            positions=positions,
            places=np.flatnonzero(~np.isin(positions, without)),
            known_rows=(self.encoded.labelled.rows, self.encoded_rows(self.bought)),
            pool_size=self.size,
            teacher_error=self.teacher_error,
        )

    def encoded_rows(self, rows: NDArray[np.int64]) -> Subset:
        """Some rows by their position in the pool."""
        return Subset(self.encoded.pool, np.searchsorted(self.encoded.pool_rows, rows))


def _score(config: DistillConfig) -> Score:
    name = config.buy.measure
    if ":" in name:
        found = import_object(name, config.code, what="buy.measure")
        if not callable(found):
            raise ConfigError(
                f"buy.measure={name!r} is no function; name one that takes probabilities (b, C) "
                f"and gives gains in [0, 1], shape (b,)."
            )
        return cast(Callable[[Tensor], Tensor], found)
    known = [measure for measure in MEASURES if measure != "bald"]
    if name == "bald":
        raise ConfigError(
            f"buy.measure='bald' compares several students, and a run trains one to choose; take "
            f"one of {', '.join(known)}."
        )
    if name not in MEASURES:
        raise ConfigError(f"buy.measure={name!r}: must be one of {', '.join(known)}.")
    return name


def _own_rule(name: str, config: DistillConfig) -> type[Selector]:
    found = import_object(name, config.code, what="buy.rule")
    if not (isinstance(found, type) and issubclass(found, Selector)):
        raise ConfigError(
            f"buy.rule={name!r} is no subclass of limbeck.select.Selector; name a class that is."
        )
    return found
