"""Outer columns that no object which turns can darken: the edge of the beam, a slit, something that stands in it.

What turns with the sample and reaches as far from the axis as such a column passes, within half a turn, over every column that
is nearer to the axis. If some of these see nothing but air in all views, nothing is out there. Without flats that were taken
through the same slit these columns read as the darkest of all: a real scan of neutrons was taken for an object that reaches
beyond the detector, and its axis was not found.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ctuq.tomo.geometry import Geometry
from ctuq.tomo.scan import Scan
from ctuq.tomo.shadow import CUT, air_below, edge_columns

_FEWEST, _COLUMNS = 8, 32
_GAP = 0.03
_ALIKE, _DARK = 0.2, 0.2
_FEW = 0.01
_HALF = 0.9 * np.pi


def without_still_columns(scan: Scan) -> Scan:
    """The scan with such columns at weight 0 and as air, and told; itself if there are none.

    Parameters
    ----------
    scan : Scan
    """
    counts = np.ones(scan.projections.shape, bool) if scan.weights is None else scan.weights > 0
    useful = np.asarray(counts.any(axis=1))
    if useful.sum() < _FEWEST or scan.geometry.columns < _COLUMNS or _span(scan.geometry, useful) < _HALF:
        return scan
    y, counts = scan.projections[useful].astype(np.float64), counts[useful]
    ends = [_still(y[:, way], counts[:, way]) for way in (slice(None), slice(None, None, -1))]
    n = scan.geometry.columns
    still = np.zeros(n, bool)
    still[: ends[0]] = still[n - ends[1] :] = True
    if not still.any():
        return scan
    sides = [f"{first} to {last}" for first, last in ((0, ends[0] - 1), (n - ends[1], n - 1)) if first <= last]
    most = float(np.median(np.where(counts, y, 0)[:, still], axis=0).max())
    weights = np.ones(scan.projections.shape, np.float32) if scan.weights is None else scan.weights.copy()
    projections = scan.projections.copy()
    weights[:, still] = projections[:, still] = 0
    return replace(scan, projections=projections, weights=weights).warned(
        f"Columns {' and '.join(sides)} of the detector read up to {most:.2g} in all views alike, and columns beside them see "
        "only air: nothing that turns is there, but the edge of the beam or something that stands still. They count for "
        "nothing (weight 0)."
    )


def _span(geometry: Geometry, useful: NDArray[np.bool_]) -> float:
    """How far the views turn, as an angle that a step would complete."""
    turned = np.unique(geometry.angles[useful])
    return float(np.ptp(turned)) * len(turned) / max(len(turned) - 1, 1)


def _still(y: NDArray[np.float64], counts: NDArray[np.bool_]) -> int:
    """How many of the first columns are dark in all views alike, up to columns that see air in all views; 0 if none do."""
    n, seen, known = y.shape[1], np.asarray(counts.any(axis=0)), np.where(counts, y, 0)
    low, middle, high = np.nanquantile(np.where(counts | ~seen, y, np.nan), (0.1, 0.5, 0.9), axis=0)
    turning = np.asarray(seen & (high - low > 2 * air_below(known, 1, 0)))
    if not turning.any():
        return 0
    # Air by what turns, not by what stands still, which may be darker by far.
    top = float(np.percentile(known[:, turning], 99))
    least = max(CUT * top, air_below(known, 1, 0))
    air = np.mean(known > least, axis=0) <= _FEW
    width = max(edge_columns(n) + 1, int(np.ceil(_GAP * n)))
    runs = np.convolve(air, np.ones(width), mode="valid") == width
    first = int(runs.argmax()) if runs.any() else 0
    if first < 1 or not turning[first + width :].any():
        return 0
    dark, alike = middle[:first][seen[:first]], (high - low)[:first][seen[:first]]
    if not len(dark) or dark[: edge_columns(n)].min() < max(_DARK * top, least):
        return 0
    # Towards the air the edge is blurred; what varies there from view to view is an object.
    return first if (alike <= np.maximum(_ALIKE * dark.max(), 2 * least)).all() else 0
