"""Directions that no view of a limited arc sees: no ray of the arc can size the error bars of what lies in them.

By the Fourier slice theorem a view measures the frequencies along its detector. Where a wide arc of them is missing,
the posterior there is the prior's: nothing in the data, held-out views of the same arc included, says whether it is right, and
a network that shows no wall there is sure that there is none. But what the object has in the directions that are seen, it has
about as much of in those that are not. Where the posterior leaves less room than that, what is missing is added to it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ctuq.stages import Stages
from ctuq.systematics.block import Block
from ctuq.tomo.geometry import Geometry
from ctuq.tomo.space import VolumeGeometry
from ctuq.uncertainty.calibration.directions import UnseenDirections
from ctuq.uncertainty.calibration.not_in_rays import RAYS, NotInRays, NotInRaysBySteps
from ctuq.uncertainty.model.covariance import Changed, ImageCovariance

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
_COMPARED, _DRAWS = (256, 64), (512, 256)
"""Of an image, and of a volume, which has as many more frequencies and whose draws take longer."""
_BATCH, _DENSE = 64, 4096
_BYTES = 2**28
"""Of an image with its border by so many frequencies at once; a few such tensors are made of a batch."""


@dataclass(frozen=True, eq=False)
class UnseenField:
    """What an object may have in unseen directions beyond what a posterior leaves room for: ``N(0, G M S M G)``.

    S is alike everywhere and has the spectrum that is missing, M keeps it to where the object is, and G leaves out what views
    see.

    Parameters
    ----------
    unseen : Tensor, float64, shape (2 y, 2 x) or (2 z, 2 y, 2 x)
        G by frequency, 0 to 1.
    amplitude : Tensor, float64, of the same shape
        Square root of S by frequency.
    inside : Tensor, float64, shape (y, x) or (z, y, x)
        M, 0 to 1.
    """

    unseen: Tensor
    amplitude: Tensor
    inside: Tensor

    @classmethod
    def of(cls, directions: UnseenDirections, image: Tensor, room: Tensor) -> "UnseenField":
        """The field beside a posterior of this mean, whose deviations have the energy ``room`` by frequency.

        In unseen directions an error is expected to have the energy that the image has in seen ones at the same frequency,
        and, as what the image itself shows there may be wrong, that of the image too.
        """
        inside = _where_object_is(image)
        count = max(1.0, float(inside.sum()))
        # One over the diameter of a disc, or a ball, as large as the object.
        cell = 1 / (math.sqrt(4 / math.pi * count) if image.ndim == 2 else (6 / math.pi * count) ** (1 / 3))
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
            shown = of_image[chosen].sum() / whole.sum()
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
        return _inverse(_transform(within, self.amplitude) * self.amplitude, self.amplitude.ndim)

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
            alike = _inverse(_transform(noise, self.amplitude) * self.amplitude, self.amplitude.ndim)
            within = alike[(..., *(slice(n) for n in self.inside.shape))]
            parts.append(_filtered(self.inside * within, self.unseen))
        return torch.cat(parts) if parts else self.inside.new_zeros(0, *self.inside.shape)


def _where_object_is(image: Tensor) -> Tensor:
    """1 where the object is, 0 where it is not, and between within some pixels of its edge."""
    from scipy.ndimage import gaussian_filter

    values = image.cpu().numpy()
    above = gaussian_filter(values, 1.0) > _OBJECT * np.percentile(values, 99)
    return torch.from_numpy(gaussian_filter(above.astype(np.float64), _EDGE)).to(image.device)


def energy(images: Tensor, directions: UnseenDirections) -> Tensor:
    """By frequency, of an image (y, x) or a volume (z, y, x), or the mean of several (k, ...)."""
    total = torch.zeros_like(directions.distance)
    shape = images.shape[-total.ndim :]
    for part in images.reshape(-1, *shape).split(_together(total)):
        total += _transform(part.double(), total).abs().square().sum(0)
    return total * shape.numel() / images.numel()


def _alike_all_around(energies: Tensor, directions: UnseenDirections, step: float) -> Tensor:
    """At each frequency the mean energy of those that are seen and about as far from 0: within half a step of its ring."""
    half = torch.floor(2 * directions.radius / step).long().flatten()
    seen = (directions.distance == 0).double().reshape(-1, len(half))
    count, total = (seen.new_zeros(len(seen), int(half.max()) + 4) for _ in range(2))
    count.index_add_(1, half, seen)
    total.index_add_(1, half, seen * energies.reshape(seen.shape))
    # Rings of one step begin half a step from 0, and take half a step more on either side.
    ring = ((half - 1) // 2).clamp(min=0)
    first = 2 * torch.arange(int(ring.max()) + 1, device=half.device)
    count, total = (sum(values[:, first + k] for k in range(4)) for values in (count, total))
    return (total / count.clamp(min=1))[:, ring].reshape(energies.shape)


def _together(frequencies: Tensor) -> int:
    """Images that are transformed at once."""
    return max(1, min(_BATCH, _BYTES // (16 * frequencies.numel())))


def _filtered(images: Tensor, share: Tensor) -> Tensor:
    within = (..., *(slice(n) for n in images.shape[-share.ndim :]))
    return _inverse(_transform(images, share) * share, share.ndim)[within]


def _transform(images: Tensor, frequencies: Tensor) -> Tensor:
    """By frequency, with a border of zeros."""
    return torch.fft.fftn(images, s=frequencies.shape, dim=tuple(range(-frequencies.ndim, 0)))


def _inverse(values: Tensor, axes: int) -> Tensor:
    return torch.fft.ifftn(values, dim=tuple(range(-axes, 0))).real


class WidenedPosterior(Changed):
    """``N(mean, P + N C N)`` with the P of an image, the C of an `UnseenField`, and N what no ray says anything of.

    Rays of the arc are therefore foretold as before, and neither calibration nor mean know of C.

    Parameters
    ----------
    posterior : ImageCovariance
        Its `std` and `deviations` may be of a region.
    field : UnseenField
    untold : callable
        N of images (k, d).
    rng : torch.Generator
        For the draws of `std`, where that is not exact.
    stages : Stages, optional
        Keeps `std`.
    region : tuple of slice, optional
        Of the posterior.
    """

    def __init__(
        self,
        posterior: ImageCovariance,
        field: UnseenField,
        untold: Callable[[Tensor], Tensor],
        *,
        rng: torch.Generator,
        stages: Stages | None = None,
        region: tuple[slice, ...] | None = None,
    ):
        super().__init__(posterior)
        self._field, self._untold, self._rng, self._stages = field, untold, rng, stages or Stages()
        self._region = (..., *(region or ()))

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
        return images + self._of_field(n, rng).reshape(n, *self.shape)[self._region].to(images), errors

    def std(self) -> Tensor:
        """Standard deviation of each pixel of the region, float64; that of the field by draws where the image is large."""
        return self._stages.once("std of unseen directions", self._std, rng=self._rng).to(self.device)

    @property
    def error(self) -> float:
        """Relative error of `std`, rms: that of the plain posterior, and of the field's draws."""
        return math.hypot(self._plain.error, 0.0 if self._is_small else (2 * _of(_DRAWS, self.shape)) ** -0.5)

    @property
    def _is_small(self) -> bool:
        return len(self.shape) == 2 and self.size <= _DENSE

    def _std(self) -> Tensor:
        added = self._exact() if self._is_small else self._drawn()
        return (self._plain.std().square() + added.reshape(self.shape)[self._region]).sqrt()

    def _exact(self) -> Tensor:
        eye = torch.eye(self.size, dtype=torch.float64, device=self.device)
        parts = []
        for start in range(0, self.size, _BATCH):
            rows = eye[start : start + _BATCH]
            parts.append(self._field.roots(self._untold(rows).reshape(-1, *self.shape)).square().sum((1, 2)))
        return torch.cat(parts)

    def _drawn(self) -> Tensor:
        total = torch.zeros(self.size, dtype=torch.float64, device=self.device)
        draws = _of(_DRAWS, self.shape)
        for _ in range(draws // _BATCH):
            total += self._of_field(_BATCH, self._rng).square().sum(0)
        return total / draws


def bytes_of_room(geometry: Geometry, shape: tuple[int, ...], rays: int) -> int:
    """What room in unseen directions takes beside a posterior: a factor over the rays; 0 where no directions are missing."""
    unseen = UnseenDirections.of(geometry, (shape[0], shape[1]), torch.device("cpu"))
    return 0 if unseen is None else 8 * min(rays, RAYS) ** 2 + _BYTES


def _of(numbers: tuple[int, int], shape: tuple[int, ...]) -> int:
    """The number for an image, or the one for a volume."""
    return numbers[len(shape) - 2]


def of_all_directions(
    posterior: ImageCovariance,
    geometry: Geometry | VolumeGeometry,
    image: Tensor,
    scale: float,
    noise: float,
    *,
    rng: torch.Generator,
    stages: Stages | None = None,
    region: tuple[slice, ...] | None = None,
) -> tuple[ImageCovariance, tuple[str, ...]]:
    """The posterior, of a limited arc with room for what no view sees; and what the user should know of that.

    Parameters
    ----------
    posterior : ImageCovariance
    geometry : Geometry or VolumeGeometry
    image : Tensor, shape (y, x) or (z, y, x)
        The mean.
    scale : float
        What the covariance is to be multiplied by: the returned one has the field over it.
    noise : float
        Variance of a ray of weight 1.
    rng, stages, region
        As of `WidenedPosterior`.
    """
    unseen = UnseenDirections.of(geometry, posterior.shape, posterior.device)
    if unseen is None:
        return posterior, ()

    def room() -> Tensor:
        # What hidden errors of the scanner do to the image is known in all directions, and leaves no room for edges.
        draws = posterior.draws(_of(_COMPARED, posterior.shape), rng=rng)
        return energy(draws.reshape(-1, *posterior.shape), unseen)

    known = (stages or Stages()).once("room in unseen directions", room, rng=rng).to(posterior.device)
    field = UnseenField.of(unseen, image, scale * known)
    if field.variance == 0:
        return posterior, (unseen.told,)
    without = NotInRays if image.ndim == 2 else NotInRaysBySteps
    untold = without(posterior.matrix, noise / field.variance)
    field = replace(field, amplitude=field.amplitude / scale**0.5)
    return WidenedPosterior(posterior, field, untold, rng=rng, stages=stages, region=region), (unseen.told,)
