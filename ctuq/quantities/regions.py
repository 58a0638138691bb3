"""Regions of an image in mm, as the share of each pixel that lies in them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.errors import InputError
from ctuq.tomo.arrays import as_array, is_finite
from ctuq.tomo.geometry import VolumeGrid

_CORNERS = 256
_OUTSIDE = 3e-5
"""Of the image's width: the polygon that stands for a circle as wide lies 2.5e-5 of it outside."""
_NO_AREA = 1e-9
"""Pixels: less is what corners on one line come to by rounding."""


@runtime_checkable
class _Shape(Protocol):
    """What has an outline of corners in mm, (n, 2) of x and y."""

    @property
    def outlines(self) -> list[NDArray[np.float64]]: ...


@dataclass(frozen=True)
class Circle:
    """A disc.

    Parameters
    ----------
    x, y, radius : float
        mm.
    """

    x: float
    y: float
    radius: float

    def __post_init__(self):
        require_finite("circle", (self.x, self.y, self.radius))
        if not self.radius > 0:
            raise InputError(f"A circle has a positive radius in mm, got {self.radius}.")

    @property
    def outlines(self) -> list[NDArray[np.float64]]:
        """A polygon of the same area."""
        turn = np.arange(_CORNERS) * 2 * np.pi / _CORNERS
        radius = self.radius * math.sqrt(2 * np.pi / _CORNERS / math.sin(2 * np.pi / _CORNERS))
        return [np.stack([self.x + radius * np.cos(turn), self.y + radius * np.sin(turn)], axis=1)]


@dataclass(frozen=True)
class Rectangle:
    """A rectangle along the axes.

    Parameters
    ----------
    x0, y0, x1, y1 : float
        Two opposite corners, mm.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self):
        require_finite("rectangle", (self.x0, self.y0, self.x1, self.y1))
        if self.x0 == self.x1 or self.y0 == self.y1:
            raise InputError(f"The rectangle from ({self.x0}, {self.y0}) to ({self.x1}, {self.y1}) mm has no area.")

    @property
    def outlines(self) -> list[NDArray[np.float64]]:
        """Its four corners."""
        return [np.array([(self.x0, self.y0), (self.x1, self.y0), (self.x1, self.y1), (self.x0, self.y1)], np.float64)]


@dataclass(frozen=True)
class Polygon:
    """What lies in an odd number of outlines, each of which may cross itself.

    Parameters
    ----------
    corners : sequence of (x, y)
        mm.
    holes : sequence of such sequences
        Further outlines, such as a hole or a second part.
    """

    corners: Sequence[Sequence[float]]
    holes: Sequence[Sequence[Sequence[float]]] = ()

    def __post_init__(self):
        for outline in (self.corners, *self.holes):
            points = as_array(outline, "The corners of a polygon hold")
            if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
                raise InputError(f"A polygon has three corners (x, y) in mm or more, got an array of shape {points.shape}.")
            require_finite("polygon", points.ravel().tolist())

    @property
    def outlines(self) -> list[NDArray[np.float64]]:
        """Corners of each part."""
        return [np.asarray(outline, np.float64) for outline in (self.corners, *self.holes)]


Region = Circle | Rectangle | Polygon | NDArray
"""A shape in mm, or a mask (y, x): true, or the share of each pixel that counts."""


def shares_of(region: Region | ArrayLike, grid: VolumeGrid) -> NDArray[np.float64]:
    """The share of each pixel, (y, x), that lies in a region.

    Raises
    ------
    InputError
        If a shape reaches out of the image, a mask has another shape or values beyond 0 to 1, or nothing is inside.
    """
    shares = _rasterised(region, grid) if isinstance(region, _Shape) else _of_mask(as_array(region, "The mask holds"), grid)
    if not shares.sum() > _NO_AREA:
        raise InputError("The region holds no part of any pixel; choose a larger one.")
    return shares


def _of_mask(mask: NDArray, grid: VolumeGrid) -> NDArray[np.float64]:
    if mask.shape != grid.shape:
        raise InputError(f"The mask has shape {mask.shape}; give one of the image's {grid.shape}, or a region in mm.")
    if not (np.isfinite(mask).all() and mask.min() >= 0 and mask.max() <= 1):
        raise InputError("A mask holds true and false, or the share of each pixel from 0 to 1; this one has other values.")
    return mask.copy()


def _rasterised(shape: _Shape, grid: VolumeGrid) -> NDArray[np.float64]:
    left, right, bottom, top = grid.extent
    outlines = shape.outlines
    points = np.concatenate(outlines)
    reach = max(left - points[:, 0].min(), points[:, 0].max() - right, bottom - points[:, 1].min(), points[:, 1].max() - top)
    if reach > 1e-3 * grid.voxel + _OUTSIDE * (right - left):
        raise InputError(
            f"The region reaches {reach:.4g} mm out of the image, which goes from {left:.4g} to {right:.4g} mm along x and "
            f"from {bottom:.4g} to {top:.4g} mm along y; move it or make it smaller."
        )
    pixels = [np.stack([(points[:, 0] - left) / grid.voxel, (top - points[:, 1]) / grid.voxel], axis=1) for points in outlines]
    return _cover(_upright([corners.clip(0, grid.shape[::-1]) for corners in pixels]), grid.shape).clip(0, 1)


def _upright(outlines: Sequence[NDArray]) -> Iterator[tuple[float, float, float, float]]:
    """Pieces (x0, y0, x1, y1) of outlines (n, 2) that bound what lies in an odd number of them, which may cross.

    Between the heights of corners and crossings no two edges cross: from left to right, they lead into the area and out of it.
    """
    edges = np.concatenate([np.hstack([corners, np.roll(corners, -1, axis=0)]) for corners in outlines])
    edges = np.where(edges[:, 1:2] <= edges[:, 3:], edges, edges[:, [2, 3, 0, 1]])
    edges = edges[edges[:, 1] < edges[:, 3]]
    heights = np.unique(edges[:, 1::2])
    for low, high in pairwise(heights):
        here = edges[(edges[:, 1] <= low) & (edges[:, 3] >= high)]
        slopes = (here[:, 2] - here[:, 0]) / (here[:, 3] - here[:, 1])
        at_low = here[:, 0] + (low - here[:, 1]) * slopes
        for bottom, top in pairwise([low, *_crossing_heights(at_low, slopes, low, high), high]):
            starts, stops = (here[:, 0] + (y - here[:, 1]) * slopes for y in (bottom, top))
            for n, k in enumerate(np.argsort(starts + stops)):
                first, second = float(starts[k]), float(stops[k])
                yield (first, bottom, second, top) if n % 2 == 0 else (second, top, first, bottom)


def _crossing_heights(places: NDArray, slopes: NDArray, low: float, high: float) -> NDArray[np.float64]:
    """Between two heights, where lines cross one another that have these places at the lower one."""
    apart, turning = places[:, None] - places, slopes - slopes[:, None]
    heights = low + np.divide(apart, turning, out=np.full_like(apart, -np.inf), where=turning != 0)
    return np.unique(heights[(heights > low) & (heights < high)])


def _cover(pieces: Iterable[tuple[float, float, float, float]], shape: Sequence[int]) -> NDArray[np.float64]:
    """Area in each pixel that pieces of an outline bound, exactly; in pixels, y downwards.

    Green's theorem pixel by pixel: a piece of an edge of height dy in one pixel adds dy to all pixels right of it, and to its
    own pixel the part of dy that lies right of the piece.
    """
    rows, columns = shape
    own, beyond = np.zeros((rows, columns + 1)), np.zeros((rows, columns + 1))
    for x0, y0, x1, y1 in pieces:
        cuts = np.concatenate([[0.0, 1.0], _crossings(x0, x1), _crossings(y0, y1)])
        t = np.sort(cuts)
        xs, ys = x0 + t * (x1 - x0), y0 + t * (y1 - y0)
        height, middle = np.diff(ys), (xs[1:] + xs[:-1]) / 2
        row = np.floor((ys[1:] + ys[:-1]) / 2).astype(int).clip(0, rows - 1)
        column = np.floor(middle).astype(int).clip(0, columns - 1)
        np.add.at(own, (row, column), height * (column + 1 - middle))
        np.add.at(beyond, (row, column + 1), height)
    return (own + np.cumsum(beyond, axis=1))[:, :columns]


def _crossings(a: float, b: float) -> NDArray[np.float64]:
    """Where a line from a to b meets whole numbers, as shares of it."""
    if a == b:
        return np.zeros(0)
    low, high = min(a, b), max(a, b)
    return ((np.arange(math.floor(low) + 1, math.ceil(high)) - a) / (b - a)).astype(np.float64)


def require_finite(kind: str, numbers: Sequence[float]) -> None:
    """Refuse what is no finite number of mm, for a shape of this kind."""
    if not all(map(is_finite, numbers)):
        raise InputError(f"A {kind} is given by finite numbers of mm, got {', '.join(map(str, numbers[:6]))}.")
