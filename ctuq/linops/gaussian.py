"""Dense Gaussians: the log density with its Cholesky factor, and factors of covariances that may be singular."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import get_lapack_funcs
from torch import Tensor

from ctuq.errors import CtuqError

_spotrf, _spotrs = get_lapack_funcs(("potrf", "potrs"), dtype=np.float32)


def stable_cholesky(covariance: Tensor) -> Tensor:
    """Cholesky factor of a positive semi-definite matrix; directions of no variance get the rounding error of the largest.

    Raises
    ------
    CtuqError
        If the matrix is indefinite beyond rounding.
    """
    rounding = torch.finfo(covariance.dtype).eps * len(covariance) * float(covariance.diagonal().max())
    for factor in (0.0, 1.0, 100.0):
        L, fault = torch.linalg.cholesky_ex(covariance + torch.diag(torch.full_like(covariance[0], factor * rounding)))
        if not fault:
            return L
    raise CtuqError("A covariance is indefinite beyond rounding; the evidence's noise is too small for float64.")


def root_given(L: Tensor, R: Tensor) -> Tensor:
    """``L R^-T``, a root of ``(C^-1 + X)^-1``, from ``C = L L^T`` and the Cholesky factor R of ``I + L^T X L``."""
    return torch.linalg.solve_triangular(R, L.T, upper=False).T


def whitened_factor(blocks: Tensor, scale: Tensor) -> Tensor:
    """Cholesky factor of ``I + D^1/2 G D^1/2`` for blocks G (..., n, n) and ``D^1/2`` (..., n)."""
    K = scale[..., :, None] * blocks * scale[..., None, :]
    K.diagonal(dim1=-2, dim2=-1).add_(1)
    return torch.linalg.cholesky(K)


def explained(factor: Tensor, cross: Tensor) -> Tensor:
    """What data tell of a variance: the diagonal of ``C^T K^-1 C`` for columns C (m, k), by the Cholesky factor of K."""
    return torch.linalg.solve_triangular(factor, cross, upper=False).square().sum(0)


@dataclass(frozen=True, eq=False)
class FactorInPlace:
    """Cholesky factor in float32 of a matrix that it takes the place of: of 34,000 unknowns 4.6 GB, and no copy of it.

    Parameters
    ----------
    lower : Tensor, float32, shape (n, n)
        Its transpose, contiguous: as LAPACK has it, the lower triangle. Above it stands what the matrix had.
    """

    lower: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> "FactorInPlace | None":
        """Factorise a symmetric float32 matrix, which is overwritten; None if it is not positive definite to rounding."""
        if matrix.device.type != "cpu":
            L, fault = torch.linalg.cholesky_ex(matrix)
            return None if fault else cls(L.T)
        factor, fault = _spotrf(matrix.numpy().T, lower=1, clean=0, overwrite_a=1)
        return None if fault else cls(torch.from_numpy(factor.T))

    def solve(self, b: Tensor) -> Tensor:
        """``matrix^-1 b`` for each row of a float32 (k, n)."""
        if b.device.type != "cpu":
            return torch.cholesky_solve(b.T, self.lower.T).T
        value, _ = _spotrs(self.lower.numpy().T, b.contiguous().numpy().T, lower=1)
        return torch.from_numpy(value.T)


def log_evidence(K: Tensor, t: Tensor) -> tuple[float, Tensor, Tensor]:
    """``-1/2 (log det K + t^T K^-1 t + m log 2 pi)``, the Cholesky factor of K, and ``K^-1 t``.

    The quadratic form is that of the linear model's own mode; no plug-in weights enter.

    Raises
    ------
    CtuqError
        If K is not positive definite to rounding.
    """
    L, fault = torch.linalg.cholesky_ex(K)
    if fault:
        raise CtuqError(
            f"The evidence covariance of {len(t)} rays is not positive definite at minor {int(fault)}; the noise is too small "
            "for float64: check that the projections are not free of noise, or bin the detector."
        )
    a = torch.cholesky_solve(t[:, None], L)[:, 0]
    value = -float(L.diagonal().log().sum()) - 0.5 * float(t @ a) - 0.5 * len(t) * math.log(2 * math.pi)
    return value, L, a
