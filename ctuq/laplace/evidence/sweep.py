"""The value of the evidence without a dense matrix, twice: by Lanczos quadrature, and by integrating effective dimensions.

With S_t the posterior covariance where all prior variances are multiplied by ``e^t``,
``log det(I + B B^T) = integral over t from -infinity to 0 of gamma(t)``, since ``d log det / dt = gamma``. The integral needs
no determinant at all, and gives the evidence at every common factor of the variances on its way.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ctuq.errors import CtuqError
from ctuq.laplace.evidence.sampled import Expectation
from ctuq.laplace.priors.diagonal import Prior
from ctuq.laplace.system.mode import Mode
from ctuq.laplace.system.problem import Point, System, plus_identity
from ctuq.linops.estimate import Estimate, estimate_of, largest_eigenvalue, log_det
from ctuq.linops.precondition import Preconditioner

_NEGLIGIBLE = 1e-3
_STEP = 1.0
_ABOVE = 5
_SMALL, _LANCZOS = 256, 128


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a common factor of all prior variances does, everything else fixed; tensors are float64, (g,).

    Parameters
    ----------
    log_factor : Tensor
        Logarithm of the factor, rising; 0 is the evidence's choice.
    dimension : Tensor
        Effective dimension.
    log_evidence, log_evidence_error : Tensor
        By integrating the effective dimension from a factor of nothing, and its standard error; what the residuals of the
        solves may add to it is part of the error.
    log_likelihood : Tensor, optional
        Mean log likelihood of a datum that was held or left out, nats.
    scored : {"held out", "left out", "nothing"}
        Which data ``log_likelihood`` is of.
    """

    log_factor: Tensor
    dimension: Tensor
    log_evidence: Tensor
    log_evidence_error: Tensor
    log_likelihood: Tensor | None = None
    scored: str = "nothing"

    @property
    def at_choice(self) -> Estimate:
        """Log evidence at factor 1, with its standard error."""
        i = int((self.log_factor == 0).nonzero())
        return Estimate(float(self.log_evidence[i]), float(self.log_evidence_error[i]))

    @property
    def best_log_factor(self) -> float | None:
        """Where the log likelihood is highest."""
        return None if self.log_likelihood is None else float(self.log_factor[self.log_likelihood.argmax()])


def estimated_evidence(
    system: System,
    mode: Mode,
    *,
    rng: torch.Generator,
    preconditioner: Preconditioner | None = None,
    probes: int = 16,
) -> Estimate:
    """``log p(data | mode) - 1/2 mode^T Sigma^-1 mode - 1/2 log det(I + B B^T)`` by stochastic Lanczos quadrature.

    Of at most 256 unknowns the determinant is computed exactly: that takes no more products.

    Parameters
    ----------
    system : System
    mode : Mode
        Of this system.
    rng : torch.Generator
    preconditioner : Preconditioner, optional
        Of ``I + G`` over the smaller space; what it knows of the determinant is exact.
    probes : int
        As for `ctuq.linops.estimate.log_det`.
    """
    matrix = plus_identity(system.gram())
    if matrix.domain.size <= _SMALL:
        found = Estimate(float(torch.logdet(matrix.dense())), 0.0)
    else:
        found = log_det(matrix, rng=rng, probes=probes, steps=_LANCZOS, preconditioner=preconditioner)
    return Estimate(mode.log_likelihood - 0.5 * (mode.penalty + found.value), 0.5 * found.error)


def sweep(
    expectation: Callable[[Point], Expectation],
    prior: Prior,
    point: Point,
    *,
    lowest: float,
    score: Callable[[Expectation], float] | None = None,
    scored: str = "nothing",
) -> Sweep:
    """Effective dimension, evidence and a score on a grid of common factors of the prior variances.

    Every determinant is the integral of a cubic spline through the effective dimensions, which are sums of logistic functions
    of the log factor; below the grid the dimension itself is the integral. The grid ends where so little noise is left beside
    the prior that the arithmetic cannot solve any more.

    Parameters
    ----------
    expectation : callable
        Exact or sampled.
    prior : Prior
    point : Point
        The evidence's choice.
    lowest : float
        Log factor where all eigenvalues of ``B B^T`` are small; see `lowest_factor`.
    score : callable, optional
        Of each expectation.
    scored : str
        What the score is of.
    """
    below = math.ceil(-lowest / _STEP)
    grid = _STEP * torch.arange(-below, _ABOVE + 1, dtype=torch.float64)
    totals, gaps, heights, scores = [], [], [], []
    for log_factor in grid:
        try:
            found = expectation(Point(point.psi + log_factor * prior.is_variance, point.sigma2))
        except CtuqError:
            if log_factor <= 0:
                raise
            break
        totals.append(found.totals)
        gaps.append(found.gap * found.total.value)
        heights.append(found.mode.log_likelihood - 0.5 * found.mode.penalty)
        if score is not None:
            scores.append(score(found))
    grid = grid[: len(totals)]
    dimensions = torch.stack(totals)
    curves = torch.from_numpy(_running_integral(grid.numpy(), dimensions.cpu().numpy()))
    bias = torch.from_numpy(_running_integral(grid.numpy(), np.array(gaps)[:, None]))[:, 0].abs()
    errors = bias + torch.tensor([estimate_of(c).error if len(c) > 1 else 0.0 for c in curves], dtype=torch.float64)
    values = torch.tensor(heights, dtype=torch.float64) - 0.5 * curves.mean(1)
    likelihood = torch.tensor(scores, dtype=torch.float64) if scores else None
    return Sweep(grid, dimensions.mean(1).cpu(), values, 0.5 * errors, likelihood, scored)


def lowest_factor(system: System, *, rng: torch.Generator) -> float:
    """Log factor of the variances that makes the largest eigenvalue of ``B B^T`` 1/1000; 0 if it is below that already."""
    largest = largest_eigenvalue(system.gram(), rng=rng, steps=20)
    return min(0.0, math.log(_NEGLIGIBLE / max(largest, torch.finfo(torch.float64).tiny)))


def _running_integral(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Integral of each column of y (g, k) from -infinity to each x; y grows like e^x before the first."""
    if len(x) < 4:
        x, y = np.insert(x, 0, x[0] - np.arange(4, 0, -1)), np.vstack([y[:1] * np.exp(-np.arange(4, 0, -1))[:, None], y])
        return _running_integral(x, y)[4:]
    from scipy.interpolate import CubicSpline

    spline = CubicSpline(x, y, axis=0)
    return y[0] + spline.antiderivative()(x) - spline.antiderivative()(x[0])
