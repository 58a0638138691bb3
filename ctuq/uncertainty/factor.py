"""The Jacobian of a network's image as a factor: few directions of the image, and the weights' share in each.

Everything that error bars ask of the network is ``J Sigma J^T``. Prior draws ``J theta`` span the directions that matter;
projected on them, ``J ~ Q B`` with ``B = Q^T J``, and the network is not needed again: evidence, posterior, calibration and
angle design are algebra on Q (pixels, r) and on ``C_c = B D_c B^T`` (r, r).
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
from ctuq.stages import Stages

PRIORS = ("isotropic", "layerwise", "filter", "g")
REMAINDER = 64
_EXACT_PIXELS = 1600
_BATCH = 64


@dataclass(frozen=True, eq=False)
class NetworkFactor:
    """``N(0, F C(psi) F^T + tail(psi) diag(rest))``, the image covariance of the network's weights.

    Parameters
    ----------
    basis : Tensor, float32, shape (d, r), optional
        F: orthonormal columns. None: the identity, an exact Jacobian.
    components : Tensor, float64, shape (c, r, r)
        ``C(psi) = sum_c a_c(psi) C_c``.
    prior : Prior
        Of the weights; its ``coefficients`` are the a_c.
    rest : Tensor, float64, shape (d,), optional
        Variance of each pixel under equal weights that the columns leave out, from draws. It counts as independent from pixel
        to pixel: what is left is fine, and has far more directions than rays can determine. As the few draws themselves, all
        determined by the rays, it left 0.57 of the std to the walnut at 64 x 64; as pixels, 1.25.
    shares : Tensor, float64, shape (c,)
        ``tail(psi) = sum_c a_c(psi) share_c``.
    missed : float
        Share of the prior variance of equal weights that the columns leave out.
    """

    basis: Tensor | None
    components: Tensor
    prior: Prior
    rest: Tensor | None
    shares: Tensor
    missed: float

    @property
    def rank(self) -> int:
        """Number of columns, r."""
        return self.components.shape[-1]


def rank_of(pixels: int, rays: int) -> int:
    """How many directions a factor takes: all pixels of a small image (an exact Jacobian), else a sixth of the rays.

    A full Jacobian takes a product a pixel, a factor two a direction. A sixth of the rays is what a CPU has time for: with it
    the std of simulated scans of 32 x 32 pixels is right to 0.2 to 0.4 (rms over the pixels), and 0.8 to 1.1 times as large on
    average. Small images are spared it; `ctuq.uncertainty.posterior.ImagePosterior.unresolved` tells what it leaves out.
    """
    rank = min(max(rays // 6, 128), 640)
    return pixels if pixels <= _EXACT_PIXELS else rank


def products_of(pixels: int, rank: int) -> tuple[int, int]:
    """Jacobian-vector and vector-Jacobian products that a factor of this rank takes."""
    return (0, pixels) if rank == pixels else (rank + REMAINDER, rank)


def factorise(
    jacobian: Jacobian,
    scale: float,
    prior: str,
    rank: int,
    *,
    observe: Callable[[Tensor], Tensor],
    rng: torch.Generator,
    progress: Callable[[int, int], None] | None = None,
    stages: Stages | None = None,
) -> NetworkFactor:
    """The factor of ``scale`` times a Jacobian.

    Parameters
    ----------
    jacobian : Jacobian
        Of an image (y, x) in its weights.
    scale : float
    prior : str
        One of `PRIORS`.
    rank : int
        Directions; the number of pixels for the exact Jacobian.
    observe : callable
        Rays (k, m) of images (k, d), whitened: the g-prior's scales come from what the data see.
    rng : torch.Generator
    progress : callable, optional
        ``progress(done, total)`` in products.
    stages : Stages, optional
        Keeps the products.
    """
    if prior not in PRIORS:
        raise InputError(f"There is no prior {prior!r}; choose one of {', '.join(PRIORS)}.")
    work = _Work(jacobian, scale, progress, sum(products_of(jacobian.range.size, rank)), stages or Stages())
    if rank >= jacobian.range.size:
        rows = work.rows(torch.eye(jacobian.range.size, device=jacobian.domain.device))
        made = _prior(prior, jacobian, rows, None, observe)
        components = torch.stack(list(made.components(rows)))
        return NetworkFactor(None, components, made, None, torch.zeros(len(components), dtype=torch.float64), 0.0)
    own = jacobian.weights[None]
    draws = torch.cat([work.images(own), work.drawn(rank - 1, rng)])
    # The image of the trained weights comes first: the target of the linear model lies along it.
    basis = torch.linalg.qr(draws.T)[0]
    del draws
    fresh = work.drawn(REMAINDER, rng)
    size = float(fresh.double().square().sum())
    for _ in range(2):
        fresh -= (fresh @ basis) @ basis.T
    missed = float(fresh.double().square().sum()) / size
    rows = work.rows(basis.T)
    made = _prior(prior, jacobian, rows, basis, observe)
    components = torch.stack(list(made.components(rows)))
    # Of one component its own share; of several, what draws of equal weights say of their sum, in proportion to their sizes.
    sizes = components.diagonal(dim1=1, dim2=2).sum(1).abs()
    shares = sizes / sizes.sum() if len(sizes) > 1 else torch.ones_like(sizes)
    return NetworkFactor(basis, components, made, fresh.double().square().mean(0), shares, missed)


def _prior(name: str, jacobian: Jacobian, rows: Tensor, basis: Tensor | None, observe: Callable[[Tensor], Tensor]) -> Prior:
    """The prior over the weights; the g-prior's energies are those of ``observe(F) B``."""
    if name != "g":
        return {"isotropic": isotropic, "layerwise": layerwise, "filter": FilterProcess}[name](jacobian.blocks)
    images = torch.eye(len(rows), device=rows.device) if basis is None else basis.T
    seen = observe(images)
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
        return self._scale * self._jacobian(weights).flatten(1)

    def drawn(self, count: int, rng: torch.Generator) -> Tensor:
        """Images (count, d) of standard normal weights."""
        out = torch.empty(count, self._jacobian.range.size, device=self._jacobian.domain.device)
        for start in range(0, count, _BATCH):
            n = min(_BATCH, count - start)
            weights = self._jacobian.domain.randn(n, rng=rng)
            out[start : start + n] = self._kept(partial(self.images, weights))
            self._told(n)
        return out

    def rows(self, images: Tensor) -> Tensor:
        """``x^T scale J`` (k, P) for rows of images (k, d)."""
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
