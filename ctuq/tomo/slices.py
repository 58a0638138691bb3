"""Volumes whose detector rows are slices: parallel rays that run square to the axis, and cones that hardly open."""

from dataclasses import replace

import numpy as np

from ctuq.errors import GeometryError, InputError
from ctuq.tomo.geometry import FanBeam, ParallelBeam, VolumeGrid
from ctuq.tomo.scan import Scan
from ctuq.tomo.space import ConeBeam, FreeBeam, Parallel3D, VolumeGeometry
from ctuq.tomo.volume_scan import VolumeScan

_LEAVES = 0.5
"""Of a row's pitch: so far a cone's outermost ray may leave its slice inside the object."""


def row_beam(geometry: VolumeGeometry) -> ParallelBeam | FanBeam:
    """The beam of every row, if each of them sees one slice.

    Raises
    ------
    GeometryError
        If axis or detector lean, or rays of a cone leave their slice by half a row's pitch and more.
    """
    if isinstance(geometry, FreeBeam):
        raise GeometryError("The scan's vectors are free, so its rows are no slices; reconstruct it with --volume.")
    if not geometry.upright:
        raise GeometryError("The axis or the detector leans, so the rows are no slices; reconstruct the scan with --volume.")
    if isinstance(geometry, ConeBeam):
        height = max(abs(h) for h in geometry.heights)
        off = height * geometry.plane.field_of_view / 2 / geometry.source_to_axis
        share = off / (geometry.row_pitch / geometry.plane.magnification)
        if share >= _LEAVES:
            raise GeometryError(
                f"The cone's outermost rays leave their slices by {share:.3g} rows, so its rows are no slices; reconstruct the "
                "scan with --volume, or choose rows near its middle by --slices."
            )
    return geometry.plane


def slice_pitch(geometry: ConeBeam | Parallel3D) -> float:
    """From slice to slice, mm at the axis."""
    return geometry.row_pitch / geometry.plane.magnification


def row_of_stack(scan: VolumeScan, row: int) -> Scan:
    """One row as a scan of its slice; of weights 0 where none of its rays counts.

    Raises
    ------
    InputError
        If none of its rays counts.
    """
    weights = None if scan.weights is None else scan.weights[row]
    if weights is not None and not weights.any():
        raise InputError("None of the slice's rays counts (all are missing or of weight 0).")
    return Scan(scan.projections[row], row_beam(scan.geometry), weights, provenance=scan.provenance)


def of_rows(geometry: ConeBeam | Parallel3D, rows: range) -> ConeBeam | Parallel3D:
    """The geometry of evenly spaced rows, counted from the lowest.

    Raises
    ------
    InputError
        If a row does not exist, or none is chosen.
    """
    if not len(rows) or rows[0] < 0 or rows[-1] >= geometry.rows or rows.step < 1:
        raise InputError(f"Slices {rows.start} to {rows.stop - 1} were asked for; the scan has 0 to {geometry.rows - 1}.")
    return geometry.part(rows)


def chosen_rows(scan: VolumeScan, rows: range) -> VolumeScan:
    """The scan of evenly spaced rows, counted from the lowest.

    Raises
    ------
    InputError
        If a row does not exist, or none is chosen.
    GeometryError
        If vectors are free.
    """
    geometry = scan.geometry
    if isinstance(geometry, FreeBeam):
        raise GeometryError("The scan's vectors are free, so its rows are no slices.")
    fewer = of_rows(geometry, rows)
    part = slice(rows.start, rows[-1] + 1, rows.step)
    truth, grid = scan.truth, scan.grid
    if len(rows) < geometry.rows or rows.step > 1:
        # A truth of all rows is none of some of them; its plane stays the one to reconstruct on.
        same = truth is not None and grid is not None and grid.shape[0] == geometry.rows
        truth = truth[part] if same and truth is not None else None
        grid = None if grid is None else VolumeGrid((len(rows), *grid.shape[1:]), grid.voxel, grid.centre)
    return replace(
        scan,
        projections=scan.projections[part],
        weights=None if scan.weights is None else scan.weights[part],
        geometry=fewer,
        truth=truth,
        grid=grid,
        provenance=scan.provenance.of_slices(rows, geometry.rows).then(
            f"slices {rows[0]} to {rows[-1]} of {geometry.rows} chosen, step {rows.step}"
        ),
    )


def stack_grid(plane: VolumeGrid, geometry: ConeBeam | Parallel3D) -> VolumeGrid:
    """The grid of all slices, of the plane's voxels; slices lie `slice_pitch` apart."""
    z = float(np.mean(geometry.heights))
    return VolumeGrid((geometry.rows, *plane.shape), plane.voxel, (*plane.centre[:2], z))
