"""Geometries to and from ASTRA, ODL and tomosipo.

Space is the same for all: (x, y, z), angles counter-clockwise, projections (row, angle, column) with rows upwards. Their
volumes hold y upwards and ours downwards: the same volume is ``x[:, ::-1]`` for ASTRA and tomosipo, and ``x[:, ::-1].T`` for
ODL, whose axes are (x, y, z). Of slices ASTRA's image is ours, with the first row at the top, and ODL's is ``x[::-1].T``.
Slices of tomosipo are in `ctuq.tomo.rays.interop`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import GeometryError
from ctuq.tomo.geometry import Beam, FanBeam, Geometry, VolumeGrid
from ctuq.tomo.rays.interop import tomosipo
from ctuq.tomo.space import ConeBeam, FreeBeam, Parallel3D, VolumeGeometry

_TOLERANCE = 1e-6
_SPACINGS = ("DetectorSpacingX", "DetectorSpacingY")


def to_astra(grid: VolumeGrid, geometry: Geometry | VolumeGeometry) -> tuple[dict[str, Any], dict[str, Any]]:
    """ASTRA's volume and projection geometry in mm, of vectors: ``cone_vec`` or ``parallel3d_vec``, of a slice ``fanflat_vec``
    or ``parallel_vec``.

    Raises
    ------
    GeometryError
        If the grid is of a slice and the geometry of a volume, or the other way.
    """
    import astra

    _require_axes(grid, geometry)
    low, high = _bounds(grid)
    ends = [x for pair in zip(low, high, strict=True) for x in pair]
    if isinstance(geometry, Beam):
        kind = "fanflat_vec" if isinstance(geometry, FanBeam) else "parallel_vec"
        vectors = geometry.vectors()[:, [0, 1, 3, 4, 6, 7]]
        return astra.create_vol_geom(*grid.shape, *ends), astra.create_proj_geom(kind, geometry.columns, vectors)
    slices, height, width = grid.shape
    kind = "cone_vec" if geometry.diverging else "parallel3d_vec"
    projection = astra.create_proj_geom(kind, geometry.rows, geometry.columns, geometry.vectors())
    return astra.create_vol_geom(height, width, slices, *ends), projection


def from_astra(volume: Mapping[str, Any], projection: Mapping[str, Any]) -> tuple[VolumeGrid, Geometry | VolumeGeometry]:
    """Our grid and geometry of ASTRA's, lengths taken as mm.

    Raises
    ------
    GeometryError
        If voxels are no cubes, the geometry is not one of ``cone``, ``parallel3d``, ``fanflat``, ``parallel`` and their
        vectors, a slice's vectors are no circular scan, or one of both is of a slice and the other of a volume.
    """
    kind = projection["type"]
    known = ("parallel", "fanflat", "parallel3d", "cone")
    if kind.removesuffix("_vec") not in known:
        raise GeometryError(f"The geometry '{kind}' of ASTRA is none of {', '.join(known)} and their vectors.")
    flat, option = kind.removesuffix("_vec") in known[:2], volume["option"]
    if flat == ("GridSliceCount" in volume):
        raise GeometryError(f"The geometry '{kind}' and the volume must both be of a slice, or both of three axes.")
    names = [(option[f"WindowMin{axis}"], option[f"WindowMax{axis}"]) for axis in ("XY" if flat else "XYZ")]
    low, high = np.array(names, dtype=float).T
    shape = volume["GridRowCount"], volume["GridColCount"]
    return _grid(shape if flat else (volume["GridSliceCount"], *shape), low, high), _of_astra(kind, projection, flat)


def _of_astra(kind: str, projection: Mapping[str, Any], flat: bool) -> Geometry | VolumeGeometry:
    columns, rows = int(projection["DetectorCount" if flat else "DetectorColCount"]), 1
    if kind.endswith("_vec"):
        table, is_cone = np.asarray(projection["Vectors"], dtype=float), kind in ("cone_vec", "fanflat_vec")
        if flat:
            return _flat(_lifted(table.reshape(-1, 3, 2)), columns, is_cone=is_cone)
        free = FreeBeam(table=table, rows=int(projection["DetectorRowCount"]), columns=columns, is_cone=is_cone)
        return circular(free) or free
    rows, pitches = (1, ("DetectorWidth",) * 2) if flat else (projection["DetectorRowCount"], _SPACINGS)
    shared: dict[str, Any] = {
        "angles": projection["ProjectionAngles"],
        "rows": int(rows),
        "columns": columns,
        "pixel": projection[pitches[0]],
        "row_pixel": projection[pitches[1]],
    }
    if kind.startswith("parallel"):
        found: ConeBeam | Parallel3D = Parallel3D(**shared)
    else:
        source, detector = projection["DistanceOriginSource"], projection["DistanceOriginDetector"]
        found = ConeBeam(**shared, source_to_axis=source, source_to_detector=source + detector)
    return found.plane if flat else found


def to_tomosipo(grid: VolumeGrid, geometry: VolumeGeometry) -> tuple[Any, Any]:
    """A tomosipo volume and projection geometry in vectors.

    Raises
    ------
    BackendError
        If tomosipo is not installed.
    """
    ts = tomosipo()
    _require_axes(grid, geometry)
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


def to_odl(geometry: Geometry | VolumeGeometry) -> Any:
    """ODL's geometry of a circular scan or of a slice: the detector may be turned, the axis lean, and the source rise.

    ODL 1.0's own projectors of parallel slices on a CPU leave the detector's offset out, and say nothing: use
    `ctuq.tomo.rays.interop.as_odl_operator` there.

    Raises
    ------
    GeometryError
        If the angles do not increase, or free vectors are neither a circular scan with an upright detector nor one that rises
        with its source.
    """
    import odl

    tomo, (told, at, heights) = odl_tomo(), _lowered(geometry)
    if (np.diff(at) <= 0).any():
        raise GeometryError("ODL takes angles that increase; sort the views first. A helix's may be half a turn apart at most.")
    angles = odl.nonuniform_partition(at) if len(at) > 1 else odl.uniform_partition(at[0] - 1e-3, at[0] + 1e-3, 1)
    area, fan = None if isinstance(told, Beam) else told, hasattr(told, "source_to_axis")
    turned = None if area is None or area.upright else area
    # Of parallel rays the difference of both offsets is all there is. A turned detector is shifted along axes that are not its.
    middle = [told.detector_offset - (0.0 if fan else told.axis_offset)]
    half, sizes = [told.columns * told.pixel / 2], [told.columns]
    if area is not None:
        middle, half = [*middle, area.row_offset], [*half, area.rows * area.row_pitch / 2]
        sizes = [*sizes, area.rows]
    around = np.zeros(len(middle)) if turned is not None else np.array(middle)
    detector, more = odl.uniform_partition(around - half, around + half, sizes), {}
    if turned is not None:
        ray, centre, column, row = np.split(replace(turned, angles=[0.0]).vectors()[0], 4)
        more["det_axes_init"] = [step / np.linalg.norm(step) for step in (column, row)]
        more |= {} if fan else {"det_pos_init": ray + centre}
    if not fan:
        return (tomo.Parallel2dGeometry if area is None else tomo.Parallel3dAxisGeometry)(angles, detector, **more)
    source: Any = told
    more |= {"src_radius": source.source_to_axis, "det_radius": source.source_to_detector - source.source_to_axis}
    # An axis beside the central ray is a source and a detector beside the axis, which ODL counts in opposite senses.
    aside, up = (source.axis_offset - middle[0], middle[1]) if turned is not None else (source.axis_offset, 0.0)
    axes = 2 if area is None else 3
    shifts = {"src": _Aside(-source.axis_offset, heights, at, axes), "det": _Aside(aside, heights + up, at, axes)}
    more |= {f"{name}_shift_func": shift for name, shift in shifts.items() if shift.by or shift.heights.any()}
    return (tomo.FanBeamGeometry if area is None else tomo.ConeBeamGeometry)(angles, detector, **more)


def _lowered(geometry: Geometry | VolumeGeometry) -> tuple[Any, NDArray[np.float64], NDArray[np.float64]]:
    """A circular scan, its angles, all turns counted, and by how many mm source and detector are raised in each view."""
    if not isinstance(geometry, FreeBeam):
        return geometry, geometry.angles, np.zeros(len(geometry.angles))
    table = geometry.table.copy()
    heights = table[:, 2].copy() if geometry.is_cone else np.zeros(len(table))
    table[:, [2, 5]] -= heights[:, None]
    found = circular(replace(geometry, table=table))
    if found is None:
        raise GeometryError(
            "Of free vectors ODL is handed circular scans with an upright detector, also if source and detector rise; these "
            "are none."
        )
    return found, np.unwrap(found.angles), heights


@dataclass(frozen=True, eq=False)
class _Aside:
    """The same shift along the tangent in every view, and heights of their own between those of the views."""

    by: float
    heights: NDArray[np.float64]
    at: NDArray[np.float64]
    axes: int

    def __call__(self, angles: Any) -> NDArray[np.float64]:
        angles = np.atleast_1d(angles)
        found = np.zeros((len(angles), self.axes))
        found[:, 1] = self.by
        if self.axes == 3:
            found[:, 2] = np.interp(angles, self.at, self.heights)
        return found


def from_odl(geometry: Any) -> Geometry | VolumeGeometry:
    """Our geometry of any of ODL's with a flat detector, helices too, lengths taken as mm.

    Raises
    ------
    GeometryError
        If the detector is curved or its pixels are of several sizes, the source turns about more than one axis, or a slice's
        scan is not circular.
    """
    partition, kind = geometry.det_partition, type(geometry.detector).__name__
    if not kind.startswith("Flat") or not partition.is_uniform or geometry.motion_partition.ndim != 1:
        raise GeometryError(
            f"Only flat detectors of equal pixels that turn about one axis are read; this one is {kind} and turns by "
            f"{geometry.motion_partition.ndim} angles."
        )
    angles, flat = np.asarray(geometry.angles, dtype=float), partition.ndim == 1
    cells, middle = partition.cell_sides, (np.asarray(partition.min_pt) + np.asarray(partition.max_pt)) / 2
    is_cone = hasattr(geometry, "src_position")
    table = []
    for angle in angles:
        found = [geometry.det_axis(angle)] if flat else geometry.det_axes(angle)
        axes = [np.asarray(axis, dtype=float) for axis in found]
        centre = geometry.det_refpoint(angle) + sum(at * axis for at, axis in zip(middle, axes, strict=True))
        first = geometry.src_position(angle) if is_cone else geometry.det_to_src(angle, middle[0] if flat else middle)
        table.append([first, centre, *(cell * axis for cell, axis in zip(cells, axes, strict=True))])
    if flat:
        return _flat(_lifted(np.array(table, dtype=float)), partition.shape[0], is_cone=is_cone)
    columns, rows = partition.shape
    free = FreeBeam(table=np.array(table, dtype=float).reshape(-1, 12), rows=rows, columns=columns, is_cone=is_cone)
    return circular(free) or free


def _lifted(parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors of a slice, (view, part, 2), as those of a detector with one row: (view, 12)."""
    table = np.zeros((len(parts), 4, 3))
    table[:, :3, :2], table[:, 3, 2] = parts, np.linalg.norm(parts[:, 2], axis=1)
    return table.reshape(-1, 12)


def _flat(table: NDArray[np.float64], columns: int, *, is_cone: bool) -> Geometry:
    """The fan or parallel beam of such vectors."""
    found = circular(FreeBeam(table=table, rows=1, columns=columns, is_cone=is_cone))
    if found is None:
        raise GeometryError(
            "The slice's vectors are no circular scan about the origin with columns along the turn; give a volume's vectors."
        )
    return found.plane


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


def odl_tomo() -> ModuleType:
    """ODL's geometries and projectors. ODL 1.0 asks for numpy 2.3 and has them in another place than ODL 0.8."""
    try:
        from odl.applications import tomo  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        from odl import tomo  # pyright: ignore[reportAttributeAccessIssue]
    return tomo


def _bounds(grid: VolumeGrid) -> tuple[NDArray, NDArray]:
    half = np.array(grid.shape[::-1]) * grid.voxel / 2
    return np.array(grid.centre) - half, np.array(grid.centre) + half


def _grid(shape: tuple[int, ...], low: NDArray, high: NDArray) -> VolumeGrid:
    voxels = (high - low) / np.array(shape[::-1])
    if np.ptp(voxels) > _TOLERANCE * voxels[0]:
        raise GeometryError(
            f"The voxels must be cubes, not {' by '.join(f'{side:g}' for side in voxels)}; resample the volume."
        )
    return VolumeGrid(shape, float(voxels[0]), tuple((low + high) / 2))


def _require_axes(grid: VolumeGrid, geometry: Geometry | VolumeGeometry) -> None:
    axes = 2 if isinstance(geometry, Beam) else 3
    if len(grid.shape) != axes:
        raise GeometryError(f"A {type(geometry).__name__} is of {axes} axes, and the grid has {len(grid.shape)}.")
