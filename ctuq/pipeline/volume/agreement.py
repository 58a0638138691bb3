"""How far the views of a volume's scan lie from the slices that some of their rows see alone."""

import numpy as np

from ctuq.pipeline.image.agreement import Agreement, agreement_of
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.pipeline.views import match_detector, rays_inside
from ctuq.pipeline.volume.doubts import middle_row
from ctuq.stages import Stages
from ctuq.tomo import ray_transform
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.stack import slice_of
from ctuq.tomo.scan import Scan
from ctuq.tomo.slices import row_of_stack
from ctuq.tomo.space import FreeBeam
from ctuq.tomo.volume_scan import VolumeScan

_SHOWS = 0.1
"""Of the largest row's rms: one that shows less is air."""


def kept_agreement(run: Run[VolumeOptions], scan: VolumeScan, grid: VolumeGrid) -> Agreement | None:
    """Of all views with the slice of one row, as what is wrong with a view is wrong in all rows; None where no row sees one.

    Of a cone it is the row in the source's plane; of parallel rays that which shows most.
    """
    row = _row(scan)
    if row is None:
        return None
    plane = slice_of(grid)
    part = match_detector(row, plane)

    def made() -> np.ndarray:
        A = ray_transform(plane, part.geometry, device=run.device, backend="matrix")
        rays = rays_inside(A, part, np.zeros(0, np.int64), device=run.device, stages=Stages())
        return agreement_of(rays, judged=run.options.method != "dip").times

    with run.clock("agreement"):
        return Agreement(run.stages.once("agreement", made), part.geometry.angles)


def _row(scan: VolumeScan) -> Scan | None:
    """The row, as a scan of its slice."""
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
    middle = middle_row(scan)
    if scan.weights is not None and middle.weights is None:
        return None  # No ray of it counts: what it holds is none of the object.
    shown = np.sqrt(np.mean(np.square(middle.projections, dtype=np.float64)))
    return middle if shown > _SHOWS * sizes.max() else None
