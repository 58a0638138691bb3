"""A scan's Gaussian-linear model of its image, as a problem of the general engine.

``t = A F c + N eta + A u_1 + A u_2 + A u_3 + e``: the network's factor, the scan's systematic errors (where some are given),
the two floors of `ctuq.uncertainty.model.prior` and what the factor leaves out, seen by every ray of positive weight. Rays are
whitened by the square root of their weights, so that one noise variance serves all.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ctuq.laplace.system.problem import Problem
from ctuq.linops.jacobian.network import Jacobian
from ctuq.linops.local import LocalCovariance
from ctuq.linops.operator import LinearOperator, Space
from ctuq.stages import Stages
from ctuq.systematics.block import Block, columns_of
from ctuq.tomo.rays.rows import RayRows
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.rays.volume import VolumeTransform
from ctuq.uncertainty.model.factor import NetworkFactor, factorise
from ctuq.uncertainty.model.gaussian import PixelRays
from ctuq.uncertainty.model.prior import FLOORS, ErrorPrior, ImagePrior

_NOTHING = 1e-3
"""What floors and noise explain at the start of a search, over what the network does."""


class RayFeatures(LinearOperator):
    """From latent vectors ``[c, eta, u_1, u_2, u_3]`` to whitened rays, float64.

    In float32 the evidence of the walnut's 4,920 rays did not converge: rays are a million times their noise.

    Parameters
    ----------
    basis : Tensor, float64, shape (m, r)
        The rays of F's columns, and those of the systematic errors.
    matrix : SparseRows or FreeRows, shape (m, d)
        Whitened.
    slopes : Tensor, float64, shape (2, d)
        Root of each floor's profile.
    rest : LocalCovariance, optional
        What the factor leaves out.
    """

    def __init__(self, basis: Tensor, matrix: RayRows, slopes: Tensor, rest: LocalCovariance | None = None):
        self.basis, self.matrix, self.slopes, self.rest = basis, matrix, slopes, rest
        size = basis.shape[1] + slopes.numel() + (0 if rest is None else slopes.shape[1])
        self.domain = Space((size,), torch.float64, basis.device)
        self.range = Space((len(basis),), torch.float64, basis.device)

    def _apply(self, x: Tensor) -> Tensor:
        rank = self.basis.shape[1]
        return x[:, :rank] @ self.basis.T + self.matrix(self.pixels(x[:, rank:]))

    def pixels(self, u: Tensor) -> Tensor:
        """Images (k, d) of the entries (k, 2 d or 3 d) of floors and of what the factor leaves out."""
        size = self.slopes.numel()
        out = (u[:, :size].reshape(len(u), *self.slopes.shape) * self.slopes).sum(1)
        return out if self.rest is None else out + self.rest.spread(u[:, size:])

    def _apply_transpose(self, y: Tensor) -> Tensor:
        pulled = self.matrix.transposed(y)
        pixels = (pulled[:, None] * self.slopes).flatten(1)
        rest = [] if self.rest is None else [self.rest.spread_transposed(pulled)]
        return torch.cat([y @ self.basis, pixels, *rest], 1)


@dataclass(frozen=True, eq=False)
class ImageModel:
    """Prior, rays and target of one scan at a fitted network.

    Parameters
    ----------
    image : Tensor, shape (y, x) or (z, y, x)
        The reconstruction, in 1/mm.
    mean : Tensor, float64, same shape
        The image's prior mean ``f - J theta_hat``.
    prior : ImagePrior
    features : RayFeatures
        Of all used rays.
    target : Tensor, float64, shape (m,)
        Whitened: the rays less those of ``mean``.
    precision : Tensor, float64, shape (m,)
        Weight of each used ray.
    rays, views : Tensor of int, shape (m,)
        Flat index of each used ray among all, and its view.
    shape : tuple of int
        Of all rays, (angle, column) or (row, angle, column).
    blocks : tuple of Block
        Systematic errors that are unknowns, in the order of their entries; their columns are of all rays.
    hidden : tuple of Block
        Those that rays do not tell from the image.
    taken : Tensor, float64, shape (e,), optional
        Of the errors, what was taken out of the rays to which the image was fitted; ``target`` has it again, so that what is
        learned of them is the whole of them.
    """

    image: Tensor
    mean: Tensor
    prior: ImagePrior
    features: RayFeatures
    target: Tensor
    precision: Tensor
    rays: Tensor
    views: Tensor
    shape: tuple[int, ...]
    blocks: tuple[Block, ...] = ()
    hidden: tuple[Block, ...] = ()
    taken: Tensor | None = None

    def with_errors(self, blocks: Sequence[Block], taken: Mapping[str, Tensor] | None = None) -> "ImageModel":
        """The model with systematic errors of the scan, in place of those that it has.

        Parameters
        ----------
        blocks : sequence of Block
        taken : mapping of str to Tensor, float64, (k,)
            Of some of them, the factors that were taken out of the rays.
        """
        root, rank = self.precision.sqrt()[:, None], self.factor.rank
        unknown = tuple(sorted((b for b in blocks if not b.hidden), key=lambda block: not block.learned))
        columns = [block.columns[self.rays] * root for block in unknown]
        errors = tuple(ErrorPrior(b.name, b.columns.shape[1], None if b.learned else b.width**2) for b in unknown)
        # As the floors, each explains a thousandth of what the network does where the search starts.
        sizes = [_NOTHING / float(N.square().sum(1).mean()) for N, b in zip(columns, unknown, strict=True) if b.learned]
        basis = torch.cat([self.features.basis[:, :rank], *columns], 1)
        features = RayFeatures(basis, self.features.matrix, self.features.slopes, self.features.rest)
        hidden = tuple(block for block in blocks if block.hidden)
        prior = self.prior.with_errors(errors, sizes)
        changed = replace(self, features=features, prior=prior, blocks=unknown, hidden=hidden, taken=None)
        target = self.target - self.taken_rays
        if not taken:
            return replace(changed, target=target)
        none = [self.target.new_zeros(b.columns.shape[1]) for b in unknown]
        factors = torch.cat([taken.get(b.name, zero).to(zero) for b, zero in zip(unknown, none, strict=True)])
        changed = replace(changed, taken=factors)
        return replace(changed, target=target + changed.taken_rays)

    @property
    def taken_rays(self) -> Tensor | float:
        """What was taken out of the rays, whitened (m,); 0 for nothing."""
        return 0.0 if self.taken is None else self.features.basis[:, self.factor.rank :] @ self.taken

    def left_of(self, errors: Tensor) -> Tensor:
        """Of systematic errors (e,) what the rays of the fit still have, float64."""
        return errors if self.taken is None else errors - self.taken.to(errors)

    def hidden_columns(self) -> Tensor:
        """What a prior standard deviation of each number of ``hidden`` does to the used rays, whitened: (m, k), float64."""
        return columns_of(self.hidden, self.rays, self.precision)

    @property
    def factor(self) -> NetworkFactor:
        """The network's share of the prior."""
        return self.prior.factor

    @property
    def matrix(self) -> RayRows:
        """The used rays, whitened."""
        return self.features.matrix

    def problem(self) -> Problem:
        """The engine's problem of the used rays.

        Solved over rays: their system is the smaller one but where there are more than twice as many as pixels.
        """
        return Problem(
            self.features,
            self.target,
            torch.full((1,), math.nan, dtype=torch.float64),
            log_scale=0.5 * float(self.precision.log().sum()),
            over_observations=True,
        )

    def part(self, index: Tensor) -> "ImageModel":
        """The model of these used rays alone."""
        features = self.features
        fewer = RayFeatures(features.basis[index], features.matrix.rows(index), features.slopes, features.rest)
        values = (self.target, self.precision, self.rays, self.views)
        target, precision, rays, views = (v[index] for v in values)
        return replace(self, features=fewer, target=target, precision=precision, rays=rays, views=views)

    def components(self) -> Tensor:
        """``prior.components`` of the rays, (c, m, m), float64, from the sparse matrix."""
        return components_of(self.features, self.prior)

    def misfit(self, psi: Tensor) -> LocalCovariance:
        """Covariance of what no coefficients explain: the floors, and what the factor leaves out of the weights."""
        floors = self.prior.floors(psi).to(self.features.slopes)
        own = floors[: len(FLOORS)] @ self.features.slopes.square()
        return LocalCovariance(own) if self.factor.rest is None else self.factor.rest.scaled(float(floors[-1])).plus(own)

    def push(self, latent: Tensor) -> Tensor:
        """Images (k, *shape), float64, of latent vectors."""
        rank = self.prior.rank
        pixels = self.features.pixels(latent[:, rank:])
        return self.images(latent[:, :rank]) + pixels.reshape(len(latent), *self.image.shape)

    def images(self, c: Tensor) -> Tensor:
        """Images (k, *shape), float64, of the network's coefficients alone: ``F c``; entries that follow c have none."""
        basis, c = self.factor.basis, c[:, : self.factor.rank]
        return (c.double() if basis is None else (c.to(basis) @ basis.T).double()).reshape(len(c), *self.image.shape)


def components_of(features: RayFeatures, prior: ImagePrior) -> Tensor:
    """``prior.components`` of the rays of some features, (c, m, m), float64, from their matrix."""
    factor = prior.factor
    network = features.basis[:, : factor.rank]
    weights = torch.stack([network @ C @ network.T for C in factor.components])
    floors = torch.stack([features.matrix.gram(s.square()) for s in features.slopes])
    if factor.rest is not None:
        weights += factor.shares[:, None, None] * factor.rest.gram(features.matrix)
    errors = [features.basis[:, s] @ features.basis[:, s].T for s in prior.error_slices]
    return torch.cat([weights, floors, *(K[None] for K in errors)])


def image_model(
    A: RayTransform | VolumeTransform,
    y: Tensor,
    weights: Tensor,
    *,
    image: Tensor,
    jacobian: Jacobian,
    scale: float,
    prior: str,
    rank: int,
    rng: torch.Generator,
    progress: Callable[[int, int], None] | None = None,
    stages: Stages | None = None,
) -> ImageModel:
    """The linear model of a scan at a fitted network: every product with the network that error bars take.

    Parameters
    ----------
    A : MatrixRayTransform or VolumeTransform
        Of all used views.
    y, weights : Tensor, shape (angle, column) or (row, angle, column)
        Log-corrected projections and relative precisions; rays of weight 0 are left out.
    image : Tensor, shape (y, x) or (z, y, x)
        The reconstruction f, in 1/mm.
    jacobian : Jacobian
        Of the image over ``scale``.
    scale : float
    prior : str
        One of `ctuq.uncertainty.model.factor.PRIORS`.
    rank : int
        Directions of the factor, see `ctuq.uncertainty.model.factor.rank_of`.
    rng : torch.Generator
        For the draws that the factor is made from.
    progress : callable, optional
        ``progress(done, total)`` after each batch of products.
    stages : Stages, optional
        Keeps what is dear.

    Raises
    ------
    BackendError
        If the back-projection of ``A`` is not its exact transpose.
    """
    rays = PixelRays.of(A, y, weights, image)
    matrix = rays.matrix
    shape = tuple(image.shape)
    factor = factorise(jacobian, scale, prior, rank, shape=shape, matrix=matrix, rng=rng, progress=progress, stages=stages)
    slopes = torch.stack([torch.ones_like(image).double(), _gradient(image.double())]).flatten(1)
    basis = _rays_of(factor.basis, matrix)
    features = RayFeatures(basis, matrix, slopes, factor.rest)
    mean = image.double() - scale * jacobian(jacobian.weights[None])[0].double()
    target = rays.target - matrix(mean.reshape(1, -1))[0]
    latent = ImagePrior(factor, _start(factor, basis, matrix, slopes), image.numel())
    return ImageModel(image, mean, latent, features, target, rays.precision, rays.rays, rays.views, rays.shape)


def _rays_of(basis: Tensor | None, matrix: RayRows) -> Tensor:
    """Rays (m, r) of the columns of F."""
    if basis is not None:
        return torch.cat([matrix(part.T) for part in basis.split(64, dim=1)]).T.contiguous()
    return matrix(torch.eye(matrix.shape[1], dtype=torch.float64, device=matrix.device)).T.contiguous()


def _start(factor: NetworkFactor, basis: Tensor, matrix: RayRows, slopes: Tensor) -> Tensor:
    """Every component of the weights explains as much as another, and each floor a thousandth of it."""
    prior = factor.prior
    sizes = torch.stack([((basis @ C) * basis).sum(1).mean() for C in factor.components])
    if factor.rest is not None:
        sizes = sizes + factor.shares * factor.rest.squares(matrix).mean()
    sizes = sizes.cpu()
    psi = prior.start()
    if bool(prior.is_variance.all()) and len(psi) == len(sizes):
        # A block whose features are all zero would start, and stay, at a variance that overflows.
        psi = -torch.log(len(sizes) * sizes.clamp(min=1e-9 * float(sizes.max())))
    else:
        psi = psi - prior.is_variance * torch.log((prior.coefficients(psi) * sizes).sum())
    floors = torch.stack([matrix.squares(s.square()).mean() for s in slopes]).cpu()
    floors = torch.log(_NOTHING / floors.clamp(min=1e-300))
    count = len(prior.members)
    return torch.cat([psi[:count], floors, psi[count:]])


def _gradient(image: Tensor) -> Tensor:
    """Length of the gradient of an image per pixel of displacement, by central differences; 0 along an axis of one pixel."""
    axes = tuple(axis for axis, n in enumerate(image.shape) if n > 1)
    return torch.stack([g.square() for g in torch.gradient(image, dim=axes)]).sum(0).sqrt()
