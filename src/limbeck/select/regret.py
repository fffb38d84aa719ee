"""The game of RAD played for regret instead of gain: experimental.

The paper on robust active distillation (arXiv 2210.01213) has a variant that optimises a relative
error, whose closed form is not known here. This is a reconstruction of its idea as a linear
program, and not that variant.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.select.rad import sorted_gains

LARGEST_PROGRAM = 200_000
"""Variables of the largest linear program that is built."""


def relative_regret_distribution(gains: Tensor, mistakes: int) -> tuple[Tensor, float]:
    """Minimise the regret to the best row that is left: experimental, and not the paper's RAD-Loss.

    min over q, max over sets M of m rows, of max_{i not in M} g_i - sum_{i not in M} q_i g_i. It
    puts more on the largest gains than `rad_distribution`. The paper has a variant that optimises a
    relative error, whose closed form is not known here; this is a reconstruction of its idea.

    Args:
        gains: Informativeness of each row, in [0, 1], floating point, shape (n,), n >= 1.
        mistakes: Rows m that the teacher gets wrong, >= 0; n - 1 at most counts.

    Returns:
        The distribution q over rows, float64, shape (n,), and the regret.

    Raises:
        ShapeError, ConfigError: as `rad_distribution`, or n (m + 2) exceeds 200,000: choose
            candidates first.

    Cost: a linear program with O(n m) variables.
    """
    s, order, m = sorted_gains(gains, mistakes)
    if len(s) * (m + 2) > LARGEST_PROGRAM:
        raise ConfigError(
            f"the regret game of {len(s)} rows and {m} mistakes is a linear program of "
            f"{len(s) * (m + 2):,} variables, more than {LARGEST_PROGRAM:,}; choose the candidates "
            f"of largest gain first, or use rad_distribution."
        )
    by_order, regret = _regret_program(s, m)
    q = np.zeros(len(s))
    q[order] = by_order
    return torch.from_numpy(q).to(gains.device), regret


def _regret_program(s: NDArray[np.float64], m: int) -> tuple[NDArray[np.float64], float]:
    """Solve min R over q, c, t with, for each j of the m + 1 largest gains (first in `s`):

    R >= s_j - sum_i q_i s_i + m c_j + sum_{i != j} t_ij, t_ij >= q_i s_i - c_j, t, c >= 0.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_matrix, vstack

    n, games = len(s), m + 1
    cell = np.arange(games * n).reshape(games, n)  # t_ij; columns: q, c, t, R
    j, i = np.indices((games, n))
    other = i != j
    columns = n + games + games * n + 1
    rows = np.concatenate([np.repeat(np.arange(games), n), np.arange(games), j[other]])
    places = np.concatenate([np.tile(np.arange(n), games), n + np.arange(games)])
    places = np.concatenate([places, n + games + cell[other]])
    values = np.concatenate([np.tile(-s, games), np.full(games, float(m)), np.ones(other.sum())])
    rows = np.concatenate([rows, np.arange(games)])
    places = np.concatenate([places, np.full(games, columns - 1)])
    values = np.concatenate([values, np.full(games, -1.0)])
    regret = coo_matrix((values, (rows, places)), shape=(games, columns))
    each = cell[other]
    k = np.arange(len(each))
    excess = coo_matrix(
        (
            np.concatenate([s[i[other]], np.full(2 * len(each), -1.0)]),
            (np.tile(k, 3), np.concatenate([i[other], n + j[other], n + games + each])),
        ),
        shape=(len(each), columns),
    )
    found = linprog(  # type: ignore[call-overload]  # sparse matrices are not annotated
        np.eye(1, columns, columns - 1)[0],
        A_ub=vstack([regret, excess]),
        b_ub=np.concatenate([-s[:games], np.zeros(len(each))]),
        A_eq=coo_matrix((np.ones(n), (np.zeros(n, int), np.arange(n))), shape=(1, columns)),
        b_eq=[1.0],
        bounds=[(0, None)] * (columns - 1) + [(None, None)],
        method="highs",
    )
    q = np.maximum(found.x[:n], 0)
    return q / q.sum(), float(found.fun)
