"""A scan from memory, checked as the readers check files: dead and hot columns, and views that no object makes.

Whoever makes a `Scan` of arrays has no reader that looks at them. A dead column near the middle took 28 dB from the image of a
simulated scan, and two wrong views 33, with error bars that held 79 and 76 % of the object.
"""

from dataclasses import replace

import numpy as np

from ctuq.tomo.odd_views import odd_views
from ctuq.tomo.preprocess import repaired, suspicion
from ctuq.tomo.scan import Scan


def as_given(scan: Scan) -> Scan:
    """The scan with rays that cannot be right at weight 0, and told; itself where there are none, or a reader has looked.

    Parameters
    ----------
    scan : Scan
    """
    if scan.provenance.sha256 or not (np.ones(1) if scan.weights is None else scan.weights).any():
        return scan
    scan = _without_bad_columns(scan)
    odd = odd_views(scan)
    if odd is None:
        return scan
    weights = np.ones_like(scan.projections) if scan.weights is None else scan.weights.copy()
    weights[odd.views] = 0
    return (replace(scan, weights=weights) if odd.wrong else scan).warned(odd.told)


def _without_bad_columns(scan: Scan) -> Scan:
    found = repaired(scan.projections, scan.weights, np.ones(scan.geometry.columns, bool))
    told = () if not found.suspects else (suspicion(found.suspects),)
    if not found.bad:
        return scan.warned(*told) if told else scan
    weights = (found.weights * found.unit).astype(np.float32)
    columns = ", ".join(map(str, np.flatnonzero((weights == 0).all(axis=0)).tolist()))
    return replace(scan, projections=found.projections.astype(np.float32), weights=weights).warned(
        f"Column {columns} of the detector never changes, as a dead one: its rays count for nothing (weight 0).", *told
    )
