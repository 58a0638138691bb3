"""A scan from memory, checked as the readers check files: dead and hot columns, and views that no object makes.

Whoever makes a `Scan` of arrays has no reader that looks at them. A dead column near the middle took 28 dB from the image of a
simulated scan, and two wrong views 33, with error bars that held 79 and 76 % of the object.
"""

from dataclasses import replace

import numpy as np

from ctuq.tomo.axis import axis_column
from ctuq.tomo.odd_views import odd_views
from ctuq.tomo.preprocess import repaired, suspicion, where_an_object_can_stay
from ctuq.tomo.scan import Scan, require_scan
from ctuq.tomo.still_columns import without_still_columns
from ctuq.tomo.stray_rays import without_stray_rays


def as_given(scan: Scan) -> Scan:
    """The scan with rays that cannot be right at weight 0, and told; itself where there are none, or a reader has looked.

    Parameters
    ----------
    scan : Scan
    """
    require_scan(scan, Scan)
    if scan.provenance.sha256 or not (np.ones(1) if scan.weights is None else scan.weights).any():
        return scan
    scan = without_stray_rays(without_still_columns(_without_bad_columns(scan)))
    odd = odd_views(scan)
    if odd is None:
        return scan
    weights = np.ones_like(scan.projections) if scan.weights is None else scan.weights.copy()
    weights[odd.views] = 0
    return (replace(scan, weights=weights) if odd.wrong else odd.corrected(scan)).warned(odd.told)


def _without_bad_columns(scan: Scan) -> Scan:
    axis = axis_column(scan.geometry)
    stay = where_an_object_can_stay(scan.geometry.angles, scan.geometry.columns, axis)
    found = repaired(scan.projections, scan.weights, stay, axis)
    told = () if not found.suspects else (suspicion(found.suspects),)
    if not found.bad:
        return scan.warned(*told) if told else scan
    weights = (found.weights * found.unit).astype(np.float32)
    new = (weights == 0).all(axis=0) & (True if scan.weights is None else (scan.weights > 0).any(axis=0))
    columns, one = ", ".join(map(str, np.flatnonzero(new).tolist())), new.sum() == 1
    verbs = "never changes, or stands" if one else "never change, or stand"
    which = f"{'Column' if one else 'Columns'} {columns} of the detector {verbs}"
    return replace(scan, projections=found.projections.astype(np.float32), weights=weights).warned(
        f"{which} out in all views where no object does: {'its' if one else 'their'} rays count for nothing (weight 0).",
        *told,
    )
