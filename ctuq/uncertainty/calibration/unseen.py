"""Directions that no view of a limited arc sees: no ray of the arc can size the error bars of what lies in them.

By the Fourier slice theorem a view measures the frequencies along its detector. Where 60 degrees and more of them are missing,
the posterior's covariance P there is the prior's: nothing in the data, held-out views of the same arc included, says whether
it is right. Simulated arcs do: there it is too small by half. So P becomes ``T P T`` with ``T = I + (sqrt(LONGER) - 1) H``, H
the part of an image in the missing directions, whose rays the arc does not see.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ctuq.recon.holdout import missing_arc
from ctuq.stages import Stages
from ctuq.tomo.geometry import FanBeam, Geometry
from ctuq.uncertainty.model.covariance import ImageCovariance, Stretched

LONGER = 2.0
"""Factor of the variance in the missing directions. Of ellipses and rectangles over 60 and 90 degrees, the rms of error over
standard deviation at edges that no ray runs along is 1.39 to 1.71 without it; see `experiments.limited_angle`."""
_SOFT = np.deg2rad(4.0)
"""The part is cut off along this many radians of direction, so that its edge does not ring."""
_DENSE, _DRAWS, _BATCH = 4096, 512, 64
_SHARE_ERROR = 0.02
"""Of the ratio of two standard deviations by the same 512 draws, which have most in common; each alone is 0.03."""


@dataclass(frozen=True, eq=False)
class UnseenDirections:
    """The part of images whose frequencies lie in the arc of directions that no view sees.

    Parameters
    ----------
    share : Tensor, float64, shape (2 y, 2 x)
        Of each frequency of an image with a border of zeros, 0 to 1.
    width : float
        Of the missing arc, radians.
    """

    share: Tensor
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
        down, right = np.fft.fftfreq(2 * shape[0])[:, None], np.fft.fftfreq(2 * shape[1])[None]
        # Rows of an image run against y; a direction and its opposite are one.
        inside = (np.arctan2(-down, right) - start) % np.pi
        share = (np.minimum(inside, width - inside) / _SOFT).clip(0, 1)
        share[0, 0] = 0
        return cls(torch.from_numpy(share).to(device), width) if width > 0 else None

    @property
    def told(self) -> str:
        """What the user should know, one sentence."""
        return (
            f"No view lies within {math.degrees(self.width):.0f} degrees of directions: edges across these are guessed, their "
            f"error bars are made {LONGER**0.5:.2f} times as long as the views ask for, as simulated arcs need, and may be "
            "still too short."
        )

    def __call__(self, images: Tensor) -> Tensor:
        """``T`` of each image (k, y, x), in its type."""
        y, x = images.shape[-2:]
        part = torch.fft.ifft2(torch.fft.fft2(images.double(), s=self.share.shape) * self.share).real[..., :y, :x]
        return images + ((LONGER**0.5 - 1) * part).to(images)


def _half_fan(geometry: Geometry) -> float:
    """How far from a view's own direction its outermost rays measure, radians."""
    if not isinstance(geometry, FanBeam):
        return 0.0
    return math.atan2(geometry.columns * geometry.pixel / 2, geometry.source_to_detector)


class WidenedPosterior(Stretched):
    """``N(mean, T P T)`` with the P of a slice, but for what hidden errors of the scanner do to the image.

    That is known in all directions: an image that holds the other way what hardening did to the rays foretells them. With T it
    did not: of HTC 2022 tc over 40 degrees unseen rays had a standard deviation of 0.071, without 0.019.

    Parameters
    ----------
    posterior : ImageCovariance
        Of all pixels.
    unseen : UnseenDirections
    rng : torch.Generator
        For the draws of `std`, where that is not exact.
    stages : Stages, optional
        Keeps `std`.
    """

    def __init__(
        self, posterior: ImageCovariance, unseen: UnseenDirections, *, rng: torch.Generator, stages: Stages | None = None
    ):
        super().__init__(posterior)
        self._unseen, self._rng, self._stages = unseen, rng, stages or Stages()

    def hidden_images(self) -> Tensor:
        return self._plain.hidden_images()

    def times(self, images: Tensor) -> Tensor:
        """The covariance with each row of images (k, d), float64."""
        x, hidden = images.double(), self.hidden_images().flatten(1)
        if not len(hidden):
            return super().times(x)
        stretched = self._of_rows(hidden)
        return super().times(x) - (x @ stretched.T) @ stretched + (x @ hidden.T) @ hidden

    def deviations(self, n: int, *, rng: torch.Generator) -> Tensor:
        return self.joint_deviations(n, rng=rng)[0]

    def joint_deviations(self, n: int, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `deviations`, and beside each draw that of the systematic errors."""
        images, errors = self._plain.joint_deviations(n, rng=rng)
        if not len(self.hidden_images()):
            return self._unseen(images), errors
        hidden = self._plain.of_hidden(errors).to(images)
        return self._unseen(images - hidden) + hidden, errors

    def std(self) -> Tensor:
        """Standard deviation of each pixel, (y, x), float64: exact where the whole covariance is small, else by draws."""
        return self._stages.once("std of unseen directions", self._std, rng=self._rng).to(self.device)

    @property
    def error(self) -> float:
        """Relative error of `std`, rms: that of the plain posterior, and of the draws of what is longer."""
        drawn = 0.0 if self._is_small else _SHARE_ERROR
        return math.hypot(self._plain.error, drawn)

    @property
    def _is_small(self) -> bool:
        return self.size <= _DENSE

    def _std(self) -> Tensor:
        shape = self.shape
        if self._is_small:
            return self.covariance().diagonal().clamp(min=0).sqrt().reshape(shape)
        before, after = (torch.zeros(shape, dtype=torch.float64, device=self.device) for _ in range(2))
        for _ in range(_DRAWS // _BATCH):
            drawn = self._plain.draws(_BATCH, rng=self._rng).reshape(-1, *shape)
            before += drawn.square().sum(0)
            after += self._unseen(drawn).square().sum(0)
        hidden = self.hidden_images().square().sum(0)
        seen = (self._plain.std().square() - hidden).clamp(min=0)
        return (seen * after / before.clamp(min=torch.finfo(before.dtype).tiny) + hidden).sqrt()

    def _of_rows(self, rows: Tensor) -> Tensor:
        return self._unseen(rows.reshape(-1, *self.shape)).flatten(1)


def of_all_directions(
    posterior: ImageCovariance, geometry: Geometry, *, rng: torch.Generator, stages: Stages | None = None
) -> tuple[ImageCovariance, tuple[str, ...]]:
    """The posterior, of a limited arc with longer error bars where no view sees; and what the user should know of that."""
    y, x = posterior.shape
    unseen = UnseenDirections.of(geometry, (y, x), posterior.device)
    return (posterior, ()) if unseen is None else (WidenedPosterior(posterior, unseen, rng=rng, stages=stages), (unseen.told,))
