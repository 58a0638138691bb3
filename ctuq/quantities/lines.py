"""Straight lines through an image: points along them, and the weights of the pixels around each."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.tomo.geometry import VolumeGrid

Point = tuple[float, float]
MOST_POINTS = 4096


@dataclass(frozen=True, eq=False)
class Line:
    """Points from p to q.

    Parameters
    ----------
    positions : array, shape (n,)
        Distance of each point from p, mm.
    pixels : array of int, shape (n, 4)
        Flat indices of the four pixels around each.
    weights : array, shape (n, 4)
        Of bilinear interpolation between their centres.
    """

    positions: NDArray[np.float64]
    pixels: NDArray[np.int64]
    weights: NDArray[np.float64]

    def values(self, images: NDArray) -> NDArray[np.float64]:
        """Of images (..., y, x) at the points, (..., n)."""
        flat = images.reshape(*images.shape[:-2], -1)
        return np.einsum("...nk,nk->...n", flat[..., self.pixels], self.weights)

    def functionals(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Weight of each pixel in each point, (n, y, x)."""
        out = np.zeros((len(self.pixels), math.prod(shape)))
        np.add.at(out, (np.arange(len(self.pixels))[:, None], self.pixels), self.weights)
        return out.reshape(-1, *shape)


def line(grid: VolumeGrid, p: Point, q: Point, *, step: float | None = None) -> Line:
    """The line from p to q in mm, (x, y), with points half a pixel apart or nearer.

    Raises
    ------
    InputError
        If p and q are one point, or lie outside of the image.
    """
    try:
        ends = np.array([p, q], np.float64)
    except (TypeError, ValueError):
        ends = np.zeros(0)
    if ends.shape != (2, 2) or not np.isfinite(ends).all():
        raise InputError(f"A line goes from one point (x, y) in mm to another, not from {p} to {q}.")
    length = float(np.hypot(*(ends[1] - ends[0])))
    left, right, bottom, top = grid.extent
    inside = (ends >= (left, bottom)) & (ends <= (right, top))
    if not inside.all():
        raise InputError(
            f"The line from ({p[0]:g}, {p[1]:g}) to ({q[0]:g}, {q[1]:g}) mm leaves the image, which goes from {left:.4g} to "
            f"{right:.4g} mm along x and from {bottom:.4g} to {top:.4g} mm along y."
        )
    if length < 1e-6 * grid.voxel:
        raise InputError(f"The line's ends are one point, ({p[0]:g}, {p[1]:g}) mm; give two.")
    if step is not None and not (math.isfinite(step) and step > 0):
        raise InputError(f"The step along a line is a positive number of mm, got {step}.")
    count = math.ceil(length / (grid.voxel / 2 if step is None else step) - 1e-9) + 1
    if count > MOST_POINTS:
        raise InputError(f"The line would have {count} points, and {MOST_POINTS} are the most; take larger steps.")
    shares = np.linspace(0, 1, max(count, 2))
    x, y = (ends[0] + shares[:, None] * (ends[1] - ends[0])).T
    column, row = (x - left) / grid.voxel - 0.5, (top - y) / grid.voxel - 0.5
    return Line(shares * length, *_bilinear(row, column, grid.shape))


def _bilinear(row: NDArray, column: NDArray, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    parts = []
    for place, n in ((row, shape[0]), (column, shape[1])):
        held = place.clip(0, n - 1)
        first = np.floor(held).astype(np.int64).clip(0, max(n - 2, 0))
        second = np.minimum(first + 1, n - 1)
        parts.append((first, second, held - first))
    (r0, r1, fr), (c0, c1, fc) = parts
    pixels = np.stack([r0 * shape[1] + c0, r0 * shape[1] + c1, r1 * shape[1] + c0, r1 * shape[1] + c1], axis=1)
    weights = np.stack([(1 - fr) * (1 - fc), (1 - fr) * fc, fr * (1 - fc), fr * fc], axis=1)
    return pixels, weights
