"""The posterior of an image under a Gaussian prior over its pixels, without a network.

With a prior ``N(0, s S)`` and rays ``t = M x + e`` of noise sigma^2, whitened by the roots of their weights,

    P = s (S - s S M^T K^-1 M S),   K = s M S M^T + sigma^2 I        by a factor of K, over rays
      = (S^-1 / s + M^T M / sigma^2)^-1                              by a factor over pixels, or by conjugate gradients

whichever is cheaper, exactly where a factor fits.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, Self

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

_BATCH, _FEWEST, _VALUES = 256, 32, 2**24
"""Images in a batch, at most and at least, and values of all of them: eight such batches are held at once."""
_DRAWS = 256
_EXACT_STD = 1e12
"""Up to so many multiplications the standard deviations over rays are exact; above they come from draws."""
_RTOL, _STEPS = 1e-6, 2000
_TIMES, _DRAWN, _ROUGH = 1e-4, 1e-3, 0.03
"""Relative residuals of products, of draws, whose number makes an error of 4 %, and of what enters by its square."""
_UNSEEN = 1e-12


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

    def with_precision(self, more: Tensor) -> "HasCovariance":
        """The field of precision ``S^-1 + diag(more)``, more positive (d,)."""
        ...


class HasCovariance(Protocol):
    """What a field's covariance is known by."""

    def times(self, x: Tensor) -> Tensor:
        """``x S`` for rows (k, d)."""
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

    def of_rays(self, index: Tensor) -> Self:
        """The same prior and noise given these rays alone."""
        given = self.given.part(index)
        return type(self)(given, self.field, signal=self.signal, sigma2=self.sigma2, rng=self._rng)

    def precision_of_rays(self, index: Tensor) -> Tensor:
        """``sigma^2 (K^-1)_hh`` of some rays, (k, k): the inverse of their covariance given all others, in units of the noise.

        It is ``I - M_h P M_h^T / sigma^2``.
        """
        matrix = self.given.matrix.rows(index)
        inverse = -torch.cat([matrix(self.times(matrix.dense(*ends))) for ends in ends_of(len(index), self.size)]) / self.sigma2
        inverse.diagonal().add_(1)
        return (inverse + inverse.T) / 2

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
        parts = [self._few(stop - start, rng) for start, stop in ends_of(n, self.size)]
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
        for start, stop in ends_of(count, self.size):
            K[start:stop] = matrix(self._seen[start:stop] if self.exact else self._prior_of_rays(start, stop))
        K.diagonal().add_(self.sigma2)
        # One triangle is read: the other need not be its mirror image to the last digit.
        return torch.linalg.cholesky(K, out=K)

    @cached_property
    def _seen(self) -> Tensor:
        """``S M^T``, (m, d): kept where standard deviations need it as a whole."""
        return torch.cat([self._prior_of_rays(*ends) for ends in ends_of(len(self.given.target), self.size)])

    def _prior_of_rays(self, start: int, stop: int) -> Tensor:
        return self.signal * self.field.times(self.given.matrix.dense(start, stop))

    def precision_of_rays(self, index: Tensor) -> Tensor:
        # No difference of large numbers, and no product with the prior: half of a solve for each.
        unit = torch.zeros(len(self.given.target), len(index), dtype=torch.float64, device=self.device)
        unit[index, torch.arange(len(index), device=self.device)] = self.sigma2**0.5
        half = torch.linalg.solve_triangular(self._factor, unit, upper=False)
        return half.T @ half

    def times(self, images: Tensor) -> Tensor:
        return torch.cat(
            [self._given(self.signal * self.field.times(part)) for part in images.double().split(together(self.size))]
        )

    def _given(self, prior: Tensor, noise: Tensor | float = 0.0) -> Tensor:
        """Prior images less what their rays, with noise, make of them."""
        told = torch.cholesky_solve((self.given.matrix(prior) + noise).T, self._factor).T
        return prior - self.signal * self.field.times(self.given.matrix.transposed(told))

    def _few(self, n: int, rng: torch.Generator) -> Tensor:
        images = self.signal**0.5 * self.field.draws(n, rng=rng)
        return self._given(images, self.sigma2**0.5 * self._noise(n, rng))

    @property
    def exact(self) -> bool:
        return exact_over_rays(len(self.given.target), self.size)

    def _variance(self) -> Tensor:
        if not self.exact:
            return super()._variance()
        explained_by_rays = [explained(self._factor, part) for part in self._seen.split(1024, dim=1)]
        return self.signal * self.field.diagonal() - torch.cat(explained_by_rays)


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


class ByConjugateGradients(GaussianPosterior):
    """By conjugate gradients on ``P^-1``, begun from the prior with ``diag(M^T M) / sigma^2`` added to its precision.

    From the prior alone they took 240 steps to 0.1 and 1,661 to 1e-6 for rays of HTC ta at 128 x 128 (8,540 of them); so they
    take 25 and 377.
    """

    def times(self, images: Tensor) -> Tensor:
        return self.solved(images, _TIMES)

    def response(self, rays: Tensor) -> Tensor:
        return self.solved(self.given.matrix.transposed(rays), _RTOL) / self.sigma2

    def solved(self, images: Tensor, rtol: float) -> Tensor:
        """``P x`` for rows (k, d), to a relative residual."""
        solve, H = CG(rtol, _STEPS, self._preconditioner), Symmetric(self.precision_times, self._space)
        return torch.cat([solve(H, part).value for part in images.double().split(together(self.size))])

    def precision_times(self, x: Tensor) -> Tensor:
        """``P^-1 x`` for rows (k, d)."""
        seen = self.given.matrix.transposed(self.given.matrix(x)) / self.sigma2
        return seen + self.field.precision_times(x) / self.signal

    def between(self, x: Tensor) -> Tensor:
        """``x P x^T`` of rows (k, d), by rough solves: what these miss, E, enters by ``E P^-1 E^T``."""
        rough = self.solved(x, _ROUGH)
        found = rough @ x.T
        found = found + found.T - rough @ self.precision_times(rough).T
        return (found + found.T) / 2

    def updated(self, rays: RayRows, measured: Tensor, ratio: float) -> Tensor:
        """The mean, (d,), of an image of covariance P and mean 0 given more rays (k, d), with so many times the noise."""
        level = ratio * self.sigma2
        H = Symmetric(lambda x: self.precision_times(x) + rays.transposed(rays(x)) / level, self._space)
        return CG(_RTOL, _STEPS, self._preconditioner)(H, rays.transposed(measured[None]) / level).value[0]

    @cached_property
    def _preconditioner(self) -> Symmetric:
        seen = self.given.matrix.column_squares() * (self.signal / self.sigma2)
        near = self.field.with_precision(seen.clamp(min=_UNSEEN * float(seen.max())))
        return Symmetric(lambda x: self.signal * near.times(x), self._space)

    @property
    def _space(self) -> Space:
        return Space((self.size,), torch.float64, self.device)

    def _few(self, n: int, rng: torch.Generator) -> Tensor:
        pulled = self.given.matrix.transposed(self._noise(n, rng)) / self.sigma2**0.5
        return self.solved(pulled + self.field.noise(n, rng=rng) / self.signal**0.5, _DRAWN)


ROUTES: dict[str, type[GaussianPosterior]] = {"rays": _OverRays, "pixels": _OverPixels, "cg": ByConjugateGradients}


def exact_over_rays(rays: float, pixels: float) -> bool:
    """Whether standard deviations by a factor over so many rays are exact."""
    return rays**2 * pixels <= _EXACT_STD


def together(pixels: int) -> int:
    """Images of so many pixels in a batch."""
    return min(_BATCH, max(_FEWEST, _VALUES // max(pixels, 1)))


def ends_of(count: int, pixels: int) -> list[tuple[int, int]]:
    """Ends of so many rows that are made dense together, a batch after another."""
    step = together(pixels)
    return [(start, min(start + step, count)) for start in range(0, count, step)]
