"""Single rays of corrected scans that no object makes: zingers that came through as line integrals.

Of counts `ctuq.tomo.preprocess.spikes` takes out what is too bright, before anything is made of them. Line integrals have been
corrected by somebody, and a single dark ray may be real: a foil is seen edge-on by one ray of one view. But a foil adds as much
to the sum of that view as to that of any other, and what hit the detector adds to its own alone.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ctuq.scores.gaussian import STD_OF_MAD
from ctuq.tomo.preprocess import alone, filled
from ctuq.tomo.scan import Scan
from ctuq.tomo.shadow import edge_columns, shadow_of

_FEWEST, _FAR, _NEAR, _LEAST = 8, 8.0, 4.0, 2e-3
"""Views that make a law; robust standard deviations of their sums that a ray moves its view by, and to which it comes back
without; the least of these, in parts of the sum."""
_TWICE, _FEW = 2.0, 0.05


def without_stray_rays(scan: Scan) -> Scan:
    """The scan with such rays at weight 0 and interpolated, and told; itself if there are none.

    Taken out are rays that stand alone among their neighbours and are brighter than the open beam, or so dark that their view
    holds more than all of the object that the others see. Where the object reaches beyond the detector nothing says how much
    that is: rays that alone are twice as dark as all others are told, if they are few.

    Parameters
    ----------
    scan : Scan
    """
    counts = np.ones(scan.projections.shape, bool) if scan.weights is None else scan.weights > 0
    if min(scan.projections.shape) < 3 or not counts.any():
        return scan
    y = scan.projections.astype(np.float64)
    bright, dark, least = alone(np.where(counts, y, np.nan))
    wrong = bright & (y < -least)
    if dark.any():
        wrong |= _beyond_the_object(scan, y, counts, dark)
    doubtful = dark & ~wrong & (y > _TWICE * np.percentile(y[counts & ~dark & ~wrong], 99.9))
    told = []
    if wrong.any():
        view, column = np.argwhere(wrong)[0]
        told.append(
            f"Single rays, {int(wrong.sum())} in all and first that of view {view} and column {column}, are brighter than the "
            "open beam or darker than the object that other views see: they count for nothing (weight 0)."
        )
    if 0 < doubtful.sum() <= max(1, _FEW * len(y)):
        view, column = np.argwhere(doubtful)[0]
        told.append(
            f"Single rays, {int(doubtful.sum())} in all and first that of view {view} and column {column}, are far darker than "
            "all others: if no foil is seen edge-on there, give them weight 0."
        )
    if not told:
        return scan
    weights = np.where(wrong, 0, 1.0 if scan.weights is None else scan.weights).astype(np.float32)
    mended = filled(y, wrong | ~counts).astype(np.float32)
    given = replace(scan, projections=np.where(wrong, mended, scan.projections), weights=weights) if wrong.any() else scan
    return given.warned(*told)


def _beyond_the_object(
    scan: Scan, y: NDArray[np.float64], counts: NDArray[np.bool_], dark: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which rays that stand alone make the sum of their view another than that of all others; sums above what air reads."""
    views, none = np.flatnonzero(counts.any(axis=1)), np.zeros(dark.shape, bool)
    shadow = shadow_of(filled(y, dark | ~counts), scan.weights)
    if len(views) < _FEWEST or any(shadow.cut):
        return none
    air = np.ones(y.shape[1], bool)
    air[shadow.first : shadow.last + 1] = False
    if air.sum() < edge_columns(len(air)):
        return none
    without = filled(y, ~counts | dark)
    before, after = (rays.mean(axis=1) - without[:, air].mean(axis=1) for rays in (filled(y, ~counts), without))
    middle = float(np.median(after[views]))
    spread = max(STD_OF_MAD * float(np.median(np.abs(after[views] - middle))), _LEAST * abs(middle))
    false = (before - middle > _FAR * spread) & (np.abs(after - middle) < _NEAR * spread)
    return dark & false[:, None]
