"""A linear model whose noise is a sum of covariances, most of unknown sizes: its factors by generalised least squares."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.linops.gaussian import stable_cholesky

_ROUNDS, _STILL, _STEP = 30, 0.03, 2.0
_SHAPE = 0.5
"""As of the floors of images: the density of each size but the first, which keeps it off zero."""


@dataclass(frozen=True, eq=False)
class Solved:
    """Factors, and what they are known to.

    Parameters
    ----------
    mean, covariance : Tensor, float64, shape (k,) and (k, k)
    sizes : Tensor, float64, shape (n,)
        Of the covariances.
    """

    mean: Tensor
    covariance: Tensor
    sizes: Tensor


def solve(y: Tensor, columns: Tensor, covariances: Sequence[Tensor], sizes: Tensor, known: Tensor) -> Solved:
    """``y = H b + e`` with ``e ~ N(0, C_0 + sum_k s_k C_k)`` and ``b ~ N(0, known^-1)``, at the sizes of the largest evidence.

    Fisher scoring on the logarithms of the sizes (restricted maximum likelihood, Patterson and Thompson, Biometrika 1971),
    with the hyperprior ``log p(log s) = 1/2 log s`` of all but the first. Not the engine's evidence: a factor of which nothing
    is known before has no prior covariance.

    Parameters
    ----------
    y : Tensor, float64, shape (m,)
    columns : Tensor, float64, shape (m, k)
    covariances : sequence of Tensor, float64, shape (m, m)
        The first is known as it is.
    sizes : Tensor, float64, shape (n,)
        Where the search starts.
    known : Tensor, float64, shape (k,)
        Precision of each factor before; 0 for nothing.
    """
    logs, least = sizes.log(), sizes.log() - math.log(1e8)
    at = _At(y, columns, covariances, logs, known)
    for _ in range(_ROUNDS):
        slopes, fisher = at.slopes()
        step, share = torch.linalg.solve(fisher, slopes).clamp(-_STEP, _STEP), 1.0
        while share > 1e-3:
            tried = _At(y, columns, covariances, (logs + share * step).maximum(least), known)
            if tried.value >= at.value:
                break
            share /= 2
        else:
            break
        moved = float((tried.logs - logs).abs().max())
        logs, at = tried.logs, tried
        if moved < _STILL:
            break
    return Solved(at.mean, at.covariance, logs.exp())


class _At:
    """The evidence at some sizes, without what does not change."""

    def __init__(self, y: Tensor, columns: Tensor, covariances: Sequence[Tensor], logs: Tensor, known: Tensor):
        fixed, *self._covariances = covariances
        self.logs = logs
        K = sum((size * C for size, C in zip(logs.exp(), self._covariances, strict=True)), fixed)
        L = stable_cholesky(K)
        self._inverse = torch.cholesky_inverse(L)
        self._seen = self._inverse @ columns
        precision = columns.T @ self._seen + torch.diag(known)
        # Factors differ by orders of magnitude.
        scale = precision.diagonal().rsqrt()
        self.covariance = scale[:, None] * torch.linalg.inv(scale[:, None] * precision * scale) * scale
        self.mean = self.covariance @ (self._seen.T @ y)
        self._left = self._inverse @ (y - columns @ self.mean)
        quadratic = float(self._left @ y)
        log_det = 2 * float(L.diagonal().log().sum()) + float(torch.logdet(precision))
        self.value = -0.5 * (log_det + quadratic) + _SHAPE * float(logs[1:].sum())

    def slopes(self) -> tuple[Tensor, Tensor]:
        """Of the evidence by the sizes' logarithms, and their Fisher information."""
        P = self._inverse - self._seen @ self.covariance @ self._seen.T
        products = [size * (P @ C) for size, C in zip(self.logs.exp(), self._covariances, strict=True)]
        n = len(products)
        slopes = torch.tensor(
            [
                0.5 * float(size * (self._left @ (C @ self._left))) - 0.5 * float(PC.diagonal().sum()) + _SHAPE * (k > 0)
                for k, (size, C, PC) in enumerate(zip(self.logs.exp(), self._covariances, products, strict=True))
            ],
            dtype=torch.float64,
        )
        fisher = torch.tensor([[0.5 * float((a * b.T).sum()) for a in products] for b in products], dtype=torch.float64)
        return slopes, fisher + 1e-2 * torch.eye(n, dtype=torch.float64)
