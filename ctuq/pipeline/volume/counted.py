"""A volume's line integrals without weights: how precise each ray is, where a row's noise grows as that of counts does."""

from dataclasses import replace

import numpy as np

from ctuq.pipeline.counted import growth_in
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.pipeline.volume.agreement import row_alone
from ctuq.tomo.count_noise import told_of, variance_of
from ctuq.tomo.volume_scan import VolumeScan

_WINDOW = 5
"""Pixels along rows and columns whose mean says how thick the object is there."""


def weighed_by_counts(run: Run[VolumeOptions], scan: VolumeScan) -> VolumeScan:
    """The scan with weights by the noise that one row shows, and told; itself where that does not grow, or no row is alone.

    Parameters
    ----------
    run : Run
    scan : VolumeScan
        As it is fitted.
    """

    def grown() -> float:
        row = row_alone(scan)
        return 0.0 if row is None else growth_in(row, run.options.size, run.device)

    with run.clock("agreement"):
        growth = float(run.stages.once("noise growth", grown))
    if not growth:
        return scan
    from scipy.ndimage import uniform_filter  # SciPy's parts are imported where they are used.

    weights = np.ones_like(scan.projections) if scan.weights is None else scan.weights.copy()
    for view in range(scan.n_angles):
        weights[:, view] /= variance_of(uniform_filter(scan.projections[:, view], _WINDOW, mode="nearest"), growth)
    told = told_of(scan.projections, growth)
    return replace(scan, weights=weights, provenance=scan.provenance.grown(growth)).warned(told)
