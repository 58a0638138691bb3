"""An object of one material: where it is for sure, and what its rays then say of the beam.

Pixels well inside of the object have one attenuation mu up to a texture, pixels well outside none; those about an edge, and
those that are darker or denser than the material, may be anything. With h the image over mu, p = mu A h, and rays

    y = o + p - c p^2 + d p^3 + noise

the unknowns are o, mu, c, d, the deviations of h, and the sizes of these deviations: rays of known length through one material
tell hardening, which no ray of an unknown object does.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.errors import InputError
from ctuq.scores.gaussian import STD_OF_MAD
from ctuq.systematics.components import solve
from ctuq.systematics.curve import Curve
from ctuq.tomo.rays.rows import ray_rows
from ctuq.tomo.rays.transform import RayTransform

TEXTURE = 0.01
"""Standard deviation of a homogeneous material's attenuation from pixel to pixel, over the attenuation."""
MARGIN, SHORT = 2, 5.0
"""Pixels from an edge that are well inside; shorter rays through the object are all edge."""
_BODY, _DENSER, _EDGE = 0.5, 1.35, 0.3
_RAYS = 512
_ROUNDS, _OUTLYING = 3, 6.0
_AIR = 0.02
"""Standard deviation of what air reads, over the largest line integral, before the scan."""
_DISPLACED = 0.5
"""Pixels that all edges may lie too far in or out: half of a level is no edge where the level is not one."""
_THIRD, _UNSURE = 1.0, 2.0
"""d over c^2, which is 4/3 of attenuations distributed as a gamma density and 0 of a parabola; and how unsure that is."""
_LEAST = 1e-3


@dataclass(frozen=True, eq=False)
class Parts:
    """Which pixels of an image are for sure what.

    Parameters
    ----------
    inside, air, loose : array of bool, shape (y, x)
        Well inside of the material, well outside of anything, and all others.
    share : array of float64, shape (y, x)
        What is expected of each pixel, over the material's attenuation.
    level : float
        Attenuation of the material, 1/mm, as the image has it.
    rough : float
        Rms deviation of the image inside from that, over it.
    dense : float
        Share of the object's pixels that are denser by a third.
    """

    inside: NDArray[np.bool_]
    air: NDArray[np.bool_]
    loose: NDArray[np.bool_]
    share: NDArray[np.float64]
    level: float
    rough: float
    dense: float

    @classmethod
    def of(cls, image: NDArray[np.floating]) -> "Parts":
        """Of a reconstruction, by half the attenuation that half of its object has.

        Raises
        ------
        InputError
            If it shows nothing.
        """
        level = _level(image)
        if not level > 0:
            raise InputError("The image shows no object, so that --material uniform finds no length through one; leave it out.")
        body = image > _BODY * level
        dense = image > _DENSER * level
        inside = ~_grown(~body, beyond=True) & ~_grown(dense, beyond=False)
        air = ~_grown(body, beyond=False)
        loose = ~(inside | air)
        share = np.where(inside, 1.0, np.where(air, 0.0, image / level))
        rough = float(np.sqrt(np.mean((image[inside] / level - 1) ** 2))) if inside.any() else 0.0
        return cls(
            inside,
            air,
            loose,
            np.where(dense, share, np.clip(share, 0, 1)),
            level,
            rough,
            float(dense.sum() / max(body.sum(), 1)),
        )

    @property
    def edge(self) -> NDArray[np.float64]:
        """What a pixel's share grows by where edges move out by a pixel."""
        down, right = np.gradient(self.share)
        return np.hypot(down, right)


def _level(image: NDArray[np.floating]) -> float:
    top = float(np.percentile(image, 99))
    body = image[image > _BODY * top]
    return float(np.median(body)) if len(body) and top > 0 else 0.0


def _grown(mask: NDArray[np.bool_], *, beyond: bool) -> NDArray[np.bool_]:
    """By two pixels on every side; ``beyond`` is what lies outside of the image."""
    padded = torch.nn.functional.pad(torch.from_numpy(mask.astype(np.float32))[None, None], [MARGIN] * 4, value=float(beyond))
    return torch.nn.functional.max_pool2d(padded, 2 * MARGIN + 1, 1)[0, 0].numpy() > 0


def first_curve(
    lengths: NDArray[np.float64], edges: NDArray[np.float64], y: NDArray[np.float64], short: float
) -> tuple[Curve, float]:
    """A curve and an attenuation by robust least squares of rays on the lengths of a segmented object.

    Parameters
    ----------
    lengths : array, shape (m,)
        In mm.
    edges : array, shape (m,)
        What they grow by where the object's edge moves out by a pixel.
    y : array, shape (m,)
    short : float
        Rays of lengths between 0 and this touch an edge, and are left out.
    """
    used = (lengths > short) | (lengths == 0)
    length, values, edge = lengths[used], y[used], edges[used]
    unit = float(length.max())
    H = np.stack([np.ones_like(length), length / unit, -((length / unit) ** 2), edge / unit], 1)
    kept = np.ones(len(values), bool)
    factors = np.zeros(4)
    for _ in range(2 * _ROUNDS):
        factors = np.linalg.lstsq(H[kept], values[kept], rcond=None)[0]
        off = np.abs(values - H @ factors)
        kept = off <= 3 * STD_OF_MAD * np.median(off) + 1e-12 * float(np.abs(values).max())
    slope = float(factors[1])
    return (Curve(float(factors[0]), float(factors[2]) / slope**2), slope / unit) if slope > 0 else (Curve(), 0.0)


@dataclass(frozen=True, eq=False)
class Told:
    """What the rays of one material say of the beam.

    Parameters
    ----------
    curve : Curve
    c, sd : float
        Of the parabola that is closest to the curve over the rays, and its standard deviation: c and d of the curve are known
        far worse.
    attenuation : float
        mu, 1/mm.
    outlying : float
        Share of the object's rays that were left out, as no one material explains them.
    """

    curve: Curve
    c: float
    sd: float
    attenuation: float
    outlying: float


def told_of_curve(A: RayTransform, rays: tuple[Tensor, Tensor], parts: Parts, curve: Curve, attenuation: float) -> Told:
    """Offset, attenuation and hardening with their covariance, linearised at a curve until they stand still.

    Parameters
    ----------
    A : RayTransform
    rays : tuple of Tensor, shape (angle, column)
        As measured, and their weights.
    parts : Parts
    curve, attenuation : Curve, float
        Where to start.
    """
    y, weights = rays
    share = torch.from_numpy(parts.share)
    length = A(share.float().to(y.device)).reshape(-1).double().cpu()
    clear = (length > SHORT * A.grid.voxel) | (length < 1e-3 * A.grid.voxel)
    used = ((weights.reshape(-1).cpu() > 0) & clear).nonzero()[:, 0]
    values, precision = y.reshape(-1).double().cpu(), weights.reshape(-1).double().cpu()
    left = (values - torch.from_numpy(curve.read((attenuation * length).numpy()))) * precision.sqrt()
    through = used[length[used] > 0]
    spread = STD_OF_MAD * float(left[through].abs().median())
    kept = used[left[used].abs() <= _OUTLYING * max(spread, 1e-12)]
    outlying = 1 - len(kept[length[kept] > 0]) / max(len(through), 1)
    kept = kept[torch.arange(min(_RAYS, len(kept))) * len(kept) // min(_RAYS, len(kept))]
    problem = _Problem.of(A, values[kept], precision[kept], parts, kept)
    return problem.solved(curve, attenuation, (spread, max(TEXTURE, parts.rough)), outlying)


def _parabola(curve: Curve, covariance: NDArray[np.float64], p: Tensor) -> tuple[float, float]:
    """The c of ``p - c p^2`` by least squares to a curve over line integrals, and its standard deviation."""
    share = float(p.pow(5).sum() / p.pow(4).sum())
    along = np.array([0, 0, 1, -share])
    return curve.c - share * curve.d, float(along @ covariance @ along) ** 0.5


@dataclass(frozen=True, eq=False)
class _Problem:
    """Some rays, and what deviations of each kind of pixel make of them, (m, m) for each."""

    y: Tensor
    precision: Tensor
    length: Tensor
    edge: Tensor
    grams: tuple[Tensor, ...]

    @classmethod
    def of(cls, A: RayTransform, y: Tensor, precision: Tensor, parts: Parts, rays: Tensor) -> "_Problem":
        rows = ray_rows(A, rays.to(A.device), torch.ones(len(rays), dtype=torch.float64))
        kinds = (parts.inside, parts.loose, parts.air)
        grams = tuple(rows.gram(torch.from_numpy(kind.reshape(-1)).double()).cpu() for kind in kinds)
        images = np.stack([parts.share.reshape(-1), parts.edge.reshape(-1)])
        length, edge = rows(torch.from_numpy(images).to(A.device)).cpu()
        return cls(y, precision, length, edge, grams)

    def solved(self, curve: Curve, attenuation: float, start: tuple[float, float], outlying: float) -> Told:
        """From a curve and an attenuation; ``start`` are the standard deviations of a ray's noise and of a pixel inside."""
        spread, texture = start
        sizes = torch.tensor([max(spread, 1e-9) ** 2, _EDGE**2, TEXTURE**2], dtype=torch.float64)
        # Not of the curve as it becomes: a large c, which makes a large d likely, would make itself likely.
        third = max(_THIRD * curve.c**2, _LEAST / float(self.length.max() * attenuation) ** 2)
        covariance = np.zeros((4, 4))
        for _ in range(_ROUNDS):
            curve, attenuation, covariance, sizes = self._step(curve, attenuation, (third, texture), sizes)
        return Told(curve, *_parabola(curve, covariance, attenuation * self.length), attenuation, outlying)

    def _step(
        self, curve: Curve, attenuation: float, given: tuple[float, float], sizes: Tensor
    ) -> tuple[Curve, float, NDArray[np.float64], Tensor]:
        """Curve, attenuation, covariance of offset, attenuation, c and d, and sizes, linearised at a curve."""
        p = (attenuation * self.length).numpy()
        slope, longest = torch.from_numpy(curve.slope(p)), float(p.max())
        # In units that make the largest line integral 1.
        q, third = torch.from_numpy(p / longest), given[0] * longest**3
        across = attenuation * slope
        columns = torch.stack([torch.ones_like(q), slope * q, -(q**2), q**3, across * self.edge], 1)
        known = torch.tensor([(_AIR * longest) ** -2, 0, 0, (_UNSURE * third) ** -2, _DISPLACED**-2], dtype=torch.float64)
        now = torch.tensor([curve.offset, longest, curve.c * longest**2, curve.d * longest**3, 0], dtype=torch.float64)
        expected = torch.tensor([0, 0, 0, third, 0], dtype=torch.float64)
        fixed, *grams = (across[:, None] * gram * across for gram in self.grams)
        noise = (given[1] ** 2 * fixed, torch.diag(1 / self.precision), *grams)
        # y - f(now) + H now = H b, and b without what is expected of it.
        found = solve(self.y - torch.from_numpy(curve.read(p)) + columns @ (now - expected), columns, noise, sizes, known)
        offset, largest, c, d, _ = (found.mean + expected).tolist()
        unit = np.array([1, attenuation / longest, longest**-2, longest**-3])
        covariance = unit[:, None] * found.covariance.numpy()[:4, :4] * unit
        return Curve(offset, c / longest**2, d / longest**3), attenuation * largest / longest, covariance, found.sizes
