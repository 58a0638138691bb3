"""Regions of a volume in mm, as the share of each voxel that lies in them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.errors import InputError
from ctuq.quantities.regions import Circle, require_finite, shares_of
from ctuq.tomo.arrays import as_array
from ctuq.tomo.geometry import VolumeGrid

_FINER, _BATCH = 6, 4096
_OUTSIDE = 1e-6
Pitches = tuple[float, float, float]


@dataclass(frozen=True)
class Sphere:
    """A ball.

    Parameters
    ----------
    x, y, z, radius : float
        mm.
    """

    x: float
    y: float
    z: float
    radius: float

    def __post_init__(self):
        require_finite("sphere", (self.x, self.y, self.z, self.radius))
        if not self.radius > 0:
            raise InputError(f"A sphere has a positive radius in mm, got {self.radius}.")

    @property
    def ends(self) -> NDArray[np.float64]:
        """The box around it, (2, 3): lowest and highest x, y, z."""
        return np.array([self.x, self.y, self.z]) + self.radius * np.array([[-1.0], [1.0]])


@dataclass(frozen=True)
class Box:
    """A box along the axes.

    Parameters
    ----------
    x0, y0, z0, x1, y1, z1 : float
        Two opposite corners, mm.
    """

    x0: float
    y0: float
    z0: float
    x1: float
    y1: float
    z1: float

    def __post_init__(self):
        require_finite("box", (self.x0, self.y0, self.z0, self.x1, self.y1, self.z1))
        if (self.x0 - self.x1) * (self.y0 - self.y1) * (self.z0 - self.z1) == 0:
            raise InputError(
                "A box has two opposite corners x0,y0,z0,x1,y1,z1 in mm that differ in all three; this one is flat."
            )

    @property
    def ends(self) -> NDArray[np.float64]:
        """Lowest and highest x, y, z, (2, 3)."""
        return np.sort([[self.x0, self.y0, self.z0], [self.x1, self.y1, self.z1]], axis=0)


@dataclass(frozen=True)
class Cylinder:
    """A disc of slices, from one height to another.

    Parameters
    ----------
    x, y, radius : float
        mm.
    z0, z1 : float
        Its ends, mm.
    """

    x: float
    y: float
    radius: float
    z0: float
    z1: float

    def __post_init__(self):
        require_finite("cylinder", (self.x, self.y, self.radius, self.z0, self.z1))
        if not self.radius > 0 or self.z0 == self.z1:
            raise InputError(
                f"A cylinder has a positive radius and two heights that differ, got {self.radius} mm, and {self.z0} and "
                f"{self.z1} mm."
            )

    @property
    def ends(self) -> NDArray[np.float64]:
        """The box around it, (2, 3): lowest and highest x, y, z."""
        reach = self.radius * np.array([[-1.0], [1.0]])
        return np.concatenate([np.array([self.x, self.y]) + reach, np.sort([[self.z0], [self.z1]], axis=0)], axis=1)


Solid = Sphere | Box | Cylinder | NDArray
"""A shape in mm, or a mask (z, y, x): true, or the share of each voxel that counts."""


def shares_of_solid(solid: Solid | ArrayLike, grid: VolumeGrid, pitches: Pitches) -> NDArray[np.float64]:
    """The share of each voxel, (z, y, x), that lies in a region of a volume.

    Of boxes and cylinders it is exact, of a sphere by 216 points in each voxel that its surface may cross.

    Parameters
    ----------
    solid : Sphere, Box, Cylinder or mask
    grid : VolumeGrid
    pitches : tuple of float
        Steps from voxel to voxel along (z, y, x), mm.

    Raises
    ------
    InputError
        If a shape reaches out of the volume, a mask has another shape or values beyond 0 to 1, or nothing is inside.
    """
    if isinstance(solid, Sphere | Box | Cylinder):
        shares = np.zeros(grid.shape)
        for z, section in sections_of(solid, grid, pitches):
            shares[z] = section
        return shares
    if hasattr(solid, "outlines"):
        raise InputError(
            "Circles, rectangles and polygons are regions of a slice; of a volume give a sphere, a box, a cylinder or a mask."
        )
    mask = as_array(solid, "The mask holds")
    if mask.shape != grid.shape:
        raise InputError(
            f"The mask has shape {mask.shape}; give one of the volume's {grid.shape} voxels, or a sphere or box in mm."
        )
    if not (np.isfinite(mask).all() and mask.min() >= 0 and mask.max() <= 1 and mask.sum() > 0):
        raise InputError("A mask holds true and false, or shares from 0 to 1, and some voxel that counts; this one does not.")
    return mask.copy()


def sections_of(solid: Solid | ArrayLike, grid: VolumeGrid, pitches: Pitches) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """The slices that a region has a part of, from the lowest: number, and the share of each of its voxels, (y, x).

    Parameters and errors as of `shares_of_solid`; one slice is in memory at a time, unless a mask is given.
    """
    if not isinstance(solid, Sphere | Box | Cylinder):
        shares = shares_of_solid(solid, grid, pitches)
        yield from ((z, section) for z, section in enumerate(shares) if section.any())
        return
    rise, up, right = _edges(grid, pitches)
    _refuse_outside(solid, (rise, up, right))
    low, high = solid.ends[:, 2]
    disc = np.zeros(grid.shape[1:])
    if isinstance(solid, Cylinder):
        disc = shares_of(Circle(solid.x, solid.y, solid.radius), VolumeGrid(grid.shape[1:], grid.voxel, grid.centre[:2]))
    found = False
    for z in map(int, np.flatnonzero((rise[1:] > low) & (rise[:-1] < high))):
        edges = (rise[z : z + 2], up, right)
        if isinstance(solid, Sphere):
            section = _ball(solid, edges)[0]
        elif isinstance(solid, Box):
            section = _cuboid(solid, edges)[0]
        else:
            section = disc * _overlap(edges[0], low, high)[0]
        if section.any():
            found = True
            yield z, section
    if not found:
        raise InputError("The region is far smaller than a voxel; choose a larger one.")


def _edges(grid: VolumeGrid, pitches: Pitches) -> tuple[NDArray[np.float64], ...]:
    """Where voxels end along z, y and x; along y they fall with the row."""
    rise, up, right = (
        (centre + (np.arange(n + 1) - n / 2) * pitch).astype(np.float64)
        for centre, n, pitch in zip(grid.centre[::-1], grid.shape, pitches, strict=True)
    )
    return rise, up[::-1], right


def _refuse_outside(solid: Sphere | Box | Cylinder, edges: tuple[NDArray[np.float64], ...]) -> None:
    low, high = solid.ends
    for name, least, most, places in zip("xyz", low, high, edges[::-1], strict=True):
        reach, width = max(places.min() - least, most - places.max()), float(np.ptp(places))
        if reach > _OUTSIDE * width:
            raise InputError(
                f"The region reaches {reach:.4g} mm out of the volume along {name}, which goes from {places.min():.4g} to "
                f"{places.max():.4g} mm; move it or make it smaller."
            )


def _cuboid(box: Box, edges: tuple[NDArray[np.float64], ...]) -> NDArray[np.float64]:
    low, high = box.ends[:, ::-1]
    z, y, x = (_overlap(places, *ends) for places, ends in zip(edges, zip(low, high, strict=True), strict=True))
    return z[:, None, None] * y[:, None] * x


def _overlap(places: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    starts, stops = np.minimum(places[1:], places[:-1]), np.maximum(places[1:], places[:-1])
    return np.maximum(np.minimum(stops, high) - np.maximum(starts, low), 0) / (stops - starts)


def _ball(ball: Sphere, edges: tuple[NDArray[np.float64], ...]) -> NDArray[np.float64]:
    middles = [(places[1:] + places[:-1]) / 2 - at for places, at in zip(edges, (ball.z, ball.y, ball.x), strict=True)]
    z, y, x = np.ix_(*middles)
    distance = np.sqrt(z**2 + y**2 + x**2)
    steps = np.array([abs(places[1] - places[0]) for places in edges])
    shares = (distance < ball.radius).astype(np.float64)
    crossed = np.argwhere(np.abs(distance - ball.radius) <= np.linalg.norm(steps) / 2)
    inside = (np.indices((_FINER,) * 3).reshape(3, -1).T + 0.5) / _FINER - 0.5
    for first in range(0, len(crossed), _BATCH):
        some = crossed[first : first + _BATCH]
        centres = np.stack([middle[some[:, axis]] for axis, middle in enumerate(middles)], axis=1)
        points = centres[:, None] + inside * steps
        shares[tuple(some.T)] = np.mean(np.sum(points**2, axis=2) < ball.radius**2, axis=1)
    return shares
