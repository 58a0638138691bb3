"""Volume grids and scanning geometries as values: millimetres, radians, ASTRA's axes and signs.

At angle 0 the rays run along +y for a fan (the source sits at negative y) and the detector's columns along +x; angles
turn counter-clockwise. Row 0 of an image is at the largest y. See ``docs/conventions.md``.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import GeometryError
from ctuq.tomo.arrays import as_numbers

_LARGEST_SPAN = 4 * np.pi
_SMALLEST_PIXEL, _LARGEST_PIXEL = 1e-9, 1e6
MOST_PIXELS = 16384
"""Along one side of an image: more is a typing error on any machine of today."""


@dataclass(frozen=True)
class VolumeGrid:
    """A grid of cubic voxels.

    Parameters
    ----------
    shape : tuple of int
        Number of voxels, ``(y, x)`` or ``(z, y, x)``.
    voxel : float
        Edge of a voxel in mm.
    centre : tuple of float
        Position of the grid's centre in mm, ``(x, y)`` or ``(x, y, z)``; the rotation axis is at the origin. A volume's z is
        0 where it is left out.

    Raises
    ------
    GeometryError
        If the shape is not two or three positive integers, the voxel size is not positive, or the centre is no such point.
    """

    shape: tuple[int, ...]
    voxel: float
    centre: tuple[float, ...] = (0.0, 0.0)

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "voxel", float(self.voxel))
        object.__setattr__(self, "centre", tuple(float(c) for c in self.centre))
        if len(self.shape) not in (2, 3) or min(self.shape) < 1:
            raise GeometryError(f"A grid needs 2 or 3 positive sizes, got {self.shape}.")
        if not (np.isfinite(self.voxel) and self.voxel > 0):
            raise GeometryError(f"The voxel size must be a positive number of mm, got {self.voxel}.")
        if len(self.shape) == 3 and len(self.centre) == 2:
            object.__setattr__(self, "centre", (*self.centre, 0.0))
        if len(self.centre) != len(self.shape) or not np.isfinite(self.centre).all():
            raise GeometryError(f"The centre of a grid {self.shape} is one number of mm for each axis, got {self.centre}.")

    @property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape))

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top of the (y, x) plane in mm."""
        height, width = (n * self.voxel for n in self.shape[-2:])
        x, y = self.centre[:2]
        return x - width / 2, x + width / 2, y - height / 2, y + height / 2

    def places(self) -> tuple[NDArray[np.float64], ...]:
        """Centres of the voxels in mm along each axis of the shape, ([z,] y, x); y falls with the row."""
        left, _, _, top = self.extent
        y, x = ((np.arange(n, dtype=np.float64) + 0.5) * self.voxel for n in self.shape[-2:])
        if len(self.shape) == 2:
            return top - y, left + x
        depth = self.shape[0]
        z = self.centre[2] + (np.arange(depth, dtype=np.float64) - (depth - 1) / 2) * self.voxel
        return z, top - y, left + x

    def resized(self, size: int) -> "VolumeGrid":
        """The same field of view with ``size`` voxels along x (and as many along y as keep them square)."""
        factor = self.shape[-1] / size
        shape = tuple(max(1, round(n / factor)) for n in self.shape)
        return VolumeGrid(shape, self.voxel * factor, self.centre)


@dataclass(frozen=True, eq=False, kw_only=True)
class Beam(ABC):
    """What every geometry with a flat detector shares: angles, detector columns and offsets."""

    angles: NDArray[np.float64]
    columns: int
    pixel: float
    detector_offset: float = 0.0
    axis_offset: float = 0.0

    def __post_init__(self):
        _freeze(self)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of a sinogram, ``(angle, column)``."""
        return len(self.angles), self.columns

    @property
    @abstractmethod
    def magnification(self) -> float:
        """Size of an object's shadow over the size of the object, at the rotation axis."""

    @property
    @abstractmethod
    def field_of_view(self) -> float:
        """Diameter of the largest circle about the axis that every view sees, mm; negative if no ray passes the axis."""

    @abstractmethod
    def axis_distances(self, columns: NDArray) -> NDArray[np.float64]:
        """Signed distances in mm at which the rays onto columns (0-based, fractions too) pass the rotation axis."""

    @property
    def measured_field(self) -> float:
        """Diameter of the smallest circle about the axis that no ray runs outside of, mm."""
        return 2 * float(np.abs(self.axis_distances(np.array([-0.5, self.columns - 0.5]))).max())

    @abstractmethod
    def vectors(self) -> NDArray[np.float64]:
        """Rows of 12: source (or ray direction), detector centre, step along columns, step along rows; (x, y, z), mm."""

    @property
    def pixel_at_axis(self) -> float:
        """Distance between neighbouring rays at the rotation axis, mm."""
        return self.pixel / self.magnification

    def subset(self, indices: Sequence[int] | NDArray) -> Self:
        """The geometry of the chosen views, in the order given."""
        return replace(self, angles=self.angles[np.asarray(indices)])

    def binned(self, factor: int) -> Self:
        """The geometry after averaging ``factor`` neighbouring columns; a rest at the end is dropped."""
        if not 1 <= factor <= self.columns:
            raise GeometryError(f"Cannot bin {self.columns} columns by {factor}; choose 1 to {self.columns}.")
        kept = self.columns // factor * factor
        whole = self.cropped(0, kept)
        return replace(whole, columns=kept // factor, pixel=self.pixel * factor)

    def binning(self, grid: VolumeGrid) -> int:
        """How many neighbouring columns can be averaged while their rays stay closer than a pixel's width at the axis."""
        return min(self.columns, max(1, int(grid.voxel / self.pixel_at_axis + 1e-6)))

    def cropped(self, first: int, last: int) -> Self:
        """The geometry of columns ``first`` to ``last - 1``."""
        if not 0 <= first < last <= self.columns:
            raise GeometryError(f"Columns {first} to {last} are not inside the detector's {self.columns}.")
        shift = ((first + last) - self.columns) / 2 * self.pixel
        return replace(self, columns=last - first, detector_offset=self.detector_offset + shift)

    def positions(self, columns: NDArray | None = None) -> NDArray[np.float64]:
        """Where columns, all if None, are on the detector, mm from the central line."""
        columns = np.arange(self.columns) if columns is None else columns
        return (np.asarray(columns, np.float64) - (self.columns - 1) / 2) * self.pixel + self.detector_offset

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    __hash__ = None  # pyright: ignore[reportAssignmentType]


class ParallelBeam(Beam):
    """Parallel rays on a flat detector line.

    Parameters
    ----------
    angles : array of float
        Angles in radians, counter-clockwise, in the order they were measured.
    columns : int
        Number of detector pixels.
    pixel : float
        Detector pixel pitch in mm.
    detector_offset : float
        Shift of the detector's centre along its columns, mm.
    axis_offset : float
        Shift of the rotation axis along the detector's columns, mm.

    Raises
    ------
    GeometryError
        If angles are empty, not finite or span more than two turns (degrees given for radians), or a size is not positive.
    """

    @property
    def magnification(self) -> float:
        return 1.0

    @property
    def field_of_view(self) -> float:
        return self.columns * self.pixel - 2 * abs(self.detector_offset - self.axis_offset)

    def axis_distances(self, columns: NDArray) -> NDArray[np.float64]:
        return self.positions(columns) - self.axis_offset

    def vectors(self) -> NDArray[np.float64]:
        along, across = frame(self.angles)
        return _vectors(along, (self.detector_offset - self.axis_offset) * across, self.pixel * across, self.pixel)


@dataclass(frozen=True, eq=False, kw_only=True)
class FanBeam(Beam):
    """A point source and a flat detector line, both turning about the axis.

    Parameters
    ----------
    angles : array of float
        Angles in radians, counter-clockwise, in the order they were measured.
    columns : int
        Number of detector pixels.
    pixel : float
        Detector pixel pitch in mm, on the detector.
    source_to_axis, source_to_detector : float
        Distances in mm.
    detector_offset : float
        Shift of the detector's centre along its columns, mm on the detector.
    axis_offset : float
        Shift of the rotation axis from the line source - detector origin, along the columns' direction, mm at the axis.

    Raises
    ------
    GeometryError
        As `ParallelBeam`; also if the detector is not behind the axis.
    """

    source_to_axis: float
    source_to_detector: float

    def __post_init__(self):
        if not 0 < self.source_to_axis < self.source_to_detector:
            raise GeometryError(
                "The source to detector distance must exceed the source to axis distance, both positive; got "
                f"{self.source_to_detector} and {self.source_to_axis} mm."
            )
        _freeze(self)

    @property
    def magnification(self) -> float:
        return self.source_to_detector / self.source_to_axis

    @property
    def field_of_view(self) -> float:
        offset = self.detector_offset / self.magnification - self.axis_offset
        width = self.columns * self.pixel_at_axis - 2 * abs(offset)
        return width / np.hypot(1.0, width / 2 / self.source_to_axis)

    def axis_distances(self, columns: NDArray) -> NDArray[np.float64]:
        slope = self.positions(columns) / self.source_to_detector
        return (self.source_to_axis * slope - self.axis_offset) / np.hypot(1.0, slope)

    def slants(self, columns: NDArray) -> NDArray[np.float64]:
        """Angles in radians from the central ray to those onto columns: parallel rays of a beam that is turned less by them."""
        return np.arctan(self.positions(columns) / self.source_to_detector)

    def vectors(self) -> NDArray[np.float64]:
        along, across = frame(self.angles)
        source = -self.source_to_axis * along - self.axis_offset * across
        centre = (self.source_to_detector - self.source_to_axis) * along
        centre = centre + (self.detector_offset - self.axis_offset) * across
        return _vectors(source, centre, self.pixel * across, self.pixel)


Geometry = ParallelBeam | FanBeam


def radians(degrees: Sequence[float] | NDArray) -> NDArray[np.float64]:
    """Angles of a file or command line (degrees) as ctuq keeps them."""
    return np.deg2rad(np.asarray(degrees, dtype=np.float64))


def bytes_of(geometry: Any) -> bytes:
    """Kind and every number of a geometry, of a line or an area, for hashes; ``repr`` shows what its user wants to see."""
    parts = [type(geometry).__name__.encode()]
    for field in fields(geometry):
        parts += [field.name.encode(), np.asarray(getattr(geometry, field.name), dtype=np.float64).tobytes()]
    return b"".join(parts)


def full_turn(angles: NDArray) -> bool:
    """Whether views lie all around the axis, with no gap of an eighth of a turn."""
    around = np.sort(np.mod(angles, 2 * np.pi))
    return bool(np.diff(around, append=around[0] + 2 * np.pi).max() < np.pi / 4)


def default_grid(geometry: Geometry, size: int) -> VolumeGrid:
    """A square grid of ``size`` by ``size`` pixels over the field of view of all rays.

    The side is the diameter of the circle that every view sees, so no ray is lost and none runs outside needlessly.

    Parameters
    ----------
    geometry : Geometry
    size : int
        Pixels along x and along y.

    Raises
    ------
    GeometryError
        For fewer than 2 pixels, and where no circle about the axis is seen by every view.
    """
    if size < 2:
        raise GeometryError(f"The image size must be at least 2 pixels, got {size}.")
    if geometry.field_of_view <= 0:
        raise GeometryError("The rotation axis falls beside the detector, so no circle about it is seen by every view.")
    return VolumeGrid((size, size), geometry.field_of_view / size)


def frozen_angles(angles: Sequence[float] | NDArray) -> NDArray[np.float64]:
    """Angles in radians that nobody can change.

    Raises
    ------
    GeometryError
        If there is none, some are not finite, or they span more than two turns.
    """
    angles = np.array(as_numbers(angles, "The angles hold"), dtype=np.float64).reshape(-1)
    angles.flags.writeable = False
    if angles.size == 0:
        raise GeometryError("No angle is left in this geometry; select at least one view.")
    if not np.isfinite(angles).all():
        raise GeometryError("Some angles are not finite numbers; repair or leave out those views.")
    if np.ptp(angles) > _LARGEST_SPAN:
        raise GeometryError(
            f"The angles span {np.ptp(angles):.1f} rad, more than two turns: they look like degrees; "
            "convert them with ctuq.radians(...)."
        )
    return angles


def _freeze(geometry: Beam) -> None:
    object.__setattr__(geometry, "angles", frozen_angles(geometry.angles))
    if int(geometry.columns) != float(geometry.columns):
        raise GeometryError(f"A detector has a whole number of columns, not {geometry.columns}.")
    object.__setattr__(geometry, "columns", int(geometry.columns))
    for name in _lengths(geometry):
        object.__setattr__(geometry, name, float(getattr(geometry, name)))
    lengths = [getattr(geometry, name) for name in _lengths(geometry)]
    if not np.isfinite(lengths).all():
        raise GeometryError("Some lengths of the geometry are not finite numbers of mm.")
    if geometry.columns < 1 or geometry.pixel <= 0:
        raise GeometryError(
            f"A detector needs at least one column and a positive pixel size, got {geometry.columns} and {geometry.pixel} mm."
        )
    if not _SMALLEST_PIXEL <= geometry.pixel <= _LARGEST_PIXEL:
        raise GeometryError(
            f"A pixel of {geometry.pixel:g} mm cannot be ({_SMALLEST_PIXEL:g} to {_LARGEST_PIXEL:g} mm can); check its unit."
        )
    edges = geometry.axis_distances(np.array([-0.5, geometry.columns - 0.5]))
    beside = float(np.abs(edges).min()) if edges[0] * edges[1] >= 0 else 0.0
    if beside > geometry.columns * geometry.pixel_at_axis:
        raise GeometryError(
            f"The rotation axis falls {beside / geometry.pixel_at_axis:.3g} columns beside the detector of {geometry.columns}, "
            "so far that the rays show no object about it; check the offsets (mm) or axis_column."
        )


def _lengths(geometry: Beam) -> list[str]:
    return [f.name for f in fields(geometry) if f.name not in ("angles", "columns")]


def frame(angles: NDArray) -> tuple[NDArray, NDArray]:
    """Unit vectors along the central ray and along the detector's columns, each (angle, 2)."""
    sin, cos = np.sin(angles), np.cos(angles)
    return np.stack([-sin, cos], axis=1), np.stack([cos, sin], axis=1)


def _vectors(first: NDArray, centre: NDArray, column: NDArray, row_pitch: float) -> NDArray[np.float64]:
    rows = np.zeros((len(first), 12))
    rows[:, 0:2], rows[:, 3:5], rows[:, 6:8], rows[:, 11] = first, centre, column, row_pitch
    return rows
