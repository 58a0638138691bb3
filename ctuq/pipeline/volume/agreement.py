"""How far the views of a volume's scan lie from the slice that one of their rows sees alone, or from a coarse volume."""

import numpy as np
import torch

from ctuq.pipeline.image.agreement import Agreement, agreement_of
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.pipeline.views import match_detector, rays_inside
from ctuq.pipeline.volume.placed import scan_of_middle_row
from ctuq.recon.dip import Data
from ctuq.stages import Stages
from ctuq.tomo import ray_transform
from ctuq.tomo.footprint import pitches
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.stack import slice_of
from ctuq.tomo.rays.volume import volume_transform
from ctuq.tomo.scan import Scan
from ctuq.tomo.slices import row_of_stack
from ctuq.tomo.space import FreeBeam
from ctuq.tomo.volume_scan import VolumeScan, averaged_pixels

_SHOWS = 0.1
"""Of the largest row's rms: one that shows less is air."""
_COARSE = 16
"""Voxels across a volume that views are compared with: of balls by a helix and by laminography in 24 views, sound ones lay at
most 1.2 times as far from it as the median view, one moved by two columns 9.8 and 19 times."""


def kept_agreement(run: Run[VolumeOptions], scan: VolumeScan, grid: VolumeGrid) -> Agreement:
    """Of all views with the slice of one row, as what is wrong with a view is wrong in all rows.

    Of a cone it is the row in the source's plane; of parallel rays that which shows most. Where no row sees a slice alone, or
    what it sees does not count, it is a coarse volume by all rows.
    """

    def made() -> np.ndarray:
        row = row_alone(scan)
        data = _coarse(run, scan, grid) if row is None else _slice(run, row, slice_of(grid))
        return agreement_of(data, judged=run.options.method != "dip").times

    with run.clock("agreement"):
        return Agreement(run.stages.once("agreement", made), scan.geometry.angles)


def _slice(run: Run[VolumeOptions], row: Scan, plane: VolumeGrid) -> Data:
    part = match_detector(row, plane)
    A = ray_transform(plane, part.geometry, device=run.device, backend="matrix")
    return rays_inside(A, part, np.zeros(0, np.int64), device=run.device, stages=Stages())


def _coarse(run: Run[VolumeOptions], scan: VolumeScan, grid: VolumeGrid) -> Data:
    """All rays, averaged over as many pixels of the detector as a coarse voxel is wide."""
    coarse, geometry = grid.resized(min(_COARSE, grid.shape[-1])), scan.geometry
    rise, pitch = pitches(geometry)
    rows = min(geometry.rows, max(1, int(coarse.voxel / rise + 1e-6)))
    columns = min(geometry.columns, max(1, int(coarse.voxel / pitch + 1e-6)))
    table = geometry.vectors()
    # Pixels that are left over at the end fall off.
    table[:, 3:6] -= geometry.columns % columns / 2 * table[:, 6:9] + geometry.rows % rows / 2 * table[:, 9:12]
    table[:, 6:] *= np.repeat([columns, rows], 3)
    counts = {"rows": geometry.rows // rows, "columns": geometry.columns // columns}
    A = volume_transform(coarse, FreeBeam(table=table, is_cone=geometry.diverging, **counts), device=run.device)
    y, weights = averaged_pixels(scan.projections, scan.weights, (rows, columns))
    return Data(A, torch.tensor(y, device=run.device), torch.tensor(weights, device=run.device))


def row_alone(scan: VolumeScan) -> Scan | None:
    """The row, as a scan of its slice; None where there is none."""
    geometry = scan.geometry
    if isinstance(geometry, FreeBeam) or not geometry.upright:
        return None
    counts = 1.0 if scan.weights is None else scan.weights > 0
    sizes = np.sqrt((counts * np.square(scan.projections, dtype=np.float64)).mean(axis=(1, 2)))
    if sizes.max() == 0:
        return None
    if not geometry.diverging:
        return row_of_stack(scan, int(sizes.argmax()))
    if abs(geometry.row_offset) > geometry.rows / 2 * geometry.row_pitch:
        return None
    middle = scan_of_middle_row(scan)
    if scan.weights is not None and middle.weights is None:
        return None  # No ray of it counts: what it holds is none of the object.
    shown = np.sqrt(np.mean(np.square(middle.projections, dtype=np.float64)))
    return middle if shown > _SHOWS * sizes.max() else None
