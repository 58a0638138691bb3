"""Directions that no view of a limited arc sees: no ray of the arc can size the error bars of what lies in them.

By the Fourier slice theorem a view measures the frequencies along its detector. Where 60 degrees and more of them are missing,
the posterior there is the prior's: nothing in the data, held-out views of the same arc included, says whether it is right, and
a network that shows no wall there is sure that there is none. But what the object has in the directions that are seen, it has
about as much of in those that are not. Where the posterior leaves less room than that, what is missing is added to it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ctuq.linops.sparse import SparseRows
from ctuq.recon.holdout import missing_arc
from ctuq.stages import Stages
from ctuq.systematics.block import Block
from ctuq.tomo.geometry import FanBeam, Geometry
from ctuq.tomo.rays.rows import RayRows
from ctuq.uncertainty.model.covariance import Changed, ImageCovariance
from ctuq.uncertainty.model.route import some_of

_CELLS = 1.25
"""How far views tell of frequencies beside their own, over 1 / diameter of the object. Chosen on 14 discs of HTC 2022 and nine
simulations: 95 % intervals of the object's pixels hold 99 % with 1, 98 with 1.25, 97 with 1.5; of edges that no ray runs along
96, 94 and 92; see `experiments.htc` for discs that chose nothing, and `experiments.limited_angle`."""
_OBJECT = 0.1
"""Of the image's 99th percentile: what lies above, within a pixel, is the object."""
_EDGE = 1.5
"""Pixels over which the object ends."""
_RINGS = (0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Between these distances from what is seen, in cells, one number tells how much the posterior leaves out."""
_COMPARED, _DRAWS, _BATCH, _DENSE = 256, 512, 64, 4096
_BYTES = 2**28
"""Of an image with its border by so many frequencies at once; a few such tensors are made of a batch."""
_SHARE_ERROR = 0.03
"""Of a standard deviation by the draws."""
_RAYS = 10240
"""Of a Cholesky factor of 0.8 GiB; of more rays neighbouring ones are added up. Of 22,680 rays of a disc at 256 x 256 all then
see 0.6 of their noise of what is added; of so many taken one by one they see twice their noise, and 14 times without N."""


@dataclass(frozen=True, eq=False)
class UnseenDirections:
    """The arc of directions that no view sees, in the frequencies of an image with a border of zeros.

    Parameters
    ----------
    distance : Tensor, float64, shape (2 y, 2 x)
        Of each frequency from the nearest one in a direction that is seen, cycles per pixel; 0 of those.
    frequency : Tensor, float64, shape (2 y, 2 x)
        Cycles per pixel.
    width : float
        Of the missing arc, radians.
    """

    distance: Tensor
    frequency: Tensor
    width: float

    @classmethod
    def of(cls, geometry: Geometry, shape: tuple[int, int], device: torch.device) -> "UnseenDirections | None":
        """What a scan leaves out of an image (y, x); None where less than 60 degrees side by side are missing."""
        columns = geometry.vectors()[:, 6:8]
        arc = missing_arc(np.arctan2(columns[:, 1], columns[:, 0]))
        if arc is None:
            return None
        start, width = arc
        spread = _half_fan(geometry)
        start, width = start + spread, width - 2 * spread
        if width <= 0:
            return None
        down, right = np.fft.fftfreq(2 * shape[0])[:, None], np.fft.fftfreq(2 * shape[1])[None]
        # Rows of an image run against y; a direction and its opposite are one.
        inside = (np.arctan2(-down, right) - start) % np.pi
        beside = np.minimum(inside, width - inside).clip(0, np.pi / 2)
        frequency = np.hypot(down, right)
        distance = frequency * np.sin(beside)
        # The highest frequency is its own opposite: alike there too, a filter is real.
        distance = np.minimum(distance, np.roll(distance[::-1, ::-1], 1, axis=(0, 1)))
        return cls(torch.from_numpy(distance).to(device), torch.from_numpy(frequency).to(device), width)

    @property
    def told(self) -> str:
        """What the user should know, one sentence."""
        return (
            f"No view lies within {math.degrees(self.width):.0f} degrees of directions: edges across these are guessed. Their "
            "error bars have room for as much as the object shows in the directions that views see, and may be too short where "
            "it has more."
        )


def _half_fan(geometry: Geometry) -> float:
    """How far from a view's own direction its outermost rays measure, radians."""
    if not isinstance(geometry, FanBeam):
        return 0.0
    return math.atan2(geometry.columns * geometry.pixel / 2, geometry.source_to_detector)


@dataclass(frozen=True, eq=False)
class UnseenField:
    """What an object may have in unseen directions beyond what a posterior leaves room for: ``N(0, G M S M G)``.

    S is alike everywhere and has the spectrum that is missing, M keeps it to where the object is, and G leaves out what views
    see.

    Parameters
    ----------
    unseen : Tensor, float64, shape (2 y, 2 x)
        G by frequency, 0 to 1.
    amplitude : Tensor, float64, shape (2 y, 2 x)
        Square root of S by frequency.
    inside : Tensor, float64, shape (y, x)
        M, 0 to 1.
    """

    unseen: Tensor
    amplitude: Tensor
    inside: Tensor

    @classmethod
    def of(cls, directions: UnseenDirections, image: Tensor, room: Tensor) -> "UnseenField":
        """The field beside a posterior of this mean (y, x), whose deviations have the energy ``room`` (2 y, 2 x).

        In unseen directions an error is expected to have the energy that the image has in seen ones at the same frequency,
        and, as what the image itself shows there may be wrong, that of the image too.
        """
        inside = _where_object_is(image)
        cell = 1 / math.sqrt(4 / math.pi * max(1.0, float(inside.sum())))
        distance = directions.distance / cell
        unseen = 1 - torch.exp(-((distance / _CELLS) ** 2))
        of_image = energy(image, directions)
        alike = _alike_all_around(of_image, directions, step=1 / max(image.shape))
        ring = torch.bucketize(distance, torch.tensor(_RINGS, dtype=torch.float64, device=distance.device))
        missing = torch.zeros_like(distance)
        for number in range(len(_RINGS) + 1):
            chosen = (ring == number) & (distance > 0)
            whole = alike[chosen]
            if not whole.sum() > 0:
                continue
            shown = (of_image[chosen].sum() / whole.sum()).clamp(max=1)
            expected = (1 + shown) * whole
            there = room[chosen].sum() / (unseen[chosen].square() * expected).sum()
            missing[chosen] = expected * (1 - there).clamp(min=0)
        return cls(unseen, (missing / inside.square().sum().clamp(min=1)).sqrt(), inside)

    @property
    def variance(self) -> float:
        """Of a pixel inside."""
        return float((self.amplitude * self.unseen).square().mean())

    def roots(self, images: Tensor) -> Tensor:
        """``S^1/2 M G`` of each of the images (k, y, x), over the image with its border (k, 2 y, 2 x), float64."""
        within = self.inside * _filtered(images.double(), self.unseen)
        return torch.fft.ifft2(torch.fft.fft2(within, s=self.amplitude.shape) * self.amplitude).real

    def times(self, images: Tensor) -> Tensor:
        """The covariance with each of the images (k, y, x), float64."""
        parts = []
        for part in images.double().split(_together(self.amplitude)):
            within = self.inside * _filtered(part, self.unseen)
            parts.append(_filtered(self.inside * _filtered(within, self.amplitude.square()), self.unseen))
        return torch.cat(parts)

    def draws(self, n: int, *, rng: torch.Generator) -> Tensor:
        """``n`` draws (n, y, x), float64."""
        parts, together = [], _together(self.amplitude)
        for count in (min(together, n - start) for start in range(0, n, together)):
            noise = torch.randn(count, *self.amplitude.shape, generator=rng, dtype=torch.float64).to(self.amplitude.device)
            alike = torch.fft.ifft2(torch.fft.fft2(noise) * self.amplitude).real
            y, x = self.inside.shape
            parts.append(_filtered(self.inside * alike[..., :y, :x], self.unseen))
        return torch.cat(parts) if parts else self.inside.new_zeros(0, *self.inside.shape)


def _where_object_is(image: Tensor) -> Tensor:
    """1 where the object is, 0 where it is not, and between within some pixels of its edge."""
    from scipy.ndimage import gaussian_filter

    values = image.cpu().numpy()
    above = gaussian_filter(values, 1.0) > _OBJECT * np.percentile(values, 99)
    return torch.from_numpy(gaussian_filter(above.astype(np.float64), _EDGE)).to(image.device)


def energy(images: Tensor, directions: UnseenDirections) -> Tensor:
    """By frequency, of an image (y, x), or the mean of several (k, y, x)."""
    around = directions.frequency.shape
    total = torch.zeros(around, dtype=torch.float64, device=images.device)
    for part in images.reshape(-1, *images.shape[-2:]).split(_together(directions.frequency)):
        total += torch.fft.fft2(part.double(), s=around).abs().square().sum(0)
    return total * images.shape[-1] * images.shape[-2] / images.numel()


def _alike_all_around(energies: Tensor, directions: UnseenDirections, step: float) -> Tensor:
    """At each frequency the mean energy of those that are seen and about as far from 0: within half a step of its ring."""
    half = torch.floor(2 * directions.frequency / step).long()
    seen = (directions.distance == 0).double()
    count, total = (half.new_zeros(int(half.max()) + 4).double() for _ in range(2))
    count.index_add_(0, half.flatten(), seen.flatten())
    total.index_add_(0, half.flatten(), (seen * energies).flatten())
    # Rings of one step begin half a step from 0, and take half a step more on either side.
    ring = ((half - 1) // 2).clamp(min=0)
    first = 2 * torch.arange(int(ring.max()) + 1, device=half.device)
    count, total = (sum(values[first + k] for k in range(4)) for values in (count, total))
    return (total / count.clamp(min=1))[ring]


def _together(frequencies: Tensor) -> int:
    """Images that are transformed at once."""
    return max(1, min(_BATCH, _BYTES // (16 * frequencies.numel())))


def _filtered(images: Tensor, share: Tensor) -> Tensor:
    y, x = images.shape[-2:]
    return torch.fft.ifft2(torch.fft.fft2(images, s=share.shape) * share).real[..., :y, :x]


class NotInRays:
    """``N = I - M^T (M M^T + l I)^-1 M``: the part of images that rays of noise variance l say nothing of.

    A view sees a strip of frequencies about its own direction, as wide as the object is small. With G alone rays of a real scan
    over 40 degrees had ten times the standard deviation that they miss by; with N it is a fifth of their noise.

    Parameters
    ----------
    matrix : RayRows, shape (m, d)
        M, whitened.
    noise : float
        l, over the variance of a pixel.
    """

    def __init__(self, matrix: RayRows, noise: float):
        count = matrix.shape[0]
        if count > _RAYS and isinstance(matrix, SparseRows):
            matrix = matrix.binned(math.ceil(count / _RAYS))
        elif count > _RAYS:
            matrix, noise = matrix.rows(some_of(count, _RAYS).to(matrix.device)), noise * _RAYS / count
        self._matrix, self._noise = matrix, noise

    def __call__(self, rows: Tensor) -> Tensor:
        """N of each image (k, d), float64."""
        M, rows = self._matrix, rows.double()
        return rows - M.transposed(torch.cholesky_solve(M(rows).T, self._factor).T)

    @cached_property
    def _factor(self) -> Tensor:
        M = self._matrix
        K = M.gram(torch.ones(M.shape[1], dtype=torch.float64, device=M.device))
        K.diagonal().add_(self._noise)
        return torch.linalg.cholesky(K, out=K)


class WidenedPosterior(Changed):
    """``N(mean, P + N C N)`` with the P of a slice, the C of an `UnseenField`, and N what no ray says anything of.

    Rays of the arc are therefore foretold as before, and neither calibration nor mean know of C.

    Parameters
    ----------
    posterior : ImageCovariance
        Of all pixels.
    field : UnseenField
    untold : callable
        N of images (k, d).
    rng : torch.Generator
        For the draws of `std`, where that is not exact.
    stages : Stages, optional
        Keeps `std`.
    """

    def __init__(
        self,
        posterior: ImageCovariance,
        field: UnseenField,
        untold: Callable[[Tensor], Tensor],
        *,
        rng: torch.Generator,
        stages: Stages | None = None,
    ):
        super().__init__(posterior)
        self._field, self._untold, self._rng, self._stages = field, untold, rng, stages or Stages()

    @property
    def hidden(self) -> tuple[Block, ...]:
        return self._plain.hidden

    def hidden_images(self) -> Tensor:
        return self._plain.hidden_images()

    def of_hidden(self, errors: Tensor) -> Tensor:
        return self._plain.of_hidden(errors)

    def times(self, images: Tensor) -> Tensor:
        """``(P + N C N) x`` for each row of images (k, d), float64."""
        added = self._field.times(self._untold(images).reshape(-1, *self.shape)).flatten(1)
        return self._plain.times(images.double()) + self._untold(added)

    def _of_field(self, n: int, rng: torch.Generator) -> Tensor:
        return self._untold(self._field.draws(n, rng=rng).flatten(1))

    def draws(self, n: int, *, rng: torch.Generator) -> Tensor:
        drawn = self._plain.draws(n, rng=rng)
        return drawn + self._of_field(n, rng).reshape(drawn.shape).to(drawn)

    def deviations(self, n: int, *, rng: torch.Generator) -> Tensor:
        return self.joint_deviations(n, rng=rng)[0]

    def joint_deviations(self, n: int, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `deviations`, and beside each draw that of the systematic errors."""
        images, errors = self._plain.joint_deviations(n, rng=rng)
        return images + self._of_field(n, rng).reshape(images.shape).to(images), errors

    def std(self) -> Tensor:
        """Standard deviation of each pixel, (y, x), float64; that of the field by draws where the image is large."""
        return self._stages.once("std of unseen directions", self._std, rng=self._rng).to(self.device)

    @property
    def error(self) -> float:
        """Relative error of `std`, rms: that of the plain posterior, and of the field's draws."""
        return math.hypot(self._plain.error, 0.0 if self._is_small else _SHARE_ERROR)

    @property
    def _is_small(self) -> bool:
        return self.size <= _DENSE

    def _std(self) -> Tensor:
        added = self._exact() if self._is_small else self._drawn()
        return (self._plain.std().square() + added.reshape(self.shape)).sqrt()

    def _exact(self) -> Tensor:
        eye = torch.eye(self.size, dtype=torch.float64, device=self.device)
        parts = []
        for start in range(0, self.size, _BATCH):
            rows = eye[start : start + _BATCH]
            parts.append(self._field.roots(self._untold(rows).reshape(-1, *self.shape)).square().sum((1, 2)))
        return torch.cat(parts)

    def _drawn(self) -> Tensor:
        total = torch.zeros(self.size, dtype=torch.float64, device=self.device)
        for _ in range(_DRAWS // _BATCH):
            total += self._of_field(_BATCH, self._rng).square().sum(0)
        return total / _DRAWS


def bytes_of_room(geometry: Geometry, shape: tuple[int, ...], rays: int) -> int:
    """What room in unseen directions takes beside a posterior: a factor over the rays; 0 where no directions are missing."""
    unseen = UnseenDirections.of(geometry, (shape[0], shape[1]), torch.device("cpu"))
    return 0 if unseen is None else 8 * min(rays, _RAYS) ** 2 + _BYTES


def of_all_directions(
    posterior: ImageCovariance,
    geometry: Geometry,
    image: Tensor,
    scale: float,
    noise: float,
    *,
    rng: torch.Generator,
    stages: Stages | None = None,
) -> tuple[ImageCovariance, tuple[str, ...]]:
    """The posterior, of a limited arc with room for what no view sees; and what the user should know of that.

    Parameters
    ----------
    posterior : ImageCovariance
    geometry : Geometry
    image : Tensor, shape (y, x)
        The mean.
    scale : float
        What the covariance is to be multiplied by: the returned one has the field over it.
    noise : float
        Variance of a ray of weight 1.
    rng, stages
        As of `WidenedPosterior`.
    """
    y, x = posterior.shape
    unseen = UnseenDirections.of(geometry, (y, x), posterior.device)
    if unseen is None:
        return posterior, ()

    def room() -> Tensor:
        # What hidden errors of the scanner do to the image is known in all directions, and leaves no room for edges.
        return energy(posterior.draws(_COMPARED, rng=rng).reshape(-1, y, x), unseen)

    known = (stages or Stages()).once("room in unseen directions", room, rng=rng).to(posterior.device)
    field = UnseenField.of(unseen, image, scale * known)
    if field.variance == 0:
        return posterior, (unseen.told,)
    untold = NotInRays(posterior.matrix, noise / field.variance)
    field = replace(field, amplitude=field.amplitude / scale**0.5)
    return WidenedPosterior(posterior, field, untold, rng=rng, stages=stages), (unseen.told,)
