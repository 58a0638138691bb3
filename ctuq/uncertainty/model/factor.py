"""The Jacobian of a network's image as a factor: the few directions of the weights that rays see.

Everything that error bars ask of the network is ``J Sigma J^T``. Random combinations of the rays, pulled back through the
network, span the weights' directions W that rays can determine; ``F = J W^T`` are their images, and the network is not needed
again: evidence, posterior, calibration and angle design are algebra on F (pixels, r) and on ``C_c = W D_c W^T`` (r, r). What
these directions leave out is known from draws, to a pixel's neighbours (`ctuq.linops.local`).

Projecting J on as many directions of the image instead, ``Q Q^T J``, takes as many products, and loses what the missed
directions have in common with the others: by 1,300 of them the std of the walnut at 64 x 64 was off by 31 % at the median,
by 1,121 directions of the weights it is by 2 % (`experiments.benchmarks.accuracy`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.laplace import FilterProcess, g_prior, isotropic, layerwise
from ctuq.laplace.priors.diagonal import Prior
from ctuq.linops.jacobian.network import Jacobian
from ctuq.linops.local import LocalCovariance, localised
from ctuq.linops.orthonormal import orthonormalise_
from ctuq.stages import Stages
from ctuq.tomo.rays.rows import RayRows

PRIORS = ("isotropic", "layerwise", "filter", "g")
_DRAWS, _FEW_DRAWS = 256, 64
_RADIUS, _LOCAL_PIXELS = 2, 2**14
_EXACT_PIXELS = 1600
_FEWEST, _AFFORDED, _AFFORDED_3D = 128, 2**18, 2**24
_BATCH = 64


@dataclass(frozen=True, eq=False)
class NetworkFactor:
    """``N(0, F C(psi) F^T + tail(psi) rest)``, the image covariance of the network's weights.

    Parameters
    ----------
    basis : Tensor, float32, shape (d, r), optional
        F: images of orthonormal directions of the weights. None: the identity, an exact Jacobian.
    components : Tensor, float64, shape (c, r, r)
        ``C(psi) = sum_c a_c(psi) C_c``.
    prior : Prior
        Of the weights; its ``coefficients`` are the a_c.
    rest : LocalCovariance, optional
        What the columns leave out of the pixels' covariance under equal weights, from draws. It reaches few pixels: what is
        left is fine, and has far more directions than rays can determine. As the few draws themselves, all determined by the
        rays, it left 0.57 of the std to the walnut at 64 x 64; as independent pixels, 1.25.
    shares : Tensor, float64, shape (c,)
        ``tail(psi) = sum_c a_c(psi) share_c``.
    missed : float
        Share of the prior variance of equal weights that the columns leave out.
    """

    basis: Tensor | None
    components: Tensor
    prior: Prior
    rest: LocalCovariance | None
    shares: Tensor
    missed: float

    @property
    def rank(self) -> int:
        """Number of columns, r."""
        return self.components.shape[-1]


def rank_of(pixels: int, rays: int, dims: int = 2) -> int:
    """How many directions a factor takes: all pixels (an exact Jacobian) where that is cheap, else 4 for 7 rays, in 3D 1 for 2.

    A full Jacobian takes a product a pixel, a factor two a direction. 4 for 7 rays leave the std of the walnut at 64 x 64 right
    to 4 % for 95 in 100 pixels, 1 for 2 to 7 %, 1 for 3 to 18 % (`experiments.benchmarks.accuracy`): the evidence gives to
    floors what the directions miss. The exact Jacobian took 258 CPU seconds there with all that follows, 1,121 directions 46.
    Beyond 128 x 128 pixels a CPU has time for fewer, the fewer the dearer a product is;
    `ctuq.uncertainty.model.posterior.ImagePosterior.unresolved` tells what they leave out. A voxel's products take longer:
    of a volume as many are made as take some four minutes on one processor at any size, 1,213 at 24^3, 262 at 40^3.
    """
    afforded = _AFFORDED / pixels**0.5 if dims == 2 else max(_FEWEST / 2, _AFFORDED_3D / pixels)
    rank = min(max(4 * rays // 7 if dims == 2 else rays // 2, _FEWEST), int(afforded))
    return pixels if pixels <= max(_EXACT_PIXELS, 2 * rank) else rank


def draws_of(pixels: int, rays: int, dims: int = 2) -> tuple[int, int]:
    """How many draws tell what a factor leaves out, and the radius in pixels to which they tell it.

    Neighbours are correlated by 0.3. Of the walnut at 48 x 48 (30 views, at given hyperparameters) the std was 10 % off at the
    95th percentile by independent pixels of 64 draws, 7 % by their true variances; at radius 2 by 6, 5 and 4 % from 64, 128 and
    256 draws, at radius 3 no better. More than 128 x 128 pixels, voxels, and as many rays as pixels, whose systems are dense
    over pixels, count as independent.
    """
    return (_DRAWS, _RADIUS) if dims == 2 and pixels <= _LOCAL_PIXELS and rays < pixels else (_FEW_DRAWS, 0)


def products_of(pixels: int, rank: int, rays: int, dims: int = 2) -> tuple[int, int]:
    """Jacobian-vector and vector-Jacobian products that a factor of this rank takes."""
    return (0, pixels) if rank == pixels else (rank + draws_of(pixels, rays, dims)[0], rank - 1)


def factorise(
    jacobian: Jacobian,
    scale: float,
    prior: str,
    rank: int,
    *,
    shape: tuple[int, ...],
    matrix: RayRows,
    rng: torch.Generator,
    progress: Callable[[int, int], None] | None = None,
    stages: Stages | None = None,
) -> NetworkFactor:
    """The factor of ``scale`` times a Jacobian.

    Parameters
    ----------
    jacobian : Jacobian
        Of an image in its weights.
    scale : float
    prior : str
        One of `PRIORS`.
    rank : int
        Directions; the number of pixels for the exact Jacobian.
    shape : tuple of int
        Of the image.
    matrix : SparseRows or FreeRows, shape (m, d)
        The rays, whitened.
    rng : torch.Generator
    progress : callable, optional
        ``progress(done, total)`` in products.
    stages : Stages, optional
        Keeps the products.
    """
    if prior not in PRIORS:
        raise InputError(f"There is no prior {prior!r}; choose one of {', '.join(PRIORS)}.")
    count = sum(products_of(jacobian.range.size, rank, matrix.shape[0], len(shape)))
    work = _Work(jacobian, scale, progress, count, stages or Stages())
    if len(jacobian.weights) <= rank < jacobian.range.size:
        every = torch.eye(len(jacobian.weights), device=jacobian.domain.device)
        basis = work.images(every).T.contiguous()
        made = _prior(prior, jacobian, every, basis, matrix)
        components = torch.stack(list(made.components(every)))
        return NetworkFactor(basis, components, made, None, torch.zeros(len(components), dtype=torch.float64), 0.0)
    if rank >= jacobian.range.size:
        rows = work.rows(torch.eye(jacobian.range.size, device=jacobian.domain.device))
        made = _prior(prior, jacobian, rows, None, matrix)
        components = torch.stack(list(made.components(rows)))
        return NetworkFactor(None, components, made, None, torch.zeros(len(components), dtype=torch.float64), 0.0)
    directions, basis = _seen_directions(work, jacobian.weights, matrix, rank, rng)
    made = _prior(prior, jacobian, directions, basis, matrix)
    components = torch.stack(list(made.components(directions)))
    draws, radius = draws_of(jacobian.range.size, matrix.shape[0], len(shape))
    rest = localised(work.beside(directions, draws, rng), shape, radius)
    # Of one component its own share; of several, what draws of equal weights say of their sum, in proportion to their sizes.
    sizes = components.diagonal(dim1=1, dim2=2).sum(1).abs()
    shares = sizes / sizes.sum() if len(sizes) > 1 else torch.ones_like(sizes)
    left = rest.diagonal.sum()
    missed = float(left / (left + basis.double().square().sum()))
    return NetworkFactor(basis, components, made, rest, shares, missed)


def _seen_directions(work: "_Work", weights: Tensor, matrix: RayRows, rank: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Orthonormal directions W (r, P) of the weights that rays see, and their images F (d, r): a step of a block Krylov method.

    Half of them are random combinations of the rays pulled back through the network, the other half the images of the first
    half pulled back: these reach what no ray sees but the network ties to what rays see. With the rays of these images instead
    the pixels' std was as good, but that of means over 8 x 8 pixels of a limited arc (ta at 64 x 64) up to 19 % too small, not
    8 %. The trained weights come first: the target of the linear model is made of them.
    """
    half = rank // 2
    directions = torch.empty(rank, len(weights), device=weights.device)
    first, second = directions[:half], directions[half:]
    mixed = torch.randn(half - 1, matrix.shape[0], generator=rng, device=rng.device).to(weights)
    first[0] = weights
    work.rows(matrix.fast_transposed(mixed), out=first[1:])
    images = work.images(orthonormalise_(first))
    again = torch.cat([images, torch.randn(len(second) - half, images.shape[1], generator=rng, device=rng.device).to(images)])
    work.rows(again / again.norm(dim=1, keepdim=True).clamp(min=torch.finfo(again.dtype).tiny), out=second)
    basis = torch.cat([images, work.images(orthonormalise_(second, beside=first))])
    return directions, basis.T.contiguous()


def _prior(name: str, jacobian: Jacobian, rows: Tensor, basis: Tensor | None, matrix: RayRows) -> Prior:
    """The prior over the weights; the g-prior's energies are those of the rays of ``F rows``."""
    if name != "g":
        return {"isotropic": isotropic, "layerwise": layerwise, "filter": FilterProcess}[name](jacobian.blocks)
    images = torch.eye(len(rows), device=rows.device) if basis is None else basis.T
    seen = matrix(images)
    gram = seen @ seen.T
    values, vectors = torch.linalg.eigh(gram)
    root = vectors * values.clamp(min=0).sqrt()
    return g_prior(jacobian.blocks, root.T.to(rows) @ rows)


class _Work:
    """Products with ``scale J`` in batches, counted, and kept by their number."""

    def __init__(
        self, jacobian: Jacobian, scale: float, progress: Callable[[int, int], None] | None, total: int, stages: Stages
    ):
        self._jacobian, self._scale, self._progress, self._total, self._done = jacobian, scale, progress, total, 0
        self._stages = stages

    def images(self, weights: Tensor) -> Tensor:
        """Images (k, d) of weight vectors."""
        out = torch.empty(len(weights), self._jacobian.range.size, device=weights.device)
        for start in range(0, len(weights), _BATCH):
            part = weights[start : start + _BATCH]
            out[start : start + len(part)] = self._kept(partial(self._jacobian, part)).flatten(1)
            self._told(len(part))
        return out.mul_(self._scale)

    def beside(self, directions: Tensor, count: int, rng: torch.Generator) -> Tensor:
        """Images (count, d) of standard normal weights less their part along the directions."""
        parts = []
        for start in range(0, count, _BATCH):
            z = self._jacobian.domain.randn(min(_BATCH, count - start), rng=rng)
            parts.append(self.images(z - (z @ directions.T) @ directions))
        return torch.cat(parts)

    def rows(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """``x^T scale J`` (k, P) for rows of images (k, d)."""
        if out is None:
            out = torch.empty(len(images), self._jacobian.domain.size, device=images.device)
        for start in range(0, len(images), _BATCH):
            part = images[start : start + _BATCH].reshape(-1, *self._jacobian.range.shape)
            out[start : start + len(part)] = self._kept(partial(self._jacobian.T, part))
            self._told(len(part))
        return out.mul_(self._scale)

    def _kept(self, product: Callable[[], Tensor]) -> Tensor:
        return self._stages.once(f"product {self._done}", product).to(self._jacobian.domain.device)

    def _told(self, n: int) -> None:
        self._done += n
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)
