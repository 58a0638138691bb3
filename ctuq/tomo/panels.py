"""A part of the detector that counts otherwise than in its flats, in all views: two panels, one of which drifted."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ctuq.scores.gaussian import robust_std
from ctuq.tomo.scan import Scan
from ctuq.tomo.shadow import edge_columns, edge_means, noise_of

_FEWEST, _COLUMNS = 8, 16
_SIGMAS, _STEADY, _OF_TOP = 8.0, 0.3, 0.01
_AS_HIGH, _PART = 0.15, 8
"""By how much a panel's jump may differ from its step in air, over that, and the part of the detector that a panel is at least.

A panel of 36 of 72 columns that counts 0.9 or 0.95 of its flats had the axis searched up to 29 columns beside its place, and no
pixel of the object within its 95 % interval. Its jump is 0.93 to 1.06 of the step in air, those of outlines are other parts.
"""


def with_even_panels(scan: Scan) -> Scan:
    """The scan with what a panel reads too much taken off: air shows how much, and a jump where it begins.

    A panel's share of the open beam that its flats do not know is one number in all its rays. The object does not make a jump
    from one column to the next in the mean of all views at just that height, with air before and behind.
    """
    if scan.n_angles < _FEWEST or scan.geometry.columns < _COLUMNS:
        return scan
    y = scan.projections if scan.weights is None else np.where(scan.weights > 0, scan.projections, np.nan)
    if not np.isfinite(y).any(axis=0).all():
        return scan
    left, right = edge_means(y)
    # A view without a ray that counts at an edge tells no air there.
    seen = np.isfinite(left + right)
    left, right = left[seen], right[seen]
    if len(left) < _FEWEST:
        return scan
    step, spread = float(np.median(right - left)), robust_std(right - left)
    noise = noise_of(scan.projections) / np.sqrt(edge_columns(y.shape[1]))
    least = max(_OF_TOP * float(np.nanpercentile(y, 99)), _SIGMAS * max(spread, noise) / np.sqrt(len(left)))
    # What reaches beyond the detector is not the same in all views.
    if abs(step) < least or spread > _STEADY * abs(step) + 3 * noise:
        return scan
    first = _jump(y, step)
    if first is None:
        return scan
    columns = np.arange(y.shape[1])
    # Air reads next to nothing on the sound side.
    wrong, by = (columns >= first, step) if abs(np.median(left)) < abs(np.median(right)) else (columns < first, -step)
    number = np.flatnonzero(wrong)
    return replace(scan, projections=(scan.projections - by * wrong).astype(np.float32)).warned(
        f"Columns {number[0]} to {number[-1]} read {by:.3g} more than the others in every view, in air too, as a panel does "
        "that counts otherwise than in its flats: that is taken off them."
    )


def _jump(y: NDArray[np.floating], step: float) -> int | None:
    """The one column at which most views jump by a step beside their slope; None if they do at none or at several."""
    slopes = np.diff(y, axis=1)
    jumps = np.nanmedian(slopes[:, 1:-1] - (slopes[:, :-2] + slopes[:, 2:]) / 2, axis=0)
    found = np.flatnonzero(np.abs(jumps / step - 1) < _AS_HIGH)
    # Nearer to an edge it is the edge of the beam, which stands still (`ctuq.tomo.still_columns`).
    found = found[(found + 2 >= y.shape[1] / _PART) & (found + 2 <= y.shape[1] * (1 - 1 / _PART))]
    return int(found[0]) + 2 if len(found) == 1 else None
