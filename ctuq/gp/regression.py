"""Gaussian process regression: condition on data by any solver, then ask for mean, deviation, covariance or whole functions."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.gp.choice import choose
from ctuq.gp.exact import Inverse, Method
from ctuq.gp.kernels import Kernel
from ctuq.gp.operator import KernelOperator, check_data
from ctuq.gp.paths import SamplePaths, expand, prior_paths


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """A prior over functions, and the noise of their observations.

    Parameters
    ----------
    kernel : Kernel
    sigma2 : float
        Noise variance.
    mean : float
        Constant prior mean.
    """

    kernel: Kernel
    sigma2: float
    mean: float = 0.0

    def condition(
        self,
        x: Tensor,
        y: Tensor,
        *,
        solver: str | Method = "auto",
        rng: torch.Generator,
        dtype: torch.dtype | None = None,
        keep: bool | None = None,
    ) -> "GaussianProcessPosterior":
        """The posterior given values ``y`` (n,) at inputs ``x`` (n, d).

        Parameters
        ----------
        x : Tensor, shape (n, d)
        y : Tensor, shape (n,)
        solver : str or Method
            ``"cholesky"``, ``"cg"``, ``"blocks"``, ``"sgd"``, ``"sdd"``, one of these with settings of its own, or ``"auto"``
            (see `ctuq.gp.choice.choose`).
        rng : torch.Generator
            For sketches and mini-batches.
        dtype : torch.dtype, optional
            Of the kernel's values in products: by default float32 where the noise stands above its rounding.
        keep : bool, optional
            As in `KernelOperator`.

        Raises
        ------
        InputError
            If data do not fit, are not finite, or the solver is unknown.
        """
        check_data(self.kernel, self.sigma2, x, y)
        K = KernelOperator(
            self.kernel, x, noise=self.sigma2, dtype=dtype or product_type(self.kernel, self.sigma2, x), keep=keep
        )
        name, inverse, reason = choose(K, solver, rng=rng)
        found = inverse((y.double() - self.mean)[None])
        return GaussianProcessPosterior(self, x, found.value[0], float(found.residual[0]), inverse, name, reason)


@dataclass(frozen=True, eq=False)
class GaussianProcessPosterior:
    """A Gaussian process given data.

    Parameters
    ----------
    process : GaussianProcess
    x : Tensor, shape (n, d)
        Inputs of the data.
    representers : Tensor, float64, shape (n,)
        ``(K + sigma2 I)^-1 (y - mean)``.
    residual : float
        Relative residual of the representers.
    inverse : Inverse
    solver, reason : str
        Which solver runs, and why.
    """

    process: GaussianProcess
    x: Tensor
    representers: Tensor
    residual: float
    inverse: Inverse
    solver: str
    reason: str

    def mean(self, x: Tensor) -> Tensor:
        """Posterior mean of the function at inputs (m, d), shape (m,)."""
        return self.process.mean + expand(self.process.kernel, x, self.x, self.representers[None])[0]

    def covariance(self, x: Tensor) -> Tensor:
        """Posterior covariance of the function at inputs (m, d), float64, shape (m, m): m solves."""
        x, data = x.double(), self.x.double()
        cross = self.process.kernel(x, data).detach()
        return self.inverse.covariance(self.process.kernel(x, x).detach(), cross)

    def std(self, x: Tensor, *, batch: int = 512) -> Tensor:
        """Posterior standard deviation of the function at inputs (m, d), float64, shape (m,): m solves, exact as they are."""
        x, data, k = x.double(), self.x.double(), self.process.kernel
        parts = []
        for part in x.split(batch):
            cross = k(part, data).detach()
            parts.append(self.inverse.variance(k.diagonal(part).detach(), cross))
        return torch.cat(parts).clamp(min=0).sqrt()

    def samples(self, count: int, *, rng: torch.Generator, features: int = 2000) -> SamplePaths:
        """``count`` functions drawn from the posterior.

        Pathwise conditioning, ``f_0(.) + k(., x) H^-1 (y - f_0(x) - e)`` (Wilson et al. 2020): prior draws by ``features``
        random features, one solve for each draw, then as many inputs as wanted.
        """
        prior = prior_paths(self.process.kernel, self.x.shape[1], count, rng=rng, features=features)
        noise = torch.randn(count, len(self.x), generator=rng, device=rng.device, dtype=torch.float64).to(self.x.device)
        found = self.inverse(prior(self.x).double(), shift=noise * self.process.sigma2**0.5)
        coefficients = self.representers - found.value
        return SamplePaths(prior, self.process.kernel, self.x, coefficients, self.process.mean, found.residual)

    def predict(self, x: Tensor, paths: SamplePaths | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of new noisy observations at inputs (m, d), both (m,).

        With ``paths`` the deviation is that of these draws, of relative error ``(2 k)^-1/2``; otherwise it takes m solves.
        """
        mean = self.mean(x)
        std = self.std(x) if paths is None else (paths(x) - mean).square().mean(0).sqrt()
        return mean, (std.square() + self.process.sigma2).sqrt()


def product_type(kernel: Kernel, sigma2: float, x: Tensor) -> torch.dtype:
    """float32 where the rounding of its products, amplified by the solve, stays below a tenth; else float64."""
    variance = float(kernel.diagonal(x.double()).max())
    amplified = 10 * torch.finfo(torch.float32).eps * len(x) ** 0.5 * variance / sigma2
    return torch.float32 if amplified < 0.1 else torch.float64
