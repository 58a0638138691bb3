"""Whether projections are of one object at one place, by their centres of mass: wrong angles and moved samples show there."""

import numpy as np

from ctuq.tomo.geometry import ParallelBeam
from ctuq.tomo.scan import Scan
from ctuq.tomo.shadow import shadow_of

_FEWEST = 6
_OF_WIDTH, _SIGMAS = 0.01, 6.0


def stray_of_centre(scan: Scan) -> float | None:
    """How far the projections' centres of mass stray from what one object's do, rms in columns; None if it means nothing.

    The first moment of a parallel projection over its total is ``x cos t + y sin t`` plus the axis' column (Helgason-Ludwig
    consistency of the first order), whatever the object. It is fitted in these three numbers. Strays below 1 % of the shadow's
    width, or below what noise does, mean nothing, nor does any of a fan beam or where the object leaves the detector.
    """
    if not isinstance(scan.geometry, ParallelBeam) or scan.n_angles < _FEWEST:
        return None
    shadow = shadow_of(scan.projections, scan.weights)
    y = scan.projections.astype(np.float64)
    totals, place = y.sum(axis=1), np.arange(y.shape[1])
    if any(shadow.cut) or totals.min() <= 0.5 * np.median(totals) or y.shape[1] < 8:
        return None
    centres = (y @ place) / totals
    angles = scan.geometry.angles
    basis = np.stack([np.cos(angles), np.sin(angles), np.ones_like(angles)], axis=1)
    stray = centres - basis @ np.linalg.lstsq(basis, centres, rcond=None)[0]
    rms = float(np.sqrt(np.sum(stray**2) / max(1, stray.size - 3)))
    # Noise of the edges, where the object's own structure is not; its lever is the column's distance from the centre.
    air = np.concatenate([y[:, : max(3, shadow.first)], y[:, min(shadow.last + 1, y.shape[1] - 3) :]], axis=1)
    noise = float(np.std(air) * np.linalg.norm(place - place.mean()) / np.median(totals))
    least = max(_OF_WIDTH * (shadow.last - shadow.first + 1), _SIGMAS * noise)
    return rms if rms > least else None
