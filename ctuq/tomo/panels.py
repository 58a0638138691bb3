"""A part of the detector that counts otherwise than in its flats, in all views: two panels, one of which drifted."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ctuq.scores.gaussian import STD_OF_MAD
from ctuq.tomo.scan import Scan
from ctuq.tomo.shadow import edge_columns, noise_of

_FEWEST, _COLUMNS = 8, 16
_SIGMAS, _STEADY, _OF_TOP = 8.0, 0.3, 0.01
_IS_STEP, _ELSEWHERE = (0.6, 1.4), 3.0
"""Of the difference in air, what the mean projection jumps by where the panel begins, and over its other jumps.

A panel of 36 of 72 columns that counts 0.9 of its flats had the axis searched to 29 columns beside its place, and no object's
pixel within its 95 % interval; without the step the interval holds as many as without a panel.
"""


def with_even_panels(scan: Scan) -> Scan:
    """The scan with what a panel reads too much taken off, where air shows it at one edge of the detector and a jump where.

    A panel's share of the open beam that its flats do not know is one number in all its rays. The object does not make a jump
    from one column to the next in the mean of all views at just that height, with air before and behind.
    """
    if scan.n_angles < _FEWEST or scan.geometry.columns < _COLUMNS:
        return scan
    y = np.where(scan.weights > 0, scan.projections, np.nan) if scan.weights is not None else scan.projections
    if not np.isfinite(y).any(axis=0).all():
        return scan
    left, right = (_edge(y, slice(0, None)), _edge(y, slice(None, None, -1)))
    apart = right - left
    step, spread = float(np.nanmedian(apart)), _spread(apart)
    least = max(
        _OF_TOP * float(np.nanpercentile(y, 99)), _SIGMAS * spread / np.sqrt(len(apart)), noise_of(scan.projections) / 4
    )
    if abs(step) < least or spread > _STEADY * abs(step) + 3 * noise_of(scan.projections) / np.sqrt(edge_columns(y.shape[1])):
        return scan
    first = _jump(np.nanmean(y, axis=0), step)
    if first is None:
        return scan
    columns = np.arange(y.shape[1])
    # Air reads next to nothing on the sound side.
    wrong, by = (columns >= first, step) if abs(np.nanmedian(left)) < abs(np.nanmedian(right)) else (columns < first, -step)
    number = np.flatnonzero(wrong)
    return replace(scan, projections=(scan.projections - by * wrong).astype(np.float32)).warned(
        f"Columns {number[0]} to {number[-1]} read {by:.3g} more than the others in every view, in air too, as a panel does "
        "that counts otherwise than in its flats: that is taken off them."
    )


def _edge(y: NDArray, order: slice) -> NDArray[np.float64]:
    return np.nanmean(y[:, order][:, : edge_columns(y.shape[1])], axis=1)


def _spread(values: NDArray[np.float64]) -> float:
    return STD_OF_MAD * float(np.nanmedian(np.abs(values - np.nanmedian(values))))


def _jump(mean: NDArray[np.float64], step: float) -> int | None:
    """The column at which a mean projection jumps by a step beside its slope; None if it does nowhere, or also elsewhere."""
    slopes = np.diff(mean)
    beside = np.sign(step) * (slopes[1:-1] - (slopes[:-2] + slopes[2:]) / 2)
    at = int(beside.argmax())
    others = np.delete(np.abs(beside), range(max(0, at - 1), min(len(beside), at + 2)))
    low, high = (share * abs(step) for share in _IS_STEP)
    return at + 2 if low < beside[at] < high and beside[at] > _ELSEWHERE * others.max() else None
