"""Dense Gaussians: the log density with its Cholesky factor, and factors of covariances that may be singular."""

import math

import torch
from torch import Tensor

from ctuq.errors import CtuqError


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
