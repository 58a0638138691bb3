"""Which frequencies of an image or a volume no view of a scan sees."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.recon.holdout import WIDE, missing_arc
from ctuq.tomo.geometry import FanBeam, Geometry
from ctuq.tomo.space import ConeBeam, FreeBeam, Parallel3D, VolumeGeometry

_LEANS = np.deg2rad(5)
"""An axis that leans by less is taken to stand: its cone of unmeasured directions is no wider than a view's own strip."""
_NARROW = np.deg2rad(29.9)
"""Directions missing side by side from which on they are told and have room; of a fan, whose outer rays see further, where the
views themselves lack `WIDE` or the rays so much."""
_SHARE = 0.05
"""Of all directions, missing, to be worth a word: those about an axis that leans by 18 degrees. An arc of 60 is a third."""


@dataclass(frozen=True, eq=False)
class UnseenDirections:
    """The directions that no view sees, in the frequencies of an image or a volume with a border of zeros.

    Parameters
    ----------
    distance : Tensor, float64, shape (2 y, 2 x) or (2 z, 2 y, 2 x)
        Of each frequency from the nearest one that is seen, cycles per pixel; 0 of those.
    radius : Tensor, float64
        Cycles per pixel from the middle of each frequency's ring, in which all are taken to be alike: over (2 y, 2 x) a ring of
        an image, or about a volume's axis at each height; over (2 z, 2 y, 2 x) a shell, where whole rings about the axis are
        missing.
    lacking : str
        What no view sees, the first words of a sentence.
    """

    distance: Tensor
    radius: Tensor
    lacking: str

    @classmethod
    def of(cls, geometry: Geometry | VolumeGeometry, shape: tuple[int, ...], device: torch.device) -> "UnseenDirections | None":
        """What a scan leaves out of an image (y, x) or a volume (z, y, x); None where less than `_NARROW` side by side is."""
        if isinstance(geometry, FreeBeam) or (isinstance(geometry, Parallel3D) and abs(geometry.axis_tilt) >= _LEANS):
            return _of_space(_rays(geometry), shape, device)
        if isinstance(geometry, ConeBeam | Parallel3D):
            flat = cls.of(geometry.plane, shape[1:], device)
            if flat is None:
                return None
            return replace(flat, distance=flat.distance.expand(2 * shape[0], *flat.distance.shape).contiguous())
        columns = geometry.vectors()[:, 6:8]
        arc = missing_arc(np.arctan2(columns[:, 1], columns[:, 0]), _NARROW)
        if arc is None:
            return None
        spread = _half_fan(geometry)
        start, width = arc[0] + spread, arc[1] - 2 * spread
        if width <= 0 or (width < _NARROW and arc[1] < WIDE):
            return None
        down, right = _frequencies(shape)
        # Rows of an image run against y; a direction and its opposite are one.
        inside = (np.arctan2(-down, right) - start) % np.pi
        beside = np.minimum(inside, width - inside).clip(0, np.pi / 2)
        radius = np.hypot(down, right)
        lacking = f"No view lies within {math.degrees(width):.0f} degrees of directions"
        return _on(device, radius * np.sin(beside), radius, lacking)

    @property
    def told(self) -> str:
        """What the user should know, one sentence."""
        return (
            f"{self.lacking}: edges across these are guessed. Their error bars have room for as much as the object shows in "
            "the directions that views see, and may be too short where it has more."
        )


def _on(device: torch.device, distance: NDArray, radius: NDArray, lacking: str) -> UnseenDirections:
    # The highest frequency is its own opposite: alike there too, a filter is real.
    distance = np.minimum(distance, np.roll(np.flip(distance), 1, axis=tuple(range(distance.ndim))))
    return UnseenDirections(torch.from_numpy(distance).to(device), torch.from_numpy(radius).to(device), lacking)


def _frequencies(shape: tuple[int, ...]) -> Sequence[NDArray]:
    """Cycles per pixel along each axis, with a border as wide as the image; they broadcast."""
    return list(np.meshgrid(*(np.fft.fftfreq(2 * n) for n in shape), indexing="ij", sparse=True))


def _half_fan(geometry: Geometry) -> float:
    """How far from a view's own direction its outermost rays measure, radians."""
    if not isinstance(geometry, FanBeam):
        return 0.0
    return math.atan2(geometry.columns * geometry.pixel / 2, geometry.source_to_detector)


def _rays(geometry: VolumeGeometry) -> NDArray[np.float64]:
    """Unit vectors along the middle ray of each view, in the order of their angles, (angle, 3)."""
    first, centre = geometry.vectors()[:, :3], geometry.vectors()[:, 3:6]
    rays = centre - first if geometry.diverging else first
    order = np.argsort(geometry.angles % (2 * np.pi), kind="stable")
    return rays[order] / np.linalg.norm(rays[order], axis=1, keepdims=True)


def _of_space(rays: NDArray[np.float64], shape: tuple[int, ...], device: torch.device) -> UnseenDirections | None:
    """Of views along any directions: one measures the frequencies across its rays, and what lies between it and the next."""
    down, back, right = _frequencies(shape)
    inside = -back  # rows of a slice run against y
    nearest = np.full(np.broadcast_shapes(down.shape, back.shape, right.shape), np.inf)
    for a, b in _neighbours(rays):
        one, other = (r[0] * right + r[1] * inside + r[2] * down for r in (a, b))
        nearest = np.minimum(nearest, np.where(one * other <= 0, 0.0, np.minimum(abs(one), abs(other))))
    radius = np.sqrt(down**2 + back**2 + right**2)
    share = float((nearest[radius <= 0.5] > 0).mean())
    if share < _SHARE:
        return None
    return _on(device, nearest, radius, f"Of all directions {share:.0%} lie across no view's rays")


def _neighbours(rays: NDArray[np.float64]) -> list[tuple[NDArray, NDArray]]:
    """Views side by side as pairs, less far apart than an arc is missing from; a ray and its opposite are one."""
    following = list(zip(rays, np.roll(rays, -1, axis=0), strict=True))
    wide = max(_NARROW, 3 * float(np.median([_apart(a, b) for a, b in following])))
    pairs = []
    for a, b in following:
        # The end of an arc may lie beside the opposite of another view.
        opposite = -rays[np.argmin(rays @ a)]
        beside = b if _apart(a, b) < wide else opposite if _apart(a, opposite) < wide else a
        pairs.append((a, beside))
    return pairs


def _apart(a: NDArray, b: NDArray) -> float:
    return float(np.arccos(np.clip(a @ b, -1, 1)))
