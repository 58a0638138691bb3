"""Geometries of volumes to and from ASTRA, ODL and tomosipo.

Space is the same for all: (x, y, z), angles counter-clockwise, projections (row, angle, column) with rows upwards. Their
volumes hold y upwards and ours downwards: the same volume is ``x[:, ::-1]`` for ASTRA and tomosipo, and ``x[:, ::-1].T`` for
ODL, whose axes are (x, y, z).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import GeometryError
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.interop import tomosipo
from ctuq.tomo.space import ConeBeam, FreeBeam, Parallel3D, VolumeGeometry

_TOLERANCE = 1e-6


def to_astra(grid: VolumeGrid, geometry: VolumeGeometry) -> tuple[dict[str, Any], dict[str, Any]]:
    """ASTRA's volume and projection geometry (``cone_vec`` or ``parallel3d_vec``), in mm."""
    import astra

    _require_volume(grid)
    low, high = _bounds(grid)
    slices, height, width = grid.shape
    volume = astra.create_vol_geom(height, width, slices, *(x for pair in zip(low, high, strict=True) for x in pair))
    kind = "cone_vec" if geometry.diverging else "parallel3d_vec"
    return volume, astra.create_proj_geom(kind, geometry.rows, geometry.columns, geometry.vectors())


def from_astra(volume: Mapping[str, Any], projection: Mapping[str, Any]) -> tuple[VolumeGrid, VolumeGeometry]:
    """Our grid and geometry of ASTRA's, lengths taken as mm.

    Raises
    ------
    GeometryError
        If voxels are no cubes, or the geometry is not one of ``cone``, ``parallel3d`` and their vectors.
    """
    option = volume["option"]
    names = [(option[f"WindowMin{axis}"], option[f"WindowMax{axis}"]) for axis in "XYZ"]
    low, high = np.array(names, dtype=float).T
    shape = (volume["GridSliceCount"], volume["GridRowCount"], volume["GridColCount"])
    grid = _grid(shape, low, high)
    kind, size = projection["type"], (int(projection["DetectorRowCount"]), int(projection["DetectorColCount"]))
    if kind in ("cone_vec", "parallel3d_vec"):
        rows, columns = size
        free = FreeBeam(table=projection["Vectors"], rows=rows, columns=columns, is_cone=kind == "cone_vec")
        return grid, circular(free) or free
    if kind not in ("cone", "parallel3d"):
        raise GeometryError(f"The geometry '{kind}' of ASTRA is none of cone, parallel3d, cone_vec and parallel3d_vec.")
    shared: dict[str, Any] = {
        "angles": projection["ProjectionAngles"],
        "rows": size[0],
        "columns": size[1],
        "pixel": projection["DetectorSpacingX"],
        "row_pixel": projection["DetectorSpacingY"],
    }
    if kind == "parallel3d":
        return grid, Parallel3D(**shared)
    source, detector = projection["DistanceOriginSource"], projection["DistanceOriginDetector"]
    return grid, ConeBeam(**shared, source_to_axis=source, source_to_detector=source + detector)


def to_tomosipo(grid: VolumeGrid, geometry: VolumeGeometry) -> tuple[Any, Any]:
    """A tomosipo volume and projection geometry in vectors.

    Raises
    ------
    BackendError
        If tomosipo is not installed.
    """
    ts = tomosipo()
    _require_volume(grid)
    volume = ts.volume(shape=grid.shape, extent=tuple(zip(*(bound[::-1] for bound in _bounds(grid)), strict=True)))
    first, centre, column, row = (part[:, ::-1] for part in np.split(geometry.vectors(), 4, axis=1))
    shared = dict(shape=(geometry.rows, geometry.columns), det_pos=centre, det_v=row, det_u=column)
    if geometry.diverging:
        return volume, ts.cone_vec(src_pos=first, **shared)
    return volume, ts.parallel_vec(ray_dir=first, **shared)


def from_tomosipo(volume: Any, projection: Any) -> tuple[VolumeGrid, VolumeGeometry]:
    """Our grid and geometry of tomosipo's, lengths taken as mm.

    Raises
    ------
    BackendError
        If tomosipo is not installed.
    GeometryError
        If voxels are no cubes.
    """
    tomosipo()
    size = np.asarray(volume.voxel_size, dtype=float) * volume.shape
    centre = np.asarray(volume.pos[0] if np.ndim(volume.pos) == 2 else volume.pos, dtype=float)
    grid = _grid(tuple(volume.shape), (centre - size / 2)[::-1], (centre + size / 2)[::-1])
    vectors = projection.to_vec()
    first = vectors.src_pos if projection.is_cone else vectors.ray_dir
    table = np.hstack([np.asarray(part)[:, ::-1] for part in (first, vectors.det_pos, vectors.det_u, vectors.det_v)])
    rows, columns = projection.det_shape
    free = FreeBeam(table=table, rows=rows, columns=columns, is_cone=bool(projection.is_cone))
    return grid, circular(free) or free


def to_odl(geometry: ConeBeam | Parallel3D) -> Any:
    """ODL's geometry of a circular scan with an upright detector.

    Raises
    ------
    GeometryError
        If the detector is not upright, the axis is offset, or the angles do not increase: ODL has no place for these.
    """
    import odl
    from odl.applications import tomo

    if not geometry.upright or abs(geometry.axis_offset) > 0 or (np.diff(geometry.angles) <= 0).any():
        raise GeometryError("ODL's circular geometries take an upright detector, no axis offset, and angles that increase.")
    angles = odl.nonuniform_partition(geometry.angles) if geometry.n_angles > 1 else _single(geometry)
    half = np.array([geometry.columns * geometry.pixel, geometry.rows * geometry.row_pitch]) / 2
    middle = np.array([geometry.detector_offset, geometry.row_offset])
    detector = odl.uniform_partition(middle - half, middle + half, (geometry.columns, geometry.rows))
    if isinstance(geometry, Parallel3D):
        return tomo.Parallel3dAxisGeometry(angles, detector)
    behind = geometry.source_to_detector - geometry.source_to_axis
    return tomo.ConeBeamGeometry(angles, detector, src_radius=geometry.source_to_axis, det_radius=behind)


def from_odl(geometry: Any) -> VolumeGeometry:
    """Our geometry of any of ODL's with a flat area detector, helices too, lengths taken as mm."""
    angles = np.asarray(geometry.angles, dtype=float)
    cells, low = geometry.det_partition.cell_sides, geometry.det_partition.min_pt
    middle = (np.asarray(low) + np.asarray(geometry.det_partition.max_pt)) / 2
    columns, rows = geometry.det_partition.shape
    is_cone = hasattr(geometry, "src_position")
    table = []
    for angle in angles:
        across, up = (np.asarray(axis, dtype=float) for axis in geometry.det_axes(angle))
        centre = np.asarray(geometry.det_refpoint(angle)) + middle[0] * across + middle[1] * up
        first = geometry.src_position(angle) if is_cone else geometry.det_to_src(angle, middle)
        table.append(np.concatenate([first, centre, cells[0] * across, cells[1] * up]))
    free = FreeBeam(table=np.array(table), rows=rows, columns=columns, is_cone=is_cone)
    return circular(free) or free


def circular(free: FreeBeam) -> ConeBeam | Parallel3D | None:
    """The circular scan about the z axis with an upright detector that free vectors describe; None if they do not."""
    first, centre, column, row = np.split(free.table, 4, axis=1)
    angles = free.angles
    across = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    along = np.stack([-np.sin(angles), np.cos(angles), 0 * angles], axis=1)
    pitch, height = np.median(np.linalg.norm(column, axis=1)), np.median(np.linalg.norm(row, axis=1))
    numbers = [(first * across).sum(1), (first * along).sum(1), first[:, 2], (centre * across).sum(1), (centre * along).sum(1)]
    source_x, source_y, source_z, x, y = (float(np.median(values)) for values in numbers)
    z = float(np.median(centre[:, 2]))
    shared: dict[str, Any] = {"angles": angles, "rows": free.rows, "columns": free.columns, "row_pixel": height, "pixel": pitch}
    try:
        if not free.is_cone:
            found = Parallel3D(**shared, detector_offset=x, row_offset=z)
        elif abs(source_z) > _TOLERANCE * height:
            return None
        else:
            offsets: dict[str, Any] = {"axis_offset": -source_x, "detector_offset": x - source_x, "row_offset": z}
            found = ConeBeam(**shared, **offsets, source_to_axis=-source_y, source_to_detector=y - source_y)
    except GeometryError:
        return None
    told, again = free.vectors(), found.vectors()
    if not free.is_cone:
        rays = told[:, :3] / np.linalg.norm(told[:, :3], axis=1, keepdims=True)
        # Rays are lines: they run either way, and a detector may stand anywhere along them.
        told[:, :3] = rays * np.sign((rays * along).sum(1, keepdims=True))
        told[:, 3:6] -= y * along
    return found if np.abs(told - again).max() <= _TOLERANCE * max(pitch, np.abs(told).max()) else None


def _single(geometry: ConeBeam | Parallel3D) -> Any:
    import odl

    angle = geometry.angles[0]
    return odl.uniform_partition(angle - 1e-3, angle + 1e-3, 1)


def _bounds(grid: VolumeGrid) -> tuple[NDArray, NDArray]:
    half = np.array(grid.shape[::-1]) * grid.voxel / 2
    return np.array(grid.centre) - half, np.array(grid.centre) + half


def _grid(shape: tuple[int, ...], low: NDArray, high: NDArray) -> VolumeGrid:
    voxels = (high - low) / np.array(shape[::-1])
    if np.ptp(voxels) > _TOLERANCE * voxels[0]:
        raise GeometryError(
            f"The voxels must be cubes, not {voxels[0]:g} by {voxels[1]:g} by {voxels[2]:g}; resample the volume."
        )
    return VolumeGrid(shape, float(voxels[0]), tuple((low + high) / 2))


def _require_volume(grid: VolumeGrid) -> None:
    if len(grid.shape) != 3:
        raise GeometryError(f"A volume has three axes (z, y, x), the grid {len(grid.shape)}.")
