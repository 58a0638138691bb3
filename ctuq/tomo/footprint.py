"""Where points of a volume fall on an area detector, how far rays lie apart, and guards against volumes that rays miss."""

from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import GeometryError
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.space import ConeBeam, FreeBeam, Parallel3D, VolumeGeometry

_LATTICE = 17
"""Points along each axis of a volume that are looked for on the detector."""


def detector_pixels(geometry: VolumeGeometry, points: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where points (x, y, z) in mm fall on the detector in each view.

    Parameters
    ----------
    points : array, shape (n, 3) or (angle, n, 3)

    Returns
    -------
    rows, columns : array, shape (angle, n)
        0-based, whole numbers at the pixels' centres; NaN for points level with the source or behind it.
    """
    first, centre, column, row = np.split(geometry.vectors()[:, None, :], 4, axis=-1)
    points = np.broadcast_to(points, (geometry.n_angles, *np.shape(points)[-2:]))
    ray = points - first if geometry.diverging else np.broadcast_to(first, points.shape)
    start = first if geometry.diverging else points
    normal = np.cross(column, row)
    reach, depth = ((centre - start) * normal).sum(-1), (ray * normal).sum(-1)
    if geometry.diverging:
        depth = np.where(depth * reach > 0, depth, np.nan)
    offset = start + ray * (reach / depth)[..., None] - centre
    # Steps along rows and columns need not be at right angles: the two numbers are those of the dual basis.
    cc, rr, cr = ((a * b).sum(-1) for a, b in ((column, column), (row, row), (column, row)))
    c, r = (offset * column).sum(-1), (offset * row).sum(-1)
    area = cc * rr - cr**2
    columns = (rr * c - cr * r) / area + (geometry.columns - 1) / 2
    return (cc * r - cr * c) / area + (geometry.rows - 1) / 2, columns


def pitches(geometry: VolumeGeometry) -> tuple[float, float]:
    """Distances between neighbouring rays at the origin, from row to row and from column to column, mm (of the median view)."""
    first, centre, column, row = np.split(geometry.vectors(), 4, axis=1)
    ray = centre - first if geometry.diverging else first
    unit = ray / np.linalg.norm(ray, axis=1, keepdims=True)
    scale = 1.0
    if geometry.diverging:
        scale = np.linalg.norm(first, axis=1) / np.linalg.norm(ray, axis=1)
    across = [np.linalg.norm(step - unit * (step * unit).sum(1, keepdims=True), axis=1) * scale for step in (row, column)]
    return float(np.median(across[0])), float(np.median(across[1]))


def averaged_beam(beam: ConeBeam | Parallel3D, bins: tuple[int, int]) -> ConeBeam | Parallel3D:
    """The beam with so many rows and columns averaged to a pixel; those that are left over fall off at the end."""
    rows, columns = bins
    return replace(
        beam,
        rows=beam.rows // rows,
        columns=beam.columns // columns,
        pixel=beam.pixel * columns,
        row_pixel=beam.row_pitch * rows,
        detector_offset=beam.detector_offset - beam.columns % columns * beam.pixel / 2,
        row_offset=beam.row_offset - beam.rows % rows * beam.row_pitch / 2,
    )


def corners(grid: VolumeGrid) -> NDArray[np.float64]:
    """The eight corners of a volume, (8, 3), mm."""
    half = np.array(grid.shape[::-1]) * grid.voxel / 2
    return np.array(grid.centre) + half * np.array(list(product((-1, 1), repeat=3)))


def require_shadow(grid: VolumeGrid, geometry: VolumeGeometry) -> None:
    """Refuse a geometry with views that miss the volume, or with the source inside it.

    Raises
    ------
    GeometryError
        With the number of views.
    """
    if len(grid.shape) != 3:
        raise GeometryError(f"{type(geometry).__name__} projects volumes (z, y, x); the grid has {len(grid.shape)} axes.")
    edges = corners(grid)
    if geometry.diverging:
        source = geometry.vectors()[:, 0:3]
        inside = ((edges[0] < source) & (source < edges[-1])).all(axis=1)
        if inside.any():
            raise GeometryError(
                f"The source lies inside the volume in {inside.sum()} of {inside.size} views; check the source to axis "
                "distance, or choose a smaller grid (both mm)."
            )
    rows, columns = detector_pixels(geometry, edges)
    with np.errstate(invalid="ignore"):
        missed = _beside(rows, geometry.rows) | _beside(columns, geometry.columns)
    if missed.any():
        raise GeometryError(
            f"The volume casts no shadow on the detector in {missed.sum()} of {missed.size} views; check the offsets, the "
            "heights and the grid's centre (mm)."
        )


def unseen_share(grid: VolumeGrid, geometry: VolumeGeometry) -> float:
    """Share of a volume's cylinder about the z axis that falls beside the detector in some view, from a lattice of points.

    A detector that is shifted along its columns sees each point in one of two opposite views: columns do not count then.
    """
    shape = np.array(grid.shape[::-1]) * grid.voxel
    # Between the centres of the outermost voxels.
    axes = [
        np.linspace(-0.5, 0.5, _LATTICE) * (size - grid.voxel) + middle for size, middle in zip(shape, grid.centre, strict=True)
    ]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points = points[np.hypot(points[:, 0], points[:, 1]) <= max(shape[:2]) / 2]
    if not len(points):
        return 0.0
    chosen = np.unique(np.linspace(0, geometry.n_angles - 1, 16).round().astype(int))
    rows, _ = detector_pixels(geometry.subset(chosen), points)
    seen = (rows >= -0.5) & (rows <= geometry.rows - 0.5)
    return float(1 - seen.all(axis=0).mean())


def volume_grid(geometry: VolumeGeometry, size: int) -> VolumeGrid:
    """The volume of ``size`` voxels along x and y over the circle that every view sees, as high as the axis is seen.

    Parameters
    ----------
    geometry : ConeBeam or Parallel3D
    size : int

    Raises
    ------
    GeometryError
        If the vectors are free, so that nobody knows what every view sees, or the size or the field is none.
    """
    if isinstance(geometry, FreeBeam):
        raise GeometryError("Free vectors do not say which volume all views see; give the grid.")
    field = geometry.plane.field_of_view
    if size < 2:
        raise GeometryError(f"The volume's size must be at least 2 voxels, got {size}.")
    if field <= 0:
        raise GeometryError("The rotation axis falls beside the detector, so no circle about it is seen by every view.")
    low, high = geometry.heights
    if isinstance(geometry, Parallel3D) and geometry.axis_tilt:
        low, high = low / np.cos(geometry.axis_tilt), high / np.cos(geometry.axis_tilt)
    voxel = field / size
    slices = int(np.floor((high - low) / voxel + 1e-6))
    return VolumeGrid((max(1, slices), size, size), voxel, (0.0, 0.0, (low + high) / 2))


def _beside(places: NDArray, count: int) -> NDArray[np.bool_]:
    """Views in which all points lie on one side of the detector; those behind the source lie on none."""
    return (places.max(axis=1) < -0.5) | (places.min(axis=1) > count - 0.5)
