"""Directions of a space: row spaces, rotations that spread variance evenly, randomised PCA.

Sources: Haar rotations by QR with signs, Mezzadri, "How to generate random matrices from the
classical compact groups", Notices of the AMS 54 (2007); equal variances by Givens rotations, the
constructive proof of Schur and Horn's theorem; subspace iteration, Halko, Martinsson, Tropp,
"Finding structure with randomness", SIAM Review 53 (2011), Algorithm 4.4.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

RANK_TOLERANCE = 1e-6
"""A singular value below this share of the largest one counts as zero."""
EXTRA, PRODUCTS = 10, 4
"""Of subspace iteration: spare directions, and multiplications by the covariance."""


def row_space(weight: Tensor, *, centered: bool = False) -> Tensor:
    """Orthonormal rows that span the rows of a matrix.

    Args:
        weight: Floating point, shape (K, D).
        centered: Take the mean row out first: softmax ignores what all classes share.

    Returns:
        float64, shape (rank, D); rank may be 0.

    Cost: a thin SVD, O(K^2 D).
    """
    weight = weight.detach().cpu().double()
    if centered:
        weight = weight - weight.mean(dim=0)
    _, sizes, rows = torch.linalg.svd(weight, full_matrices=False)
    kept: Tensor = rows[(sizes > RANK_TOLERANCE * sizes[:1]) & (sizes > 0)]
    return kept


def without(rows: Tensor, x: Tensor) -> Tensor:
    """Take out of the columns of `x` (D, n) what lies in the span of orthonormal `rows` (r, D)."""
    for _ in range(2):  # the second time removes what rounding has left of the first
        x = x - rows.T @ (rows @ x)
    return x


def haar(size: int, generator: torch.Generator) -> Tensor:
    """Draw a rotation or reflection uniformly, float64, shape (size, size)."""
    return haar_frame(size, size, generator)


def haar_frame(dim: int, size: int, generator: torch.Generator) -> Tensor:
    """Draw `size` orthonormal columns in `dim` dimensions uniformly, float64, (dim, size)."""
    drawn = torch.randn(dim, size, dtype=torch.float64, generator=generator)
    q, r = torch.linalg.qr(drawn)
    # QR fixes the signs of R's diagonal in its own way; moving them into Q makes the law uniform.
    uniform: Tensor = q * torch.sign(r.diagonal())
    return uniform


def balanced(variances: Tensor) -> Tensor:
    """Find a rotation Q such that the diagonal of Q^T diag(variances) Q is constant.

    Args:
        variances: float64, shape (S,).

    Returns:
        float64, shape (S, S), orthogonal; made of at most S - 1 Givens rotations.

    Guarantee: each diagonal entry is the mean of the variances, up to rounding.
    """
    size, mean = len(variances), float(variances.mean())
    inner, q = torch.diag(variances), torch.eye(size, dtype=torch.float64)
    for _ in range(size - 1):
        gaps = inner.diagonal() - mean
        i, j = int(gaps.argmax()), int(gaps.argmin())
        high, low, off = float(gaps[i]), float(gaps[j]), float(inner[i, j])
        if high <= 0 or low >= 0:
            break
        # The new entry i is the mean: low t^2 + 2 off t + high = 0 for t = tan(angle). The root is
        # taken that has no cancellation.
        root = off + math.copysign(math.sqrt(off * off - high * low), off)
        tangent = -high / root
        cosine = 1 / math.hypot(1, tangent)
        turn = torch.eye(size, dtype=torch.float64)
        turn[i, i] = turn[j, j] = cosine
        turn[j, i], turn[i, j] = tangent * cosine, -tangent * cosine
        inner, q = turn.T @ inner @ turn, q @ turn
    return q


def fix_signs(columns: Tensor) -> Tensor:
    """Turn each column so that its entry of largest size is positive."""
    if columns.numel() == 0:
        return columns
    largest = columns.gather(0, columns.abs().argmax(dim=0, keepdim=True))
    return columns * torch.where(largest < 0, -1.0, 1.0)


def top_directions(covariance: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Principal directions of a covariance.

    Args:
        covariance: Symmetric, float64, shape (D, D).
        size: Directions wanted, 1 <= size <= D.

    Returns:
        Variances in falling order, shape (size,), >= 0, and orthonormal columns with fixed signs,
        shape (D, size).

    Cost: O(D^3).
    """
    values, vectors = torch.linalg.eigh(covariance)
    return (
        values[-size:].flip(0).clamp_min(0),
        fix_signs(vectors[:, -size:].flip(1)),
    )


def subspace_iteration(
    multiply: Callable[[list[Tensor]], list[Tensor]], starts: list[Tensor], sizes: list[int]
) -> list[tuple[Tensor, Tensor]]:
    """Principal directions of several covariances that are known by their products alone.

    Args:
        multiply: Gives each covariance times its columns; called `PRODUCTS` times.
        starts: Random columns for each covariance, float64, shape (D, m), m >= size.
        sizes: Directions wanted of each.

    Returns:
        For each what `top_directions` gives, nearly: the error falls with the gap between
        neighbouring variances, to the power of twice `PRODUCTS`.
    """
    bases = [torch.linalg.qr(start)[0] for start in starts]
    for _ in range(PRODUCTS - 1):
        bases = [torch.linalg.qr(product)[0] for product in multiply(bases)]
    found = []
    for basis, product, size in zip(bases, multiply(bases), sizes, strict=True):
        inner = basis.T @ product
        values, vectors = top_directions((inner + inner.T) / 2, size)
        found.append((values, fix_signs(basis @ vectors)))
    return found
