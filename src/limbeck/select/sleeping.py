"""AdaProd+: remember noisy scores of rows that fall asleep once they are bought.

Every row is an expert. Its loss in a round is 1 - gain; a row that has been bought is asleep and
cannot be chosen again. The distribution over awake rows has low regret to every row, near constant
where scores can be predicted from the round before, and safe where they cannot.

Source: Baykal, Liebenwein, Gal, Feldman, Rus, "Low-regret active learning", arXiv 2104.02822
(2021); its abstract was at hand. The update and its constants are a reconstruction that meets the
guarantee derived for it: see `SleepingExperts`. Batches: KL projection on the capped simplex, and
`limbeck.numerics.rounding.dependent_rounding`.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, Self, final

import torch
from torch import Tensor

from limbeck.errors import ConfigError, ShapeError
from limbeck.numerics.rounding import dependent_rounding

_UNDERFLOW = 1e-12
_CLOSE = 1e-12
_MOST_STEPS = 200


class _Round(NamedTuple):
    """What a prediction settles for the awake rows of a round."""

    rows: Tensor
    p: Tensor
    rhat: Tensor
    eta: Tensor
    log_w: Tensor


@final
class SleepingExperts:
    """A distribution over rows that learns from their losses.

    In round t, for awake rows i, with predicted losses lhat (those of the round before, usually):

        rhat_i = alpha - lhat_i,  alpha = sum_i p_i lhat_i
        eta_i  = min(eta_i before, 2 / (3 (1 + rhat_i)), sqrt(2 ln n / C_i))
        log w_i is multiplied by eta_i / (eta_i before)
        p_i    is proportional to eta_i w_i exp(eta_i rhat_i)

    all of it at once, by a root in alpha. After the losses l, with r_i = sum_j p_j l_j - l_i:

        log w_i += eta_i r_i - eta_i^2 (r_i - rhat_i)^2;  C_i += (r_i - rhat_i)^2

    Args:
        n: Rows, >= 1. ln n uses this number (at least 2) for good.
        device: Where the state lives.

    Guarantee: the regret to row i over the rounds in which it was awake is at most
    ln W / eta_i + 2 sqrt(2 ln n (C_i + 4)), where W is n and a term that grows like ln ln T.

    Cost: 40 bytes a row; a round takes about ten passes over the awake rows.
    """

    def __init__(self, n: int, *, device: torch.device | str = "cpu") -> None:
        if n < 1:
            raise ConfigError(f"n={n}: there must be at least one row.")
        self._log_n = math.log(max(n, 2))
        self._log_w = torch.zeros(n, dtype=torch.float64, device=device)
        self._c = torch.zeros_like(self._log_w)
        self._eta = torch.full_like(self._log_w, math.sqrt(self._log_n / 2))
        self._awake = torch.ones(n, dtype=torch.bool, device=device)
        self._round: _Round | None = None

    def __len__(self) -> int:
        return len(self._log_w)

    @property
    def awake(self) -> Tensor:
        """Rows that may still be chosen, bool, shape (n,)."""
        return self._awake.clone()

    @property
    def in_round(self) -> bool:
        """Whether a round has begun that has not ended."""
        return self._round is not None

    def predict(
        self, awake: Tensor | None = None, predicted_losses: Tensor | None = None
    ) -> Tensor:
        """Begin a round. Calling it again before `update` begins the same round anew.

        Args:
            awake: Rows that may be chosen in this round, bool, shape (n,); sleeping rows stay out.
                Default: all that are awake.
            predicted_losses: A guess of this round's losses in [0, 1], shape (n,), such as those of
                the round before; asleep rows are not looked at. Default: no guess.

        Returns:
            The distribution p, float64, shape (n,), 0 for rows that are asleep.

        Raises:
            ShapeError, ConfigError: a mask or losses do not fit, or no row is awake.
        """
        rows = self._rows(awake)
        lhat = None if predicted_losses is None else self._losses(predicted_losses, rows)
        self._round = self._settle(rows, lhat)
        return self._spread(self._round.rows, self._round.p)

    def inclusion(self, k: int) -> Tensor:
        """Inclusion probabilities of a batch: k q, q_i = min(c p_i, 1 / k) with sum 1.

        q is the distribution with no entry above 1 / k that is closest to p in the sense of
        Kullback and Leibler.

        Args:
            k: Rows of the batch, >= 0.

        Returns:
            float64, in [0, 1], shape (n,), sum k; with k or fewer rows awake 1 for each of them.

        Raises:
            ConfigError: no round was begun, or k < 0.
        """
        if k < 0:
            raise ConfigError(f"k={k}: must be >= 0 rows.")
        current = self._current()
        rows, p = current.rows, current.p
        if k >= len(rows):
            return self._spread(rows, torch.ones_like(p))
        if k == 0:
            return self._spread(rows, torch.zeros_like(p))
        return self._spread(rows, _capped(p, k))

    def select(self, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a batch of the round that has begun; the rows stay awake until `sleep`.

        Args:
            k: Rows of the batch, >= 0.
            generator: Source of randomness, on the device of the state.

        Returns:
            Distinct rows, int64, shape (min(k, awake),), ascending; and their inclusion
            probabilities, float64, same shape.
        """
        p = self.inclusion(k)
        rows = dependent_rounding(p, generator)
        return rows, p[rows]

    def update(self, losses: Tensor) -> None:
        """End the round that `predict` began.

        Args:
            losses: 1 - gain of each row under the student that came out of the round, in [0, 1],
                shape (n,); rows that were asleep in the round are not looked at.

        Raises:
            ShapeError, ConfigError: no round was begun, or losses are not in [0, 1].
        """
        rows, p, rhat, eta, log_w = self._current()
        loss = self._losses(losses, rows)
        r = p @ loss - loss
        surprise = (r - rhat).square()
        self._log_w[rows] = log_w + eta * r - eta.square() * surprise
        self._c[rows] += surprise
        self._eta[rows] = eta
        self._round = None

    def sleep(self, rows: Tensor) -> None:
        """Put rows to sleep for good, int64, shape (m,): those that have been labelled, say."""
        self._awake[rows] = False

    def append(self, n: int) -> None:
        """Add n rows, with the mean weight of those that are awake; between two rounds."""
        if self._round is not None:
            raise ConfigError("rows cannot be added in the middle of a round; call update first.")
        awake = self._log_w[self._awake]
        mean = float(torch.logsumexp(awake, 0)) - math.log(len(awake)) if len(awake) else 0.0
        self._log_w = torch.cat([self._log_w, self._log_w.new_full((n,), mean)])
        self._c = torch.cat([self._c, self._c.new_zeros(n)])
        self._eta = torch.cat([self._eta, self._eta.new_full((n,), math.sqrt(self._log_n / 2))])
        self._awake = torch.cat([self._awake, self._awake.new_ones(n)])

    def state_dict(self) -> dict[str, Tensor]:
        """Everything, also in the middle of a round; save it after `predict` and after `update`."""
        state = {
            "log_n": torch.tensor(self._log_n, dtype=torch.float64),
            "log_w": self._log_w.clone(),
            "c": self._c.clone(),
            "eta": self._eta.clone(),
            "awake": self._awake.clone(),
        }
        if self._round is not None:
            state |= {f"round.{name}": t.clone() for name, t in self._round._asdict().items()}
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The learner that `state_dict` described."""
        self = cls(len(state["log_w"]), device=state["log_w"].device)
        self._log_n = float(state["log_n"])
        self._log_w, self._c = state["log_w"].clone(), state["c"].clone()
        self._eta, self._awake = state["eta"].clone(), state["awake"].clone()
        if "round.rows" in state:
            self._round = _Round(*(state[f"round.{name}"].clone() for name in _Round._fields))
        return self

    def _settle(self, rows: Tensor, lhat: Tensor | None) -> _Round:
        before, log_w = self._eta[rows], self._log_w[rows]
        # No surprise yet gives no bound: sqrt(x / 0) is infinite.
        slow = torch.minimum(before, (2 * self._log_n / self._c[rows]).sqrt())
        scaled = log_w / before

        def candidate(alpha: float) -> _Round:
            rhat = torch.zeros_like(slow) if lhat is None else alpha - lhat
            eta = torch.minimum(slow, 2 / (3 * (1 + rhat).clamp_min(_UNDERFLOW)))
            new = scaled * eta
            return _Round(rows, torch.softmax(eta.log() + new + eta * rhat, 0), rhat, eta, new)

        if lhat is None:
            return candidate(0.0)
        return candidate(_root(lambda alpha: float(candidate(alpha).p @ lhat)))

    def _rows(self, awake: Tensor | None) -> Tensor:
        mask = self._awake
        if awake is not None:
            if awake.shape != mask.shape or awake.dtype != torch.bool:
                raise ShapeError(
                    f"the mask of awake rows must be bool of shape ({len(self)},), got "
                    f"{awake.dtype} of shape {tuple(awake.shape)}."
                )
            mask = mask & awake
        rows = mask.nonzero()[:, 0]
        if len(rows) == 0:
            raise ConfigError("no row is awake, so there is nothing left to choose from.")
        return rows

    def _losses(self, losses: Tensor, rows: Tensor) -> Tensor:
        if losses.shape != self._log_w.shape or not losses.is_floating_point():
            raise ShapeError(
                f"losses must be floating point of shape ({len(self)},), got {losses.dtype} of "
                f"shape {tuple(losses.shape)}."
            )
        values = losses.detach()[rows].double()
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise ConfigError(
                f"losses of awake rows must lie in [0, 1], got {float(values.min()):.6g} to "
                f"{float(values.max()):.6g}; a loss is 1 - gain, with a gain of limbeck.select."
            )
        return values

    def _current(self) -> _Round:
        if self._round is None:
            raise ConfigError("no round has begun; call predict first.")
        return self._round

    def _spread(self, rows: Tensor, values: Tensor) -> Tensor:
        return torch.zeros_like(self._log_w).index_copy_(0, rows, values)


def _capped(p: Tensor, k: int) -> Tensor:
    """k times min(c p, 1 / k) with the scale c that makes it sum to k; more than k entries."""
    if int((p > 0).sum()) <= k:
        p = p + _UNDERFLOW  # too few rows have any probability left in float64
        p = p / p.sum()
    largest = p.topk(k).values
    # The sum of what is not capped, for 0, 1, ..., k - 1 capped entries.
    rest = p.sum() - torch.cat([p.new_zeros(1), largest[:-1].cumsum(0)])
    count = torch.arange(k, dtype=p.dtype, device=p.device)
    scale = (k - count) / rest.clamp_min(torch.finfo(p.dtype).tiny)
    capped = int((scale * largest > 1).sum())  # they come first: the scale falls below them
    left = p.clone()
    sure = p.topk(capped).indices
    left[sure] = 0
    out = left * ((k - capped) / left.sum())
    out[sure] = 1
    return out.clamp_max_(1)


def _root(f: Callable[[float], float]) -> float:
    """The fixed point of f in [0, 1], within 1e-12, by secant steps inside a shrinking bracket.

    f hardly changes with its argument, so three or four values are enough as a rule.
    """
    low, high = 0.0, 1.0
    x = f(0.5)
    before: tuple[float, float] | None = None
    for _ in range(_MOST_STEPS):
        h = f(x) - x
        if abs(h) <= _CLOSE or high - low <= _CLOSE:
            break
        low, high = (x, high) if h > 0 else (low, x)
        slope = -1.0 if before is None or h == before[1] else (h - before[1]) / (x - before[0])
        before = (x, h)
        guess = x - h / slope if slope else x
        x = guess if low < guess < high else (low + high) / 2
    return x
