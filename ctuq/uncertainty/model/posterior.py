"""The posterior of a scan's image: its standard deviation, draws, and the covariance of any linear functionals.

With ``b = D^-1/2 A`` the rays in units of their noise, the image is ``F c + u``, u of independent variances v. Two matrices
carry everything, and only the second is as large as the rays:

    N = I + b diag(v) b^T            noise and floors: well conditioned, solved by Cholesky or by conjugate gradients
    Z = (C^-1 + X)^-1,  X = (b F)^T N^-1 b F        covariance of c given the rays, (r, r)

so that ``K^-1 = (N + b F C F^T b^T)^-1 = N^-1 - W Z W^T`` with ``W = N^-1 b F`` (Woodbury). What the image is given c and the
rays, and what c leaves open, make up a pixel's variance:

    G_i Z G_i^T + v_i - v_i^2 (b^T N^-1 b)_ii,      G = F - diag(v) b^T W

Only the last term, what rays say of single pixels' own errors, needs as many solves as there are pixels. It is exact where that
is cheap. Else draws of the floors give it twice, as the mean square of what rays leave of an error and as v less that of what
they tell of it; the two are weighted by how sure they are. Rays that tell little leave the second, those of a volume, which may
be more than its voxels, the first.
"""

import math
from collections.abc import Iterator
from functools import cached_property, partial

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ctuq.linops.gaussian import explained, root_given
from ctuq.linops.sparse import SparseRows
from ctuq.stages import Stages
from ctuq.systematics.block import Block
from ctuq.tomo.rays.rows import RayRows
from ctuq.uncertainty.model.covariance import ImageCovariance
from ctuq.uncertainty.model.given_image import ErrorsGivenImage
from ctuq.uncertainty.model.noise import for_products
from ctuq.uncertainty.model.route import DRAWS, EXACT_WORK, images_together
from ctuq.uncertainty.model.solved import SolvedRays

_BATCH = 64
_MISSED, _MISSED_NEAR, _MISSED_DENSE, _MISSED_3D = 0.4, 0.1, 0.6, 0.08


class ImagePosterior(ImageCovariance):
    """``N(mean, P)`` of the image given rays; deviations from the mean do not depend on what was measured.

    Parameters
    ----------
    given : SolvedRays
    rng : torch.Generator
        For the draws of the floors' own reduction, where that is not exact.
    stages : Stages, optional
        Keeps each batch of draws.
    region : tuple of slice, optional
        Pixels whose `std` and `deviations` are wanted, by axis; by default all.
    tolerance : float
        Relative error of `std` by its draws (rms) at which these end, of `ctuq.uncertainty.model.route.DRAWS` at most.
    scale : float
        What the whole covariance is to be multiplied by: variances that are not the image's are divided by it, those of hidden
        errors and those that the others would have if the image were known.
    """

    def __init__(
        self,
        given: SolvedRays,
        *,
        rng: torch.Generator,
        stages: Stages | None = None,
        region: tuple[slice, ...] | None = None,
        tolerance: float = 0.0,
        scale: float = 1.0,
    ):
        self.given, self.model, self._rng, self._scale = given, given.model, rng, scale
        self._stages, self._region, self._tolerance = stages or Stages(), region, tolerance
        self._v = self.model.misfit(given.system.point.psi)
        self._drawn: list[Tensor] = []

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.model.image.shape)

    @property
    def device(self) -> torch.device:
        return self.model.target.device

    @property
    def matrix(self) -> RayRows:
        return self.model.matrix

    @property
    def exact(self) -> bool:
        """Whether a pixel's variance is, given the factor, without sampling."""
        m, d = self.model.features.matrix.shape
        return self.given.noise.factor is not None and float(min(m, d)) ** 2 * d <= EXACT_WORK

    @cached_property
    def _variance(self) -> tuple[Tensor, float]:
        selected = None if self._region is None else self._selected()
        network = self._of_network(selected)
        own, error = self._own(selected, network)
        hidden = self._hidden[0] if selected is None else selected(self._hidden[0])
        variance = (network + own).clamp(min=0) + hidden.square().sum(0)
        return variance, _relative(error, variance)

    @cached_property
    def _hidden(self) -> tuple[Tensor, Tensor]:
        """How far a standard deviation of each hidden error puts image (k, d) and other errors (k, e) beside the truth.

        Rays are not asked how large these errors are (as Schmidt's filter, 1966, considers parameters that it does not
        estimate). On the discs HTC ta and tb the residual hardly moves with hardening, and yet the tangent's prior, to which
        hardening is a cheap way to explain rays, claimed 0.317 +- 0.019 for ta: three times what any spectrum does.
        """
        model = self.model
        if not model.hidden:
            return model.target.new_zeros(0, self.size), model.target.new_zeros(0, model.prior.rank - model.factor.rank)
        image, errors = self.given.response(model.hidden_columns())
        return -image / self._scale**0.5, -errors / self._scale**0.5

    @cached_property
    def _given_image(self) -> ErrorsGivenImage:
        return ErrorsGivenImage.of(self.given, self._scale)

    @property
    def hidden(self) -> tuple[Block, ...]:
        return self.model.hidden

    def hidden_images(self) -> Tensor:
        return self._hidden[0].reshape(-1, *self.model.image.shape)

    def of_hidden(self, errors: Tensor) -> Tensor:
        if not (count := len(self._hidden[0])):
            return super().of_hidden(errors)
        z = errors[:, errors.shape[1] - count :].double() * self._scale**0.5 / self._widths
        return (z @ self._hidden[0]).reshape(-1, *self.model.image.shape)

    def _of_network(self, rows: SparseRows | None) -> Tensor:
        """``R G Z G^T R^T``'s diagonal; R the identity if None."""
        basis, whole = self.model.factor.basis, root_given(*self.given.roots)
        out = torch.zeros(self.size if rows is None else rows.shape[0], dtype=torch.float64, device=self.device)
        for root in whole.split(_BATCH, dim=1):
            told = self._v.times(self._back((self.given.W @ root).T))
            # In float64: what is left of the columns' images is far smaller than they are.
            own = root[: self.model.factor.rank].T
            images = own if basis is None else torch.cat([own @ F.double().T for F in basis.split(16384)], 1)
            out += ((images - told) if rows is None else rows(images - told)).square().sum(0)
        return out

    @cached_property
    def _pixels(self) -> Tensor:
        """Flat indices of the region's pixels."""
        every = torch.arange(self.size, device=self.device)
        return every if self._region is None else every.reshape(self.model.image.shape)[self._region].reshape(-1)

    def _selected(self) -> SparseRows:
        """The region's pixels as functionals."""
        places = self._pixels.cpu().numpy()
        count = len(places)
        one = sp.csr_array((np.ones(count), places, np.arange(count + 1)), shape=(count, self.size))
        return SparseRows(one, self.device)

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(self.model.image[self._region or ...].shape)

    def std(self) -> Tensor:
        """Standard deviation of each pixel of the region, float64."""
        return self._variance[0].sqrt().reshape(self._shape)

    @property
    def error(self) -> float:
        """Relative error of `std`, rms over the pixels: of its draws, and of what a factor leaves out.

        For that, from `unresolved`. Where neighbours are told: of the walnut at 64 x 64, 1,121, 975 and 650 directions left
        0.21, 0.33 and 0.97 of the noise unresolved, and the std was off by 0.024, 0.033 and 0.101
        (`experiments.benchmarks.accuracy`). Where pixels count as independent, from its square: 0.54 and 1.16 of the noise left
        the std off by 0.10 and 0.53. Where rays are more than pixels, in proportion, a cautious guess: of all views of the
        walnut at 36 x 36 and 48 x 48, 0.13, 0.32 and 1.2 of the noise left the std off by 0.08, 0.06 and 0.53, but of those of
        HTC ta, whose rays are 29 times as sure, at 84 x 84 0.11, 1.2 and 5.8 by 0.006, 0.026 and 0.08. The many rays of a
        volume average over what is left: of a nut of 16^3 voxels, 512 and 256 directions left 2.2 and 9.3 of the noise, and the
        std was off by 5 and 17 % at the median voxel, 24 and 52 % at the 95th percentile, nearly all of it too long.
        """
        left, rest = self.unresolved, self.model.factor.rest
        if rest is not None and rest.root is not None:
            missed = _MISSED_NEAR * left
        elif self.model.image.ndim == 3:
            missed = _MISSED_3D * left**0.5
        else:
            rays, pixels = self.model.features.matrix.shape
            missed = _MISSED_DENSE * left if rays >= pixels else _MISSED * left**2
        return math.hypot(self._variance[1], min(missed, 1.0))

    @cached_property
    def unresolved(self) -> float:
        """Variance of the rays that the factor's directions leave out, over the noise."""
        model, point = self.model, self.given.system.point
        if model.factor.rest is None:
            return 0.0
        tail = model.factor.rest.scaled(float(model.prior.floors(point.psi)[-1]))
        return float(tail.squares(model.features.matrix).mean()) / float(point.sigma2)

    def variance_of(self, rows: SparseRows) -> Tensor:
        network = self._of_network(rows)
        return (network + self._own(rows, network)[0]).clamp(min=0) + rows(self._hidden[0]).square().sum(0)

    def times(self, images: Tensor) -> Tensor:
        """``P x`` for each row of images (k, d), float64; without the network."""
        return torch.cat([self._times(part) for part in images.split(_BATCH)])

    @property
    def _together(self) -> int:
        return images_together(self.size)

    @property
    def _widths(self) -> Tensor:
        """Prior standard deviation of each number of the hidden errors."""
        hidden = self.model.hidden
        return torch.cat([self.model.target.new_full((b.columns.shape[1],), b.width) for b in hidden])

    def _times(self, images: Tensor) -> Tensor:
        hidden = self._hidden[0]
        return self._jointly(images, None)[0] + (images.double() @ hidden.T) @ hidden

    def errors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (n,) and covariance (n, n) of all systematic errors, the hidden ones last, and theirs with the image (n, d).

        Float64; the mean of a hidden error is 0, as the image is that of a scan without.
        """
        mean, own = self.given.errors()
        images, beside = self._hidden
        eye = torch.eye(len(mean), dtype=torch.float64, device=self.device)
        parts = [self._jointly(n.new_zeros(len(n), self.size), n)[0] for n in eye.split(self._together)]
        cross = torch.cat([*parts, eye.new_zeros(0, self.size)]) + beside.T @ images
        own = self._given_image.covariance(own) + beside.T @ beside
        if not self.model.hidden:
            return mean, own, cross
        width = self._widths / self._scale**0.5
        both = width[:, None] * beside
        covariance = torch.cat([torch.cat([own, both.T], 1), torch.cat([both, torch.diag(width.square())], 1)])
        return torch.cat([mean, mean.new_zeros(len(width))]), covariance, torch.cat([cross, width[:, None] * images])

    def _jointly(self, images: Tensor, errors: Tensor | None) -> tuple[Tensor, Tensor]:
        """The joint posterior covariance of image and systematic errors times rows of both."""
        given, basis, rank = self.given, self.model.factor.basis, self.model.factor.rank
        parts = images.double().split(self._together)
        # F Z F^T and not C - C X C: a posterior variance a millionth of the prior's would drown in float32's rounding of F.
        own = images.double() if basis is None else torch.cat([(x.to(basis) @ basis).double() for x in parts])
        beside = own.new_zeros(len(own), self.model.prior.rank - rank) if errors is None else errors.double()
        pushed = [self._v.times(x) for x in parts]
        prior = torch.cat([(x * u).sum(1) for x, u in zip(parts, pushed, strict=True)])
        y = torch.cat([self._rays(u) for u in pushed])
        c = (torch.cat([own, beside], 1) - y @ given.W) @ given.Z
        told = (given.noise(y, for_products(y, prior)) + c @ given.W.T).split(self._together)
        out = [
            self.model.images(k).flatten(1) + self._v.times(x - self._back(rays))
            for x, k, rays in zip(parts, c.split(self._together), told, strict=True)
        ]
        return torch.cat(out), c[:, rank:]

    def deviations(self, n: int, *, rng: torch.Generator) -> Tensor:
        """``n`` draws of the region minus its mean, (n, *shape), float32; a batch that was kept is not drawn again."""
        return self.joint_deviations(n, rng=rng)[0]

    def joint_deviations(self, n: int, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `deviations`, and beside each draw that of the systematic errors and of the hidden ones, (n, e + k), float32."""
        image, count = self.model.image, self.model.prior.rank - self.model.factor.rank + len(self._hidden[0])
        parts = [(image.new_empty(0, *self._shape), image.new_empty(0, count))]

        def drawn(count: int) -> tuple[Tensor, Tensor]:
            images, errors = self.given.draws(count, rng=rng)
            if self.model.blocks:
                errors = self._given_image.draws(self._rays(images), errors)
            if self.model.hidden:
                z = torch.randn(count, len(self._hidden[0]), generator=rng, dtype=torch.float64, device=rng.device).to(images)
                images, errors = images + z @ self._hidden[0], errors + z @ self._hidden[1]
                errors = torch.cat([errors, z / self._scale**0.5 * self._widths], 1)
            return images.reshape(-1, *image.shape)[(slice(None), *(self._region or ()))].float(), errors.float()

        for start in range(0, n, self._together):
            make = partial(drawn, min(self._together, n - start))
            kept = self._stages.once(f"joint samples {start}", make, rng=rng)
            parts.append((kept[0].to(image.device), kept[1].to(image.device)))
        images, errors = zip(*parts, strict=True)
        return torch.cat(images), torch.cat(errors)

    def draws(self, n: int, *, rng: torch.Generator) -> Tensor:
        """``n`` draws of the image minus its mean, (n, d), float64."""
        return self.given.draws(n, rng=rng)[0]

    def _rays(self, images: Tensor) -> Tensor:
        return self.model.features.matrix(images) / self.given.system.noise_root()

    def _back(self, rays: Tensor) -> Tensor:
        return self.model.features.matrix.transposed(rays / self.given.system.noise_root())

    def _own(self, rows: SparseRows | None, network: Tensor) -> tuple[Tensor, Tensor]:
        """``R (V - V b^T N^-1 b V) R^T``'s diagonal, its standard error; R the identity if None.

        Draws end where their error is small against the whole, of which ``network`` is the rest.
        """
        v = self._v
        prior = v.diagonal if rows is None else v.squares(rows)
        if float(v.diagonal.max()) == 0:
            return prior, torch.zeros_like(prior)
        if self.exact and (rows is None or rows.shape[0] <= 4 * self.size):
            return prior - self._told(rows), torch.zeros_like(prior)
        sums, count = [torch.zeros_like(prior), torch.zeros_like(prior)], 0
        own = error = prior
        for batch in self._draws():
            sums = [sums[i] + (part if rows is None else rows(part)).square().sum(0) for i, part in enumerate(batch)]
            count += len(batch[0])
            left, told = (both / count for both in sums)
            # Each is as sure, relatively; their parts of the draws are independent of one another.
            share = told.square() / (left.square() + told.square()).clamp(min=1e-300)
            own = share * left + (1 - share) * (prior - told)
            error = left * told / (left.square() + told.square()).clamp(min=1e-300).sqrt() * (2 / count) ** 0.5
            if self._tolerance and _relative(error, network + own) < self._tolerance:
                break
        return own, error

    def _told(self, rows: SparseRows | None) -> Tensor:
        """``|b V R^T|^2`` in the metric ``N^-1``, by the factor of N."""
        factor, root = self.given.noise.factor, self.given.system.noise_root()
        assert factor is not None
        count = self.size if rows is None else rows.shape[0]
        ends = [(start, min(count, start + 1024)) for start in range(0, count, 1024)]
        if self.given.noise.over_pixels:
            owns = (self._v.spread_transposed(self._own_pixels(rows, *block)) for block in ends)
            return torch.cat([own.square().sum(1) - explained(factor, own.T) for own in owns])
        matrix = self.model.features.matrix
        columns = self._v.columns(matrix) if rows is None else lambda *block: matrix(self._v.times(rows.dense(*block)))
        return torch.cat([explained(factor, (columns(*block) / root).T) for block in ends])

    def _own_pixels(self, rows: SparseRows | None, start: int, stop: int) -> Tensor:
        """Functionals as rows over the pixels, (stop - start, d)."""
        if rows is not None:
            return rows.dense(start, stop)
        own = torch.zeros(stop - start, self.size, dtype=torch.float64, device=self.device)
        own[:, start:stop].diagonal().fill_(1)
        return own

    def _draws(self) -> Iterator[Tensor]:
        """Draws of the floors given the coefficients, (2, k, d), in batches: what rays leave of them, and what they tell."""
        for index, start in enumerate(range(0, DRAWS, self._together)):
            if index == len(self._drawn):
                make = partial(self.given.floors, min(self._together, DRAWS - start), rng=self._rng)
                kept = self._stages.once(f"draws {start}", make, rng=self._rng)
                self._drawn.append(kept.to(self.device))
            yield self._drawn[index]


def _relative(error: Tensor, variance: Tensor) -> float:
    """Relative error of the standard deviations, rms, from that of the variances."""
    return float((error / variance.clamp(min=1e-300)).square().mean().sqrt()) / 2
