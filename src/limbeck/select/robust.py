"""The game of RAD, and the expected gain, as rules for choosing rows."""

from typing import final

import torch
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.numerics.rounding import dependent_rounding
from limbeck.select.base import Candidates, Selection, Selector, batch_size, chosen, surely
from limbeck.select.rad import expected_inclusion, rad_inclusion
from limbeck.select.scoring import Score, gains_of


def mistakes_of(candidates: Candidates, name: str) -> int:
    """Candidates that the teacher gets wrong, as far as its error on validation rows tells.

    Raises:
        ConfigError: the candidates do not tell the teacher's error.
    """
    error = candidates.teacher_error
    if isinstance(error, Tensor):
        error = float(error.double().mean()) if len(error) else 0.0
    if error is None or not 0 <= error <= 1:
        raise ConfigError(
            f"{name} needs the teacher's error on validation rows, in [0, 1], got {error}; give "
            f"teacher_error."
        )
    n = len(candidates.rows)
    return min(max(round(error * n), 0), max(n - 1, 0))


def drawn(candidates: Candidates, p: Tensor, generator: torch.Generator) -> Selection:
    """A selection with these inclusion probabilities, float64, shape (n,), with an integer sum."""
    at = dependent_rounding(p, generator)
    return chosen(candidates, at, p)


@final
class Rad(Selector):
    """Robust active distillation: the best batch against the worst m mistakes of the teacher.

    m is the teacher's error on validation rows times the candidates, and never comes from answers
    that were bought: those rows are chosen ones.

    Args:
        measure: What is informative; see `limbeck.select.gains`. Default: the source's margin.
    """

    name = "rad"

    def __init__(self, *, measure: Score = "margin") -> None:
        self.measure = measure

    def select(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Choose min(k, n) rows by dependent rounding, with their exact inclusion probabilities."""
        k = batch_size(candidates, k)
        if len(candidates.rows) == 0:
            return chosen(candidates, torch.zeros(0, dtype=torch.int64), None)
        m = mistakes_of(candidates, self.name)
        return drawn(candidates, rad_inclusion(gains_of(candidates, self.measure), m, k), generator)


@final
class ExpectedGain(Selector):
    """The k candidates with the largest gain times the probability that the teacher is right there.

    It maximises sum_i p_i g_i (1 - e_i) and has no adversary: it is as good as the estimate e of
    the teacher's error at each row, such as the share of errors among the nearest validation rows.

    Args:
        measure: What is informative; see `limbeck.select.gains`.
    """

    name = "expected_gain"

    def __init__(self, *, measure: Score = "margin") -> None:
        self.measure = measure

    def select(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Choose min(k, n) rows; nothing is drawn, and of equal ones the earlier is chosen.

        Raises:
            ConfigError: `teacher_error` is no tensor with an estimate for each row.
        """
        k = batch_size(candidates, k)
        error = candidates.teacher_error
        if not isinstance(error, Tensor):
            raise ConfigError(
                f"{self.name} needs an estimate of the teacher's error at each row, got "
                f"teacher_error={error}; give a tensor with one for each candidate (in a file of "
                f"scores, a column teacher_error), or choose 'greedy', which is the same where the "
                f"error is the same everywhere."
            )
        p = expected_inclusion(gains_of(candidates, self.measure), error, k)
        return surely(candidates, p.nonzero()[:, 0])
