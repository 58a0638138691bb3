"""What a sinogram shows of the object's outline: which views see air at the detector's edges, and which columns see more."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

_SHARE, _SIGMAS = 0.03, 4.0
_EDGE = 3
# Fourth differences are blind to whatever is smooth: of white noise their standard deviation is the square root of 70.
_STENCIL, _STENCIL_SIZE, _NORMAL_QUARTILE = (1.0, -4.0, 6.0, -4.0, 1.0), np.sqrt(70.0), 0.6745


@dataclass(frozen=True, eq=False)
class Shadow:
    """Where a sinogram falls to air.

    Parameters
    ----------
    air : array of bool, shape (angle, 2)
        Whether each view sees nothing but air at its first and at its last columns.
    levels : tuple of float
        Mean line integral at the first and at the last columns, over the views.
    top : float
        The largest line integrals (99th percentile).
    first, last : int
        Columns between which any view sees more than air; the whole detector if there is nothing else.
    """

    air: NDArray[np.bool_]
    levels: tuple[float, float]
    top: float
    first: int
    last: int

    @property
    def cut(self) -> tuple[bool, bool]:
        """Whether the object goes on beyond the first and beyond the last column, in any view."""
        return bool((~self.air[:, 0]).any()), bool((~self.air[:, 1]).any())


def edge_columns(columns: int) -> int:
    """How many columns stand for a detector's edge."""
    return max(1, min(_EDGE, columns // 16))


def shadow_of(projections: NDArray, weights: NDArray | None = None) -> Shadow:
    """The outline that a sinogram shows.

    Air is less than 3 % of the largest line integrals, or than four standard deviations of the noise.

    Parameters
    ----------
    projections : array, shape (angle, column)
    weights : array, same shape, optional
        Rays of weight 0 show nothing.
    """
    y = np.asarray(projections, np.float64)
    if weights is not None:
        y = np.where(np.asarray(weights) > 0, y, 0)
    views, columns = y.shape
    n, noise = edge_columns(columns), _noise(y)
    top = max(float(np.percentile(y, 99)), 0.0)
    edges = np.stack([y[:, :n].mean(axis=1), y[:, columns - n :].mean(axis=1)], axis=1)
    levels = edges.mean(axis=0)
    # The mean over all views is known far better than each: noise hides no object that is cut off in most of them.
    cut = levels > max(_SHARE * top, _SIGMAS * noise / np.sqrt(n * views))
    air = (edges <= max(_SHARE * top, _SIGMAS * noise / np.sqrt(n))) & ~cut
    # Smoothing over two columns leaves a quarter of the noise's standard deviation or less.
    seen = np.flatnonzero((gaussian_filter1d(y, 2.0, axis=1, mode="nearest") > max(_SHARE * top, 2 * noise)).any(axis=0))
    first, last = (int(seen[0]), int(seen[-1])) if len(seen) else (0, columns - 1)
    return Shadow(air, (float(levels[0]), float(levels[1])), top, first, last)


def _noise(y: NDArray[np.float64]) -> float:
    if y.shape[1] < len(_STENCIL):
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(y, len(_STENCIL), axis=1)
    return float(np.median(np.abs(windows @ np.array(_STENCIL))) / _STENCIL_SIZE / _NORMAL_QUARTILE)
