"""Inclusion probabilities of a batch that two ways of choosing make together."""

from torch import Tensor

from limbeck.errors import ConfigError, ShapeError

_SLACK = 1e-6


def with_audit(p: Tensor, audit: int, candidates: int, *, chosen: int | None = None) -> Tensor:
    """Inclusion probabilities of a batch that a rule chooses and a uniform audit completes.

    The rule chooses k - a rows, row i with probability p_i; then a rows are drawn uniformly from
    the n - (k - a) that it left, whichever these are:
    pi_i = p_i + (1 - p_i) a / (n - (k - a)). So every row has a chance, also those that the rule
    would never choose.

    Args:
        p: Of all candidates, or of some of them (such as those that were chosen), floating point,
            in [0, 1], shape (m,).
        audit: Audited rows a, >= 0.
        candidates: n.
        chosen: Rows of the rule k - a, needed where `p` is of some candidates only. Default: the
            sum of `p`.

    Returns:
        pi, float64, shape (m,), on the device of `p`. Of all candidates they sum to k.

    Raises:
        ShapeError: `p` is not a floating-point tensor of shape (m,), m <= n.
        ConfigError: a probability is NaN or out of [0, 1], or the counts do not fit each other.

    Cost: O(m).
    """
    if p.ndim != 1 or not p.is_floating_point() or len(p) > candidates:
        raise ShapeError(
            f"p must be floating point of shape (m,) with m <= {candidates} candidates, got "
            f"{p.dtype} of shape {tuple(p.shape)}."
        )
    x = p.detach().double()
    if not bool(((x >= 0) & (x <= 1 + _SLACK)).all()):  # NaN fails both
        raise ConfigError(
            f"inclusion probabilities must lie in [0, 1], got values from {float(x.min()):.6g} to "
            f"{float(x.max()):.6g}; give those of `Selection.inclusion_probs`."
        )
    size = _rule_size(x, candidates) if chosen is None else chosen
    left = candidates - size
    if size < 0 or not 0 <= audit <= left:
        raise ConfigError(
            f"a rule that chose {size} of {candidates} candidates leaves {left}, so {audit} cannot "
            f"be audited; lower the batch or the audit."
        )
    x = x.clamp(max=1.0)
    return x + (1 - x) * (audit / left) if left else x


def _rule_size(p: Tensor, candidates: int) -> int:
    total = float(p.sum())
    size = round(total)
    if len(p) != candidates or abs(total - size) > _SLACK * max(1, size):
        raise ConfigError(
            f"p is of {len(p)} of {candidates} candidates and sums to {total:.9g}, so the rule's "
            f"rows cannot be counted from it; pass chosen=, how many rows the rule chose."
        )
    return size
