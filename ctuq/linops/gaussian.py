"""Posteriors of Gaussian-linear models: exact in a small output space, or by conditioning prior draws.

Both describe deviations from the mean: they do not depend on the measured values.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.errors import CtuqError


@dataclass(frozen=True, eq=False)
class Conditioning:
    """The factor of ``K = C_yy + diag(noise)`` and what it says of observations.

    Parameters
    ----------
    K : Tensor, float64, shape (m, m)
        Prior covariance of the observations plus noise.
    """

    K: Tensor
    factor: Tensor

    @classmethod
    def of(cls, covariance: Tensor, noise: Tensor) -> "Conditioning":
        """Condition on observations of prior ``covariance`` (m, m) with noise variances ``noise`` (m,), both float64."""
        K = covariance + torch.diag(noise)
        return cls(K, log_evidence(K, torch.zeros_like(noise))[1])

    def solve(self, rows: Tensor) -> Tensor:
        """``K^-1`` applied to each row of ``(k, m)``, float64."""
        return torch.cholesky_solve(rows.double().T, self.factor).T

    def predict(self, cross: Tensor, own: Tensor) -> Tensor:
        """Posterior covariance ``own - cross K^-1 cross^T`` of k other linear functionals; ``cross`` is (k, m)."""
        half = torch.linalg.solve_triangular(self.factor, cross.T, upper=False)
        return own - half.T @ half

    def leave_out(self, t: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Closed-form predictions of each group of observations from all others.

        ``t_i - [K^-1]_ii^-1 [K^-1 t]_i`` with covariance ``[K^-1]_ii^-1`` for the block i of a group.

        Parameters
        ----------
        t : Tensor, float64, shape (m,)
        groups : Tensor of int, shape (m,)
            Group of each observation.

        Returns
        -------
        residual, variance : Tensor, float64, shape (m,)
            Target minus prediction, and its predicted variance (noise included).
        """
        inverse = torch.cholesky_inverse(self.factor)
        weighted = inverse @ t
        residual, variance = torch.empty_like(t), torch.empty_like(t)
        for group in groups.unique():
            rows = (groups == group).nonzero()[:, 0]
            block = torch.linalg.inv(inverse[rows][:, rows])
            residual[rows] = block @ weighted[rows]
            variance[rows] = block.diagonal()
        return residual, variance


class DensePosterior:
    """The exact posterior over a small output space.

    Parameters
    ----------
    covariance : Tensor, float64, shape (d, d)
        Posterior covariance of the outputs.
    shape : tuple of int
        Shape of an output, ``d`` values in all.
    """

    error = 0.0

    def __init__(self, covariance: Tensor, shape: tuple[int, ...]):
        self.covariance, self._shape = covariance, shape
        self._factor: Tensor | None = None

    def std(self) -> Tensor:
        """Standard deviation of each output, float64."""
        return self.covariance.diagonal().clamp(min=0).sqrt().reshape(self._shape)

    def deviations(self, n: int, *, rng: torch.Generator) -> Tensor:
        """``n`` draws of the posterior minus its mean, float32, shape (n, *shape)."""
        if self._factor is None:
            self._factor = stable_cholesky(self.covariance).float()
        z = torch.randn(n, len(self._factor), generator=rng, device=rng.device).to(self._factor)
        return (z @ self._factor.T).reshape(n, *self._shape)


@dataclass(frozen=True, eq=False)
class PathwisePosterior:
    """Posterior draws by exact conditioning of prior draws (Matheron's rule).

    ``delta = K^-1 (H z_0 + e)``, deviation ``G (z_0 - cov(z, H z) delta)`` for latent variables z (weights, and a white misfit
    of the outputs) with observations ``H z`` and outputs ``G z``: one product with the network for each draw.

    Parameters
    ----------
    conditioning : Conditioning
    draw : callable
        ``draw(n, rng) -> (latent, observations)``: prior draws of the latent variables (n, p), their noisy observations (n, m).
    gain : callable
        ``gain(delta) -> latent``: ``cov(z, H z)`` applied to each row of (n, m).
    push : callable
        ``push(latent) -> outputs``: G applied to each row, (n, *shape).
    draws : int
        How many draws `std` takes.
    """

    conditioning: Conditioning
    draw: Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
    gain: Callable[[Tensor], Tensor]
    push: Callable[[Tensor], Tensor]
    draws: int
    batch: int = 32

    @property
    def error(self) -> float:
        """Relative Monte Carlo error of a standard deviation estimated from ``draws`` draws of known mean zero."""
        return (2 * self.draws) ** -0.5

    def deviations(self, n: int, *, rng: torch.Generator) -> Tensor:
        """``n`` draws of the posterior minus its mean, float32, shape (n, *shape)."""
        return torch.cat([self._batch(min(self.batch, n - start), rng) for start in range(0, n, self.batch)])

    def _batch(self, n: int, rng: torch.Generator) -> Tensor:
        latent, observations = self.draw(n, rng)
        delta = self.conditioning.solve(observations).to(latent)
        return self.push(latent - self.gain(delta))


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
