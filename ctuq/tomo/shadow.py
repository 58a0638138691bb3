"""What a sinogram shows of the object's outline: which views see air at the detector's edges, and which columns see more."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctuq.scores.gaussian import NORMAL_QUARTILE

_SHARE, _SIGMAS = 0.03, 4.0
CUT = 0.08
"""Of a sinogram's top, at the detector's edges: a round object shows it there if 0.3 % of its radius lies beyond, and air reads
up to 5 % in single views of real scans (the walnut's)."""
_EDGE, _ENDS = 3, 1.5
# The quartiles of the half of a normal distribution are so many of its standard deviations apart; fewer values do not tell it.
_HALF_QUARTILES, _ENOUGH, _ALIKE = 0.8317, 8, 0.5
_EVEN = 0.15
_MANY, _LONELY = 30, 0.015
STENCIL = (1.0, -4.0, 6.0, -4.0, 1.0)
"""Of fourth differences, which are blind to whatever is smooth: of white noise their standard deviation is its norm times that
of the noise."""


def only_air(values: NDArray) -> bool:
    """Whether line integrals are as often below as above 0, as noise in air is; false of values that are all the same."""
    low, middle, high = np.percentile(values, [1, 50, 99])
    spread = high - low
    return bool(spread > 0 and abs(high + low) < _EVEN * spread and abs(middle) < _EVEN * spread)


@dataclass(frozen=True, eq=False)
class Shadow:
    """Where a sinogram falls to air.

    Parameters
    ----------
    air : array of bool, shape (angle, 2)
        Whether each view sees nothing but air at its first and at its last columns.
    levels, beyond : tuple of float
        Mean line integral at the first and at the last columns, over the views; and over those that see no air there.
    top : float
        The largest line integrals (99th percentile).
    first, last : int
        Columns between which any view sees more than air; the whole detector if there is nothing else.
    solid : array of bool, shape (angle, column)
        Rays that by themselves see more than air.
    """

    air: NDArray[np.bool_]
    levels: tuple[float, float]
    beyond: tuple[float, float]
    top: float
    first: int
    last: int
    solid: NDArray[np.bool_]

    @property
    def cut(self) -> tuple[bool, bool]:
        """Whether the object goes on beyond the first and beyond the last column.

        Of many views it does so in several: what ends a column or more beyond does that over 6 degrees and more.
        """
        least = 0 if len(self.air) < _MANY else max(1.0, _LONELY * len(self.air))
        first, last = (~self.air).sum(axis=0) > least
        return bool(first), bool(last)


def edge_columns(columns: int) -> int:
    """How many columns stand for a detector's edge."""
    return max(1, min(_EDGE, columns // 16))


def edge_means(y: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the first and the last columns of each view read, (angle,) each, without those that are NaN; NaN of no other."""
    n = edge_columns(y.shape[1])
    left, right = (np.nansum(end, axis=1) / _or_nan(np.isfinite(end).sum(axis=1)) for end in (y[:, :n], y[:, -n:]))
    return left, right


def _or_nan(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(counts > 0, counts, np.nan)


def air_below(y: NDArray, rays: int, share: float = _SHARE) -> float:
    """Below which mean of so many rays there is but air: a share of a sinogram's top, or four standard deviations of noise."""
    values = np.asarray(y, np.float64)
    return max(share * float(np.percentile(values, 99)), _SIGMAS * noise_of(values) / np.sqrt(rays), 0.0)


def goes_on(edge: NDArray, inner: NDArray, n: int, least: float | NDArray) -> NDArray[np.bool_]:
    """Whether a shadow goes on beyond the detector.

    It does where the edge is no air, unless it ends at the edge just so: the square of the chord through something round falls
    linearly to where it ends.

    Parameters
    ----------
    edge, inner : array
        Mean line integrals of the last ``n`` columns, and of as many before these.
    n : int
    least : float or array
        Line integrals below it are air.
    """
    fall = (np.maximum(inner, 0) ** 2 - edge**2) / n
    return (edge > least) & (edge**2 > (n / 2 + _ENDS) * fall)


def shadow_of(projections: NDArray, weights: NDArray | None = None) -> Shadow:
    """The outline that a sinogram shows.

    Air is less than 3 % of the largest line integrals (at the detector's edges 8 %), or than four standard deviations of noise,
    at the edges also of what air reads from view to view, unless alike at both: of a real scan of neutrons whose noise is alike
    in neighbouring columns, 58 of 2250 edges read more than the others, and as many as far below 0, which no object does.

    Parameters
    ----------
    projections : array, shape (angle, column)
    weights : array, same shape, optional
        Rays of weight 0 show nothing.
    """
    from scipy.ndimage import gaussian_filter1d

    y = np.asarray(projections, np.float64)
    if weights is not None:
        y = np.where(np.asarray(weights) > 0, y, 0)
    views, columns = y.shape
    n, noise = edge_columns(columns), noise_of(y)
    top = max(float(np.percentile(y, 99)), 0.0)
    edge, inner = (
        np.stack([y[:, k * n : (k + 1) * n].mean(axis=1), y[:, ::-1][:, k * n : (k + 1) * n].mean(axis=1)], axis=1)
        for k in (0, min(1, columns // n - 1))
    )
    # The mean over all views is known far better than each: noise hides no object that is cut off in most of them.
    levels, before = edge.mean(axis=0), inner.mean(axis=0)
    cut = goes_on(levels, before, n, air_below(y, n * views, CUT))
    air = ~goes_on(edge, inner, n, max(air_below(y, n, CUT), _SIGMAS * _unsteady(edge))) & ~cut
    # Smoothing over two columns leaves a quarter of the noise's standard deviation or less.
    seen = np.flatnonzero((gaussian_filter1d(y, 2.0, axis=1, mode="nearest") > max(_SHARE * top, 2 * noise)).any(axis=0))
    first, last = (int(seen[0]), int(seen[-1])) if len(seen) else (0, columns - 1)
    solid = y > air_below(y, 1)
    beyond = np.where(air, 0, edge).sum(axis=0) / np.maximum((~air).sum(axis=0), 1)
    (a, b), (c, d) = levels.tolist(), beyond.tolist()
    return Shadow(air, (a, b), (c, d), top, first, last, solid)


def noise_of(y: NDArray) -> float:
    """Standard deviation of the rays' noise, by how single columns differ from their neighbours."""
    if y.shape[1] < len(STENCIL):
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(y, len(STENCIL), axis=1)
    return float(np.median(np.abs(windows @ np.array(STENCIL))) / np.linalg.norm(STENCIL) / NORMAL_QUARTILE)


def _unsteady(edge: NDArray[np.float64]) -> float:
    """Standard deviation of what air reads at the edges of views (view, edge), by those below 0, which no object makes; none
    where the two of a view are alike, for that is flux, which may drift by more than an object holds.
    """
    below = edge[edge < 0]
    if below.size < _ENOUGH:
        return 0.0
    sigma = float(np.subtract(*np.percentile(below, [75, 25]))) / _HALF_QUARTILES
    apart = float(np.subtract(*np.percentile(edge[:, 0] - edge[:, 1], [75, 25]))) / (2 * NORMAL_QUARTILE * np.sqrt(2))
    return sigma if apart > _ALIKE * sigma else 0.0
