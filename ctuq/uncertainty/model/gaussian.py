"""The posterior of an image under a Gaussian prior over its pixels, without a network.

With a prior ``N(0, s S)`` and rays ``t = M x + e`` of noise sigma^2, whitened by the roots of their weights,

    P = s (S - s S M^T K^-1 M S),   K = s M S M^T + sigma^2 I        by a factor of K, over rays
      = (S^-1 / s + M^T M / sigma^2)^-1                              by a factor over pixels, or by conjugate gradients

whichever is cheaper, exactly where a factor fits.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from ctuq.linops.basic import Symmetric
from ctuq.linops.gaussian import explained
from ctuq.linops.operator import Space
from ctuq.linops.solve import CG
from ctuq.stages import Stages
from ctuq.tomo.rays.rows import RayRows, ray_rows
from ctuq.tomo.rays.transform import RayTransform, require_exact_transpose
from ctuq.tomo.rays.volume import VolumeTransform
from ctuq.uncertainty.model.covariance import ImageCovariance

_BATCH = 256
_DRAWS = 256
_EXACT_STD = 1e12
"""Up to so many multiplications the standard deviations over rays are exact; above they come from draws."""
_RTOL, _STEPS = 1e-6, 2000


class PixelField(Protocol):
    """A prior covariance S over pixels; all tensors are float64."""

    def times(self, x: Tensor) -> Tensor:
        """``x S`` for rows (k, d)."""
        ...

    def diagonal(self) -> Tensor:
        """Variance of each pixel, (d,)."""
        ...

    def draws(self, n: int, *, rng: torch.Generator) -> Tensor:
        """``n`` draws (n, d)."""
        ...

    def noise(self, n: int, *, rng: torch.Generator) -> Tensor:
        """``n`` draws (n, d) of covariance ``S^-1``."""
        ...

    def precision_times(self, x: Tensor) -> Tensor:
        """``x S^-1`` for rows (k, d)."""
        ...

    def dense_precision(self) -> Tensor:
        """``S^-1``, (d, d)."""
        ...


@dataclass(frozen=True, eq=False)
class PixelRays:
    """The used rays of a scan, and the image that they are judged by.

    Parameters
    ----------
    image : Tensor, shape (y, x)
        1/mm.
    matrix : RayRows, shape (m, d)
        Whitened by the roots of their weights.
    target, precision : Tensor, float64, shape (m,)
        Projections, whitened, and weights.
    rays, views : Tensor of int, shape (m,)
        Flat index of each among all, and its view.
    shape : tuple of int
        Of all rays.
    """

    image: Tensor
    matrix: RayRows
    target: Tensor
    precision: Tensor
    rays: Tensor
    views: Tensor
    shape: tuple[int, ...]

    @classmethod
    def of(cls, A: RayTransform | VolumeTransform, y: Tensor, weights: Tensor, image: Tensor) -> "PixelRays":
        """All rays of positive weight of projections (angle, column) or (row, angle, column).

        Raises
        ------
        BackendError
            If the back-projection of ``A`` is not its exact transpose.
        """
        require_exact_transpose(A)
        flat = weights.reshape(-1)
        kept = (flat > 0).nonzero()[:, 0]
        precision = flat[kept].double()
        root = precision.sqrt()
        target = y.reshape(-1)[kept].double() * root
        views = kept // y.shape[-1] % y.shape[-2]
        return cls(image, ray_rows(A, kept, root), target, precision, kept, views, tuple(y.shape))

    def part(self, index: Tensor) -> "PixelRays":
        """These rays alone."""
        values = {name: getattr(self, name)[index] for name in ("target", "precision", "rays", "views")}
        return replace(self, matrix=self.matrix.rows(index), **values)


class GaussianPosterior(ImageCovariance):
    """``N(mean, P)`` of an image given rays.

    It is no `ctuq.uncertainty.model.solved.SolvedRays` without a network: floors are known by their variances, whose factor is
    of rays, and a field by its precision, to which those of the rays are added over pixels.

    Parameters
    ----------
    given : PixelRays
    field : PixelField
        S.
    signal, sigma2 : float
        s, and the noise variance of a ray of weight 1.
    rng : torch.Generator
        Of the draws of `std`, where that is not exact.
    stages : Stages, optional
        Keeps `std`.
    """

    def __init__(
        self,
        given: PixelRays,
        field: PixelField,
        *,
        signal: float,
        sigma2: float,
        rng: torch.Generator,
        stages: Stages | None = None,
    ):
        self.given, self.field, self.signal, self.sigma2 = given, field, signal, sigma2
        self._rng, self._stages = rng, stages or Stages()

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.given.image.shape)

    @property
    def device(self) -> torch.device:
        return self.given.target.device

    @property
    def matrix(self) -> RayRows:
        return self.given.matrix

    @cached_property
    def mean(self) -> Tensor:
        """The image given the rays, (d,) float64: ``P M^T t / sigma^2``."""
        return self.response(self.given.target[None])[0]

    def response(self, rays: Tensor) -> Tensor:
        """The images that would be the mean if whitened rays (k, m) had been measured, (k, d)."""
        return self.times(self.given.matrix.transposed(rays)) / self.sigma2

    @abstractmethod
    def times(self, images: Tensor) -> Tensor: ...

    @abstractmethod
    def _few(self, n: int, rng: torch.Generator) -> Tensor:
        """``n`` draws (n, d)."""

    def _noise(self, n: int, rng: torch.Generator) -> Tensor:
        """``n`` draws of the rays' noise over sigma, (n, m)."""
        noise = torch.randn(n, len(self.given.target), generator=rng, dtype=torch.float64, device=rng.device)
        return noise.to(self.device)

    def draws(self, n: int, *, rng: torch.Generator) -> Tensor:
        parts = [self._few(min(_BATCH, n - start), rng) for start in range(0, n, _BATCH)]
        return torch.cat(parts) if parts else self.given.target.new_empty(0, self.size)

    def std(self) -> Tensor:
        kept = self._stages.once("std", lambda: self._variance().clamp(min=0).sqrt(), rng=self._rng)
        return kept.to(self.device).reshape(self.shape)

    @property
    def error(self) -> float:
        return 0.0 if self.exact else (2 * _DRAWS) ** -0.5

    @property
    def exact(self) -> bool:
        """Whether the standard deviations are; else draws tell them."""
        return False

    def _variance(self) -> Tensor:
        """Of each pixel, (d,)."""
        return self.draws(_DRAWS, rng=self._rng).square().mean(0)


class _OverRays(GaussianPosterior):
    """By a Cholesky factor of K."""

    @cached_property
    def _factor(self) -> Tensor:
        matrix = self.given.matrix
        count = matrix.shape[0]
        K = torch.empty(count, count, dtype=torch.float64, device=self.device)
        for start, stop in ends_of(count):
            K[start:stop] = self.signal * matrix(self.field.times(matrix.dense(start, stop)))
        K = (K + K.T) / 2
        K.diagonal().add_(self.sigma2)
        return torch.linalg.cholesky(K)

    def times(self, images: Tensor) -> Tensor:
        return torch.cat([self._given(self.signal * self.field.times(part)) for part in images.double().split(_BATCH)])

    def _given(self, prior: Tensor, noise: Tensor | float = 0.0) -> Tensor:
        """Prior images less what their rays, with noise, make of them."""
        told = torch.cholesky_solve((self.given.matrix(prior) + noise).T, self._factor).T
        return prior - self.signal * self.field.times(self.given.matrix.transposed(told))

    def _few(self, n: int, rng: torch.Generator) -> Tensor:
        images = self.signal**0.5 * self.field.draws(n, rng=rng)
        return self._given(images, self.sigma2**0.5 * self._noise(n, rng))

    @property
    def exact(self) -> bool:
        return float(len(self.given.target)) ** 2 * self.size <= _EXACT_STD

    def _variance(self) -> Tensor:
        if not self.exact:
            return super()._variance()
        matrix, prior = self.given.matrix, self.signal * self.field.diagonal()
        count = matrix.shape[0]
        seen = torch.cat([self.signal * self.field.times(matrix.dense(*ends)) for ends in ends_of(count)])
        return prior - torch.cat([explained(self._factor, part) for part in seen.split(1024, dim=1)])


class _OverPixels(GaussianPosterior):
    """By a Cholesky factor of ``P^-1``."""

    @cached_property
    def _factor(self) -> Tensor:
        weights = torch.full((len(self.given.target),), 1 / self.sigma2, dtype=torch.float64, device=self.device)
        H = self.given.matrix.column_gram(weights)
        H.add_(self.field.dense_precision().to(H), alpha=1 / self.signal)
        return torch.linalg.cholesky(H)

    def times(self, images: Tensor) -> Tensor:
        return torch.cholesky_solve(images.double().T, self._factor).T

    def _few(self, n: int, rng: torch.Generator) -> Tensor:
        z = torch.randn(self.size, n, generator=rng, dtype=torch.float64, device=rng.device).to(self.device)
        return torch.linalg.solve_triangular(self._factor.T, z, upper=True).T

    @property
    def exact(self) -> bool:
        return True

    def _variance(self) -> Tensor:
        return torch.cholesky_inverse(self._factor).diagonal()


class _ByConjugateGradients(GaussianPosterior):
    """By conjugate gradients on ``P^-1``, begun from the prior's own inverse."""

    def times(self, images: Tensor) -> Tensor:
        space = Space((self.size,), torch.float64, self.device)
        H = Symmetric(self._precision, space)
        prior = Symmetric(lambda x: self.signal * self.field.times(x), space)
        solve = CG(_RTOL, _STEPS, prior)
        return torch.cat([solve(H, part).value for part in images.double().split(_BATCH)])

    def _precision(self, x: Tensor) -> Tensor:
        seen = self.given.matrix.transposed(self.given.matrix(x)) / self.sigma2
        return seen + self.field.precision_times(x) / self.signal

    def _few(self, n: int, rng: torch.Generator) -> Tensor:
        pulled = self.given.matrix.transposed(self._noise(n, rng)) / self.sigma2**0.5
        return self.times(pulled + self.field.noise(n, rng=rng) / self.signal**0.5)


ROUTES: dict[str, type[GaussianPosterior]] = {"rays": _OverRays, "pixels": _OverPixels, "cg": _ByConjugateGradients}


def ends_of(count: int) -> list[tuple[int, int]]:
    """Ends of so many rows that are made dense together."""
    return [(start, min(start + _BATCH, count)) for start in range(0, count, _BATCH)]
