"""Gaussian process regression through inducing points: one pass over the data, memory independent of their number."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.gp.kernels import Kernel
from ctuq.gp.operator import check_data
from ctuq.gp.paths import SamplePaths, expand, prior_paths
from ctuq.gp.pivots import kernel_pivots
from ctuq.gp.regression import GaussianProcess
from ctuq.linops.gaussian import explained, stable_cholesky

_BATCH = 2048


@dataclass(frozen=True, eq=False)
class InducingPosterior:
    """A Gaussian process given data, through its values at ``z`` (Titsias 2009, at the optimal variational distribution).

    Parameters
    ----------
    process : GaussianProcess
    x : Tensor, shape (n, d)
    z : Tensor, float64, shape (m, d)
        Inducing points.
    root : Tensor, float64, shape (m, m)
        Cholesky factor L of ``K_zz``.
    factor : Tensor, float64, shape (m, m)
        Cholesky factor of ``sigma2 I + P P^T`` with ``P = L^-1 K_zx``.
    coefficients : Tensor, float64, shape (m,)
        ``(K_zx K_xz + sigma2 K_zz)^-1 K_zx (y - mean)``.
    log_evidence_bound : float
        Lower bound of log p(y), nats: equal to it where the inducing points explain everything.
    """

    process: GaussianProcess
    x: Tensor
    z: Tensor
    root: Tensor
    factor: Tensor
    coefficients: Tensor
    log_evidence_bound: float

    def mean(self, x: Tensor) -> Tensor:
        """Posterior mean of the function at inputs (k, d), shape (k,)."""
        return self.process.mean + expand(self.process.kernel, x, self.z, self.coefficients[None])[0]

    def std(self, x: Tensor) -> Tensor:
        """Posterior standard deviation of the function at inputs (k, d), float64, shape (k,)."""
        parts = []
        for part in x.double().split(_BATCH):
            half = _half(self.process.kernel, part, self.z, self.root)
            told = half.square().sum(0) - self.process.sigma2 * explained(self.factor, half)
            parts.append(self.process.kernel.diagonal(part) - told)
        return torch.cat(parts).clamp(min=0).sqrt()

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of new noisy observations at inputs (k, d), both (k,)."""
        return self.mean(x), (self.std(x).square() + self.process.sigma2).sqrt()

    def samples(self, count: int, *, rng: torch.Generator, features: int = 2000) -> SamplePaths:
        """``count`` functions by pathwise conditioning on the values at the inducing points; no pass over the data.

        ``f_0(.) + k(., z) K_zz^-1 (u - f_0(z))`` with u drawn from the posterior of the values at z: what the inducing points
        cannot express of ``f_0`` stays as it is in the prior, and never meets the data. Conditioned on the data unprojected it
        would be taken for noise there: deviations of such samples are up to 14 times those of `std`.
        """
        kernel = self.process.kernel
        prior = prior_paths(kernel, self.x.shape[1], count, rng=rng, features=features)
        white = torch.randn(count, len(self.z), generator=rng, device=rng.device, dtype=torch.float64).to(self.z)
        spread = self.process.sigma2**0.5 * torch.linalg.solve_triangular(self.factor.T, white.T, upper=True)
        values = torch.linalg.solve_triangular(self.root, prior(self.z).T, upper=False)
        v = torch.linalg.solve_triangular(self.root.T, values - spread, upper=True).T
        return SamplePaths(prior, kernel, self.z, self.coefficients - v, self.process.mean, v.new_zeros(count))


def condition_inducing(
    process: GaussianProcess, x: Tensor, y: Tensor, z: Tensor | int = 1024, *, rng: torch.Generator
) -> InducingPosterior:
    """The posterior given data, through inducing points.

    ``n m^2`` operations in float64, in mini-batches.

    Parameters
    ----------
    process : GaussianProcess
    x : Tensor, shape (n, d)
    y : Tensor, shape (n,)
    z : Tensor (m, d) or int
        Inducing points, or how many of the data to take: by randomly pivoted Cholesky, each where the others explain least.
    rng : torch.Generator
        For that choice.

    Raises
    ------
    InputError
        If data do not fit.
    """
    kernel, sigma2 = process.kernel, process.sigma2
    check_data(kernel, sigma2, x, y)
    if isinstance(z, int):
        z = x[kernel_pivots(kernel, x, z, rng=rng)[0]]
    kernel.check(z)
    z, target = z.double(), y.double() - process.mean
    root = stable_cholesky(kernel(z, z))
    gram, cross, prior = z.new_zeros(len(z), len(z)), z.new_zeros(len(z)), 0.0
    for part, values in zip(x.double().split(_BATCH), target.split(_BATCH), strict=True):
        half = _half(kernel, part, z, root)
        gram.addmm_(half, half.T)
        cross += half @ values
        prior += float(kernel.diagonal(part).sum())
    left_out = prior - float(gram.diagonal().sum())
    gram.diagonal().add_(sigma2)
    factor = torch.linalg.cholesky(gram)
    w = torch.cholesky_solve(cross[:, None], factor)[:, 0]
    log_det = 2 * float(factor.diagonal().log().sum()) + (len(x) - len(z)) * math.log(sigma2)
    fit = (float(target.square().sum()) - float(cross @ w)) / sigma2
    bound = -0.5 * (log_det + fit + left_out / sigma2 + len(x) * math.log(2 * math.pi))
    return InducingPosterior(process, x, z, root, factor, _coefficients(root, factor, cross[None])[0], bound)


def _half(kernel: Kernel, x: Tensor, z: Tensor, root: Tensor) -> Tensor:
    """``L^-1 k(z, x)``, shape (m, n)."""
    return torch.linalg.solve_triangular(root, kernel(z, x).detach(), upper=False)


def _coefficients(root: Tensor, factor: Tensor, cross: Tensor) -> Tensor:
    """``L^-T (sigma2 I + P P^T)^-1`` applied to rows (k, m)."""
    return torch.linalg.solve_triangular(root.T, torch.cholesky_solve(cross.T, factor), upper=True).T
