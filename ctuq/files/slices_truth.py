"""Known slices of a stack: its reconstruction is scored against them, and never made from them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import GeometryError, InputError
from ctuq.files.volume_truth import KnownVolume, few_views, fitted_gain, judged_volume, known_volume, lifted_mask, told_width
from ctuq.tomo.field import choose_grid
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.entries import build_matrix
from ctuq.tomo.rays.stack import slice_of
from ctuq.tomo.slices import row_beam, row_of_stack, slice_pitch, stack_grid
from ctuq.tomo.space import FreeBeam
from ctuq.tomo.volume_scan import VolumeScan

_ALIKE = 0.01


def with_slices_truth(scan: VolumeScan, path: Path, *, rows: range, of: int) -> VolumeScan:
    """The scan of a stack with a known slice for each of its rows, on whose plane it is reconstructed then.

    Parameters
    ----------
    scan : VolumeScan
        Of the chosen rows.
    path : Path
        A file as `ctuq.files.volume_truth.with_volume_truth` takes it, with a slice for every row of the scan's file or for
        every chosen one, the lowest first.
    rows : range
        Which rows were chosen.
    of : int
        How many the file has.

    Raises
    ------
    GeometryError
        If the rows are no slices.
    InputError, ResourceError
        If the slices are not of these rows, or as `with_volume_truth`.
    """
    geometry = scan.geometry
    if isinstance(geometry, FreeBeam):
        raise GeometryError("The scan's vectors are free, so its rows are no slices; reconstruct it with --volume.")
    known = known_volume(path)
    volume = _of_rows(known, rows, of, slice_pitch(geometry), path)
    told = []
    if known.grid is not None:
        plane = slice_of(known.grid)
    else:
        seen = row_of_stack(scan, geometry.rows // 2)
        plane = choose_grid(seen if scan.grid is None else replace(seen, grid=slice_of(scan.grid)), volume.shape[-1])
        told.append(f"The truth '{path.name}' says nothing of its grid: {told_width(plane)}, as the slices are reconstructed.")
    volume, doubts = judged_volume(volume, *_explained(scan, volume, plane), path)
    origin = scan.provenance.then(f"truth from '{path.name}'")
    return replace(scan, truth=volume, grid=stack_grid(plane, geometry), provenance=origin).warned(*told, *doubts)


def _of_rows(known: KnownVolume, rows: range, of: int, pitch: float, path: Path) -> NDArray[np.float32]:
    """The slices of the chosen rows, which lie this far apart in mm."""
    count, height, width = known.values.shape
    if count not in (of, len(rows)) or height != width:
        raise InputError(
            f"'{path}' has the shape {known.values.shape}, and a known stack has one square slice for each of the {of} rows, "
            f"or of the {len(rows)} that are reconstructed."
        )
    apart = pitch / rows.step if count == of else pitch
    if known.pitch is not None and count > 1 and not np.isclose(known.pitch, apart, rtol=_ALIKE):
        raise InputError(
            f"The slices of '{path}' are {known.pitch:.4g} mm apart, the scan's rows {apart:.4g} mm; give slices of the rows."
        )
    return known.values[list(rows)] if count == of else known.values


def _explained(scan: VolumeScan, volume: NDArray, plane: VolumeGrid) -> tuple[float, float]:
    """As `fitted_gain` says of each slice's projections on its own row. NaN, of slices that failed, explain none."""
    part = few_views(scan)
    matrix = build_matrix(plane, row_beam(part.geometry))
    shown = (matrix @ np.nan_to_num(lifted_mask(volume)).reshape(len(volume), -1).T).T
    return fitted_gain(part, shown.reshape(part.projections.shape))
