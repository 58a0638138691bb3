"""Air that a view's outer columns read, where somebody says that they see nothing else, or both read the same."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ctuq.tomo.scan import Scan
from ctuq.tomo.shadow import edge_columns, edge_means, noise_of

_FEWEST, _PART = 3, 16
_APART = 0.08
_OFF, _ALIKE, _SIGMAS = 0.01, 0.3, 4.0


def air_of_views(projections: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Mean line integral of each view's first and last sixteenth of the columns, and what is to be told of it.

    Parameters
    ----------
    projections, weights : array, shape (angle, column)
        Rays of weight 0 count for nothing; a view without others there has the mean of all.
    """
    n = min(max(_FEWEST, projections.shape[1] // _PART), max(1, projections.shape[1] // 2))
    ends = [_means(projections[:, end], weights[:, end] > 0) for end in (slice(n), slice(-n, None))]
    levels = _means(np.c_[projections[:, :n], projections[:, -n:]], np.c_[weights[:, :n], weights[:, -n:]] > 0)
    top = float(np.percentile(projections - levels[:, None], 99))
    told = [
        f"Air is taken from the {n} first and the {n} last columns of each view: {levels.min():.3g} to {levels.max():.3g} was "
        "taken off its rays."
    ]
    apart = float(np.quantile(np.abs(ends[0] - ends[1]), 0.95))  # noise may be as large in a few of many views
    if apart > _APART * top:
        told.append(
            f"In some views the first and the last columns differ by {apart:.2g} (of at most {top:.2g}), so one of them sees "
            "more than air: leave out 'air: edges' if that is the object."
        )
    return levels, tuple(told)


def levelled(scan: Scan) -> Scan:
    """The scan with what both edges of each view read taken off it, where that is alike and not nothing; else the same scan.

    A beam that drifts, and flats of another exposure, leave that in all rays of a view.
    """
    y, (left, right) = scan.projections, edge_means(scan.projections)
    levels, noise = (left + right) / 2, noise_of(y) / np.sqrt(edge_columns(y.shape[1]))
    off = float(np.sqrt(np.mean(np.square(levels))))
    if off < max(_OFF * float(np.percentile(y, 99)), _SIGMAS * noise):
        return scan
    if float(np.median(np.abs(left - right))) > _ALIKE * off + _SIGMAS * noise:
        return scan
    return replace(scan, projections=(y - levels[:, None]).astype(np.float32))


def _means(rays: NDArray[np.float64], counts: NDArray[np.bool_]) -> NDArray[np.float64]:
    many = counts.sum(axis=1)
    whole = float(rays[counts].mean()) if counts.any() else 0.0
    return np.where(many > 0, np.where(counts, rays, 0).sum(axis=1) / np.maximum(many, 1), whole)
