"""Whether a scan's projections vary as its flats say: not if either are means of frames, or were exposed otherwise."""

import numpy as np
from numpy.typing import NDArray

from ctuq.tomo.noise_law import NoiseLaw, chi_square

_AIR, _FEWEST_IN_AIR, _VIEWS = 0.9, 200, 256
_AGREEING = 1.5
_ROUNDS = 30


def agreement(signal: NDArray, open_beam: NDArray, law: NoiseLaw) -> tuple[float, bool] | None:
    """Noise variance of the projections over the law's, and whether that is in air alone; None where too few rays tell.

    Of each four rays of neighbouring columns in successive views the mixed difference has neither a column's own error nor a
    view's flux; four times the variance is expected of it, less what neighbouring columns have in common. Where no air is seen
    all rays tell, and the object's own edges add to it.

    Parameters
    ----------
    signal : array, shape (angle, column)
        Counts above the dark level.
    open_beam : array, same shape
    law : NoiseLaw
    """
    if min(signal.shape) < 2:
        return None
    pairs = np.unique(np.linspace(0, len(signal) - 2, min(len(signal) - 1, _VIEWS)).astype(int))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = signal / open_beam
        variance = law.variance(signal) / open_beam**2

        def four(values: NDArray, signs: float) -> NDArray[np.float64]:
            first, second = values[pairs], values[pairs + 1]
            return first[:, 1:] + second[:, :-1] + signs * (first[:, :-1] + second[:, 1:])

        z = four(share, -1.0) ** 2 / four(variance, 1.0) / max(1 - law.correlation, 0.1)
        mean = four(share, 1.0) / 4
    finite = np.isfinite(z)
    bright = finite & (mean > _AIR * _air_level(share))
    in_air = int(bright.sum()) >= _FEWEST_IN_AIR
    told = z[bright] if in_air else z[finite]
    return (_scale(told), in_air) if told.size >= _FEWEST_IN_AIR else None


def _scale(squares: NDArray) -> float:
    """The variance of normal values by their squares, large ones cut: a median of whole counts jumps."""
    from scipy.special import gammainc  # SciPy's parts are imported where they are used.

    cut = float(chi_square(0.9, 1))
    expected, found = float(gammainc(1.5, cut / 2)) + 0.1 * cut, float(np.median(squares)) / float(chi_square(0.5, 1))
    found = max(found, 1e-3 * float(squares.mean()), 1e-300)
    for _ in range(_ROUNDS):
        found *= float(np.minimum(squares / found, cut).mean()) / expected
    return found


def _air_level(share: NDArray) -> float:
    """What the brightest columns have of the open beam, as far as that may be a drift."""
    columns = np.nanmedian(np.where(np.isfinite(share), share, np.nan), axis=0)
    bright = float(np.nanpercentile(columns, 98)) if np.isfinite(columns).any() else 1.0
    return float(np.clip(bright, 0.8, 1.2))


def agrees(times: float) -> bool:
    """Whether projections vary by about as much as the flats' law says: flats that are means of frames do not."""
    return 1 / _AGREEING <= times <= _AGREEING
