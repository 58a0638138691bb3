"""Geometries of volumes: area detectors in cone beams, parallel beams and free vectors, millimetres and radians.

All say themselves as ASTRA's vectors: for each view the source (or the direction of the rays), the detector's centre, the step
from column to column and the step from row to row, each (x, y, z). Angles, columns and offsets are those of the fan and the
parallel beam (`ctuq.tomo.geometry`); rows run upwards along +z, the rotation axis. See ``docs/conventions.md``.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import GeometryError
from ctuq.tomo.geometry import MOST_PIXELS, FanBeam, ParallelBeam, frame, frozen_angles

_STEEPEST = np.deg2rad(80)
_TURN = 2 * np.pi
_FLAT = 1e-9
_LEVEL = 0.1
"""Columns whose share in the plane of x and y is smaller say nothing of a view's angle."""


class AreaBeam(ABC):
    """What every geometry with an area detector tells."""

    rows: int
    columns: int
    angles: Any

    @property
    def diverging(self) -> bool:
        """Whether rays come from a point."""
        return False

    @property
    def n_angles(self) -> int:
        """Number of views."""
        return len(self.angles)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the projections, ``(row, angle, column)``."""
        return self.rows, self.n_angles, self.columns

    @abstractmethod
    def vectors(self) -> NDArray[np.float64]:
        """Rows of 12: source (or ray direction), detector centre, step along columns, step along rows; (x, y, z), mm."""

    @abstractmethod
    def subset(self, indices: Sequence[int] | NDArray) -> Self:
        """The geometry of the chosen views, in the order given."""

    @abstractmethod
    def part(self, rows: range | None = None, columns: range | None = None) -> Self:
        """The geometry of evenly spaced rows, from the lowest, and of neighbouring columns; of all where none are given."""

    def _part(self, rows: range | None, columns: range | None) -> tuple[range, range, float, float]:
        """The rows and columns of a part, and by how many of each its centre lies above and to the right.

        Raises
        ------
        GeometryError
            If some are not there.
        """
        rows = range(self.rows) if rows is None else rows
        columns = range(self.columns) if columns is None else columns
        for some, count, name in ((rows, self.rows, "Rows"), (columns, self.columns, "Columns")):
            if not some:
                raise GeometryError(f"{name} {some.start} up to but not {some.stop} are none; take one at least.")
            if some[0] < 0 or some[-1] >= count or some.step < 1:
                raise GeometryError(f"{name} {some[0]} to {some[-1]} are not inside the detector's {count}.")
        return rows, columns, (rows[0] + rows[-1] - self.rows + 1) / 2, (columns[0] + columns[-1] - self.columns + 1) / 2

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))  # pyright: ignore[reportArgumentType]

    __hash__ = None  # pyright: ignore[reportAssignmentType]


@dataclass(frozen=True, eq=False, kw_only=True)
class _Circular(AreaBeam):
    """What geometries share in which the detector goes round the axis."""

    angles: NDArray[np.float64]
    rows: int
    columns: int
    pixel: float
    row_pixel: float | None = None
    detector_offset: float = 0.0
    row_offset: float = 0.0
    axis_offset: float = 0.0
    roll: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "angles", frozen_angles(self.angles))
        object.__setattr__(self, "row_pixel", self.pixel if self.row_pixel is None else self.row_pixel)
        for f in fields(self):
            if f.name != "angles":
                kind = int if f.name in ("rows", "columns") else float
                object.__setattr__(self, f.name, kind(getattr(self, f.name)))
        _ = self.plane  # what a fan refuses, a cone does
        if not 1 <= self.rows <= MOST_PIXELS:
            raise GeometryError(f"A detector has 1 to {MOST_PIXELS} rows, got {self.rows}.")
        if not (np.isfinite(self.row_pitch) and self.row_pitch > 0):
            raise GeometryError(f"The rows' pitch must be a positive number of mm, got {self.row_pitch}.")
        if not (np.isfinite(self.row_offset) and abs(self.roll) <= _TURN):
            raise GeometryError(
                f"The detector's row offset (mm) and roll (radians) must be finite, the roll at most a turn; got "
                f"{self.row_offset:g} and {self.roll:g}."
            )

    @property
    def row_pitch(self) -> float:
        """Pitch of the detector's rows, mm on the detector."""
        return self.pixel if self.row_pixel is None else self.row_pixel

    @property
    @abstractmethod
    def plane(self) -> FanBeam | ParallelBeam:
        """The beam in the plane z = 0, of a detector that stands upright."""

    @property
    @abstractmethod
    def upright(self) -> bool:
        """Whether the detector's rows are stacked along the rotation axis, without roll or tilt."""

    @property
    def heights(self) -> tuple[float, float]:
        """Lowest and highest z at the rotation axis that an upright detector sees, mm."""
        half = self.rows * self.row_pitch / 2
        scale = self.plane.magnification
        return (self.row_offset - half) / scale, (self.row_offset + half) / scale

    def subset(self, indices: Sequence[int] | NDArray) -> Self:
        return replace(self, angles=self.angles[np.asarray(indices)])

    @abstractmethod
    def _steps(self) -> NDArray[np.float64]:
        """Steps of a column and of a row, (2, 3), along the central ray, along an unturned detector's columns and its rows."""

    def part(self, rows: range | None = None, columns: range | None = None) -> Self:
        rows, columns, above, right = self._part(rows, columns)
        column, row = self._steps()
        beyond, aside, up = right * column + above * row
        more: dict[str, Any] = {"source_to_detector": self.source_to_detector + beyond} if isinstance(self, ConeBeam) else {}
        return replace(
            self,
            rows=len(rows),
            columns=len(columns),
            row_pixel=self.row_pitch * rows.step,
            row_offset=self.row_offset + up,
            detector_offset=self.detector_offset + aside,
            **more,
        )

    def _rolled(self, across: NDArray, up: NDArray) -> tuple[NDArray, NDArray]:
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        return self.pixel * (cos * across + sin * up), self.row_pitch * (cos * up - sin * across)


@dataclass(frozen=True, eq=False, kw_only=True)
class ConeBeam(_Circular):
    """A point source and a flat area detector, both turning about the axis.

    Parameters
    ----------
    angles : array of float
        Angles in radians, counter-clockwise, in the order they were measured.
    rows, columns : int
        Number of detector pixels.
    pixel : float
        Pitch of the columns in mm, on the detector.
    row_pixel : float, optional
        Pitch of the rows; by default that of the columns.
    source_to_axis, source_to_detector : float
        Distances in mm along the central ray, which meets the axis' line at z = 0.
    detector_offset, row_offset : float
        From the central ray to the detector's centre along columns and rows, mm on the detector.
    axis_offset : float
        Shift of the rotation axis along the columns' direction, mm at the axis.
    roll : float
        Turn of the detector in its own plane about its centre, counter-clockwise as the source sees it, radians.
    tilt, yaw : float
        Turns of the detector about its row and its column through the centre, radians: a positive tilt leans its upper rows, a
        positive yaw its higher columns away from the source.

    Raises
    ------
    GeometryError
        As `FanBeam`; also for rows, pitches, offsets and turns that cannot be.
    """

    source_to_axis: float
    source_to_detector: float
    tilt: float = 0.0
    yaw: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if not max(abs(self.tilt), abs(self.yaw)) < _STEEPEST:
            raise GeometryError(
                f"The detector's tilt and yaw must be below 80 degrees (in radians), got {self.tilt:g} and {self.yaw:g} rad."
            )

    @property
    def diverging(self) -> bool:
        return True

    @property
    def plane(self) -> FanBeam:
        """The fan in the plane of the source, without rows."""
        return FanBeam(
            angles=self.angles,
            columns=self.columns,
            pixel=self.pixel,
            detector_offset=self.detector_offset,
            axis_offset=self.axis_offset,
            source_to_axis=self.source_to_axis,
            source_to_detector=self.source_to_detector,
        )

    @property
    def upright(self) -> bool:
        return max(abs(self.roll), abs(self.tilt), abs(self.yaw)) < _FLAT

    def vectors(self) -> NDArray[np.float64]:
        """Source, detector's centre, and steps of a column and of a row, for every view: (V, 12) mm."""
        along, across, up = _frame(self.angles)
        source = -self.source_to_axis * along - self.axis_offset * across
        centre = (self.source_to_detector - self.source_to_axis) * along
        centre = centre + (self.detector_offset - self.axis_offset) * across + self.row_offset * up
        return np.hstack([source, centre, *self._steps_of(along, across, up)])

    def _steps(self) -> NDArray[np.float64]:
        return np.stack(self._steps_of(*np.eye(3)))

    def _steps_of(self, along: NDArray, across: NDArray, up: NDArray) -> tuple[NDArray, NDArray]:
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        behind = cos * along - sin * across
        leaning = np.cos(self.tilt) * up + np.sin(self.tilt) * behind
        return self._rolled(cos * across + sin * along, leaning)

    def raised(self, heights: NDArray) -> "FreeBeam":
        """Source and detector raised by so many mm in each view: a helix for ``pitch * turns``.

        Parameters
        ----------
        heights : array, shape (angle,)
        """
        table = self.vectors()
        table[:, [2, 5]] += np.asarray(heights, np.float64).reshape(-1, 1)
        return FreeBeam(table=table, rows=self.rows, columns=self.columns)


@dataclass(frozen=True, eq=False, kw_only=True)
class Parallel3D(_Circular):
    """Parallel rays onto a flat area detector, square to them; the rotation axis may lean (laminography).

    Parameters
    ----------
    angles, rows, columns, pixel, row_pixel, detector_offset, row_offset, axis_offset, roll
        As `ConeBeam`.
    axis_tilt : float
        Radians by which the axis' upper end leans towards the detector: rays rise so much along z.

    Raises
    ------
    GeometryError
        As `ParallelBeam`; also for rows, pitches, offsets and turns that cannot be.
    """

    axis_tilt: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if not abs(self.axis_tilt) < np.pi / 2:
            raise GeometryError(f"The axis' tilt must be below a right angle (in radians), got {self.axis_tilt:g} rad.")

    @property
    def plane(self) -> ParallelBeam:
        """The parallel rays of one row."""
        return ParallelBeam(
            angles=self.angles,
            columns=self.columns,
            pixel=self.pixel,
            detector_offset=self.detector_offset,
            axis_offset=self.axis_offset,
        )

    @property
    def upright(self) -> bool:
        return max(abs(self.roll), abs(self.axis_tilt)) < _FLAT

    def vectors(self) -> NDArray[np.float64]:
        along, across, up = _frame(self.angles)
        sin, cos = np.sin(self.axis_tilt), np.cos(self.axis_tilt)
        ray, up = cos * along + sin * up, cos * up - sin * along
        centre = (self.detector_offset - self.axis_offset) * across + self.row_offset * up
        return np.hstack([ray, centre, *self._rolled(across, up)])

    def _steps(self) -> NDArray[np.float64]:
        return np.stack(self._rolled(*np.eye(3)[1:]))


@dataclass(frozen=True, eq=False, kw_only=True)
class FreeBeam(AreaBeam):
    """Any source and any flat detector in each view, as ASTRA's ``cone_vec`` and ``parallel3d_vec``.

    Parameters
    ----------
    table : array, shape (angle, 12)
        Source (or ray direction), detector centre, step along columns, step along rows; (x, y, z), mm.
    rows, columns : int
    is_cone : bool
        Whether the first three numbers are a source; else rays run along them.

    Raises
    ------
    GeometryError
        If there is no view, a number is not finite, or rays run along a detector.
    """

    table: NDArray[np.float64]
    rows: int
    columns: int
    is_cone: bool = True

    def __post_init__(self):
        table = np.array(self.table, dtype=np.float64)
        if table.ndim != 2 or table.shape[1] != 12 or not len(table):
            raise GeometryError(f"Free vectors are a table of 12 numbers for each view, got the shape {table.shape}.")
        if not np.isfinite(table).all():
            raise GeometryError("Some of the vectors are not finite numbers of mm.")
        if not (1 <= self.rows <= MOST_PIXELS and 1 <= self.columns <= MOST_PIXELS):
            raise GeometryError(f"A detector has 1 to {MOST_PIXELS} rows and columns, got {self.rows} and {self.columns}.")
        first, centre, column, row = np.split(table, 4, axis=1)
        ray = centre - first if self.is_cone else first
        lengths = np.linalg.norm(ray, axis=1) * np.linalg.norm(column, axis=1) * np.linalg.norm(row, axis=1)
        along = np.abs((np.cross(column, row) * ray).sum(axis=1)) <= _FLAT * lengths
        if along.any():
            raise GeometryError(
                f"In {along.sum()} of {len(table)} views the rays run along the detector, or it has pixels without an area."
            )
        table.flags.writeable = False
        object.__setattr__(self, "table", table)

    @property
    def diverging(self) -> bool:
        return self.is_cone

    @property
    def angles(self) -> NDArray[np.float64]:
        """Directions of the columns in the plane of x and y, radians: the angles where the scan is circular.

        Where columns do not turn in that plane, as on an orbit about another axis or of a detector that stands still, they are
        those of the rays, about the axis that these turn about. Else all views would count as of one direction.
        """
        first, centre, column, _ = np.split(self.table, 4, axis=1)
        flat = np.linalg.norm(column[:, :2], axis=1) > _LEVEL * np.linalg.norm(column, axis=1)
        angles = np.arctan2(column[:, 1], column[:, 0])
        rays = centre - first if self.is_cone else first
        rays = rays / np.linalg.norm(rays, axis=1, keepdims=True)
        turning = np.abs(np.exp(1j * angles) - np.exp(1j * angles[0])).max() > _FLAT
        if flat.all() and (turning or np.abs(rays - rays[0]).max() <= _FLAT):
            return angles
        plane = np.linalg.svd(rays - rays.mean(axis=0))[2][:2]
        return np.arctan2(rays @ plane[1], rays @ plane[0])

    def vectors(self) -> NDArray[np.float64]:
        return self.table.copy()

    def subset(self, indices: Sequence[int] | NDArray) -> Self:
        return replace(self, table=self.table[np.asarray(indices)])

    def part(self, rows: range | None = None, columns: range | None = None) -> Self:
        rows, columns, above, right = self._part(rows, columns)
        table = self.table.copy()
        table[:, 3:6] += right * table[:, 6:9] + above * table[:, 9:]
        table[:, 9:] *= rows.step
        return replace(self, table=table, rows=len(rows), columns=len(columns))


VolumeGeometry = ConeBeam | Parallel3D | FreeBeam


def _frame(angles: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Unit vectors along the central ray, along the columns and upwards, each (angle, 3)."""
    along, across = (np.pad(vector, ((0, 0), (0, 1))) for vector in frame(angles))
    return along, across, np.broadcast_to([0.0, 0.0, 1.0], along.shape)
