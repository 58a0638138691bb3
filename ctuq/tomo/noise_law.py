"""What a detector's counts vary by: ``variance = electronic^2 + gain * signal``, from flats and darks taken several times.

This is the photon transfer curve (Janesick, Photon Transfer, SPIE 2007). A frame's fixed pattern drops out of the difference of
two frames, a drift of the beam with a parabola over the columns by which each frame is scaled. Half the mean square of the
differences of successive frames is a column's variance (von Neumann's estimator), about chi-square distributed; columns that
stray from the law, as dead and hot pixels do, are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctuq.scores.gaussian import STD_OF_MAD

_TAIL = 1e-4
_FEWEST = 8
_PARABOLA = 3
_STRAYING = 6.0
_CERTAIN, _BENT, _SURE = 3.0, 4.0, 0.25
_MOST_LEFT_OUT = 0.3
_CROWDED = 5e-3
_TOLD_DEAD = 4.0
"""Degrees of freedom from which a variance of nothing is a dead column's; whole counts of few frames may well be alike."""
_ROUNDS = 30


@dataclass(frozen=True)
class NoiseLaw:
    """``variance = electronic^2 + gain * signal`` of one count above the dark level, with standard errors.

    Parameters
    ----------
    gain, gain_error : float
        Counts per quantum, as if each quantum counted alike: the variance over the mean where the beam is bright.
    electronic, electronic_error : float
        Standard deviation without beam, counts. Its error is 0 where it is itself.
    ratio, ratio_error : float
        ``electronic^2 / gain``: the signal, in counts, whose own noise is as large as the electronic noise. Relative weights
        depend on nothing else.
    flats, darks, columns : int
        From how many frames and columns.
    correlation, correlation_error : float
        Of the noise of neighbouring columns in the flats.
    """

    gain: float
    gain_error: float
    electronic: float
    electronic_error: float
    ratio: float
    ratio_error: float
    flats: int
    darks: int
    columns: int
    correlation: float = 0.0
    correlation_error: float = 1.0

    @property
    def is_correlated(self) -> bool:
        """Whether neighbouring columns' noise is clearly alike."""
        return self.correlation > max(4 * self.correlation_error, 0.02)

    def variance(self, signal: NDArray) -> NDArray[np.float64]:
        """Of counts with this expected signal above the dark level."""
        return self.electronic**2 + self.gain * np.maximum(signal, 0)

    def least(self, times: float) -> float:
        """The signal that is its own standard deviation times the root of ``times``: that of so many quanta, if ratio is 0."""
        return self.gain * times / 2 * (1 + float(np.sqrt(1 + 4 * self.ratio / (times * self.gain))))


def chi_square(share: float, freedom: NDArray | float) -> NDArray[np.float64]:
    """The value below which so large a share of a chi-square distribution lies."""
    from scipy.special import gammaincinv  # SciPy's parts are imported where they are used.

    return 2 * gammaincinv(np.asarray(freedom) / 2, share)


@dataclass(frozen=True, eq=False)
class _Columns:
    """Variances of columns, each with the signal it is at and its degrees of freedom; and the differences they are of."""

    signal: NDArray[np.float64]
    variance: NDArray[np.float64]
    freedom: float
    steps: NDArray[np.float64]

    @classmethod
    def of(cls, groups: Sequence[NDArray], signal: NDArray, lost: int) -> "_Columns":
        """Of frames in groups; what was taken from each frame cost so many degrees of freedom."""
        counts = np.array([len(group) for group in groups])
        steps = np.concatenate([np.diff(group, axis=0) for group in groups])
        variance = (steps**2).sum(axis=0) / 2 / len(steps) * signal.size / max(signal.size - lost, 1)
        return cls(signal, variance, 2 * len(steps) ** 2 / float((3 * counts - 4).sum()), steps)


def learned_law(
    flats: NDArray, darks: NDArray | None = None, after: NDArray | None = None, *, dim: float = 0.0, full: float | None = None
) -> tuple[NoiseLaw | None, str]:
    """The law, or why there is none.

    Parameters
    ----------
    flats, darks : array, shape (frame, column)
        In the order in which they were taken.
    after : array, shape (frame,), optional
        How many views had been taken before each flat: only those of one time are compared, if any time has two.
    dim : float
        Signal of the dimmest rays, in counts: the law is known if it tells their weight.
    full : float, optional
        The detector's largest count; columns that reach it are left out.

    Returns
    -------
    tuple
        The law or None, and if None a clause that says why.
    """
    flats = np.atleast_2d(np.asarray(flats, np.float64))
    whole = np.flatnonzero(_whole(flats))
    flats, after = flats[whole], None if after is None else np.asarray(after)[whole]
    if len(flats) < 2:
        return None, "fewer than two differ from each other and are whole"
    frames = np.zeros((0, flats.shape[1])) if darks is None else np.atleast_2d(np.asarray(darks, np.float64))
    dark = frames.mean(axis=0) if len(frames) else np.zeros(flats.shape[1])
    signal = flats - dark
    used = np.isfinite(signal).all(axis=0) & ~_saturated(flats, full)
    used[used] &= (signal[:, used] > 0).all(axis=0)
    used[used] &= _not_straying(signal[:, used])
    if used.sum() < _FEWEST:
        return None, f"{int(used.sum())} columns are lit and below the detector's largest count"
    lit = _Columns.of(_even(signal[:, used], _times(after, len(flats))), signal[:, used].mean(axis=0), _PARABOLA)
    return _fitted(lit, _without_beam(frames), np.flatnonzero(used), (len(flats), len(frames)), dim)


def _whole(flats: NDArray) -> NDArray[np.bool_]:
    """Frames that are no copy of an earlier one, with a number in half of their columns and half of the others' light."""
    finite = np.isfinite(flats)
    there = np.asarray(finite.mean(axis=1) > 0.5)
    if not there.any():
        return there
    levels = np.array([np.median(row[ok]) if ok.any() else 0.0 for row, ok in zip(flats, finite, strict=True)])
    first = np.unique(np.nan_to_num(flats), axis=0, return_index=True)[1]
    there[levels <= 0.5 * np.median(levels[there])] = False
    there[np.setdiff1d(np.arange(len(flats)), first)] = False
    return there


def _saturated(flats: NDArray, full: float | None) -> NDArray[np.bool_]:
    """Columns that reach the largest count, which may be of the flats alone: the value that many of them share at the top."""
    filled = np.where(np.isfinite(flats), flats, -np.inf)
    top = filled.max()
    at_top = np.asarray(filled >= (top if full is None else min(full, top)))
    if full is None and at_top.sum() < max(3, _CROWDED * flats.size):
        return np.zeros(flats.shape[1], bool)
    return np.any(at_top, axis=0)


def _times(after: NDArray | None, count: int) -> list[NDArray[np.int64]]:
    """Numbers of the flats of each time that has two or more; all together if none has."""
    times = np.zeros(count) if after is None else np.asarray(after)
    groups = [np.flatnonzero(times == time) for time in np.unique(times)]
    return [group for group in groups if len(group) > 1] or [np.arange(count)]


def _not_straying(signal: NDArray) -> NDArray[np.bool_]:
    """Columns that no frame has far off its share of their mean, by robust standard deviations."""
    if not signal.size:
        return np.ones(signal.shape[1], bool)
    level = np.median(signal, axis=0)
    off = (signal / np.median(signal / level, axis=1, keepdims=True) - level) / np.sqrt(level)
    spread = STD_OF_MAD * np.median(np.abs(off))
    return (np.abs(off) <= _STRAYING * 2 * spread).all(axis=0) if spread > 0 else np.ones(signal.shape[1], bool)


def _even(signal: NDArray, groups: Sequence[NDArray]) -> list[NDArray[np.float64]]:
    """Frames without what a parabola over the columns explains of their brightness, by least squares as counts vary."""
    columns = np.linspace(-1, 1, signal.shape[1])
    found = []
    for group in groups:
        frames = signal[group]
        level = frames.mean(axis=0)
        basis = np.stack([columns**k for k in range(_PARABOLA)], axis=1) * np.sqrt(level)[:, None]
        factors = np.linalg.lstsq(basis, (frames / np.sqrt(level)).T, rcond=None)[0]
        share = (basis @ factors).T / np.sqrt(level)
        found.append(frames / np.where(share > 0, share, 1.0))
    return found


def _without_beam(darks: NDArray) -> _Columns | None:
    """Darks less their frame's own level; none where they are one frame, or clipped at 0, or all alike."""
    usable = np.isfinite(darks).all(axis=0)
    darks = darks[:, usable]
    if len(darks) < 2 or darks.shape[1] < _FEWEST or np.mean(np.ptp(darks, axis=0) == 0) > 0.5:
        return None
    lowest = darks.min()
    if lowest == 0 and np.mean(darks == lowest) > 0.05:
        return None
    even = darks - np.median(darks, axis=1, keepdims=True)
    return _Columns.of([even], np.zeros(darks.shape[1]), 1)


def _fitted(
    lit: _Columns, unlit: _Columns | None, columns: NDArray[np.int64], frames: tuple[int, int], dim: float
) -> tuple[NoiseLaw | None, str]:
    parts = [lit] if unlit is None else [lit, unlit]
    signal, variance = (np.concatenate([getattr(part, name) for part in parts]) for name in ("signal", "variance"))
    freedom = np.concatenate([np.full(part.signal.size, part.freedom) for part in parts])
    fit = _line(signal, variance, freedom, lit.signal.size)
    if fit is None:
        return None, "the columns' variances follow no line over their means"
    (dark, gain), covariance, kept = fit
    errors = np.sqrt(np.diag(covariance))
    if gain <= _CERTAIN * errors[1]:
        return None, f"the gain they tell is {gain:.3g} ± {errors[1]:.2g}, not clearly above 0"
    if dark < -_CERTAIN * errors[0]:
        text = "the variance falls faster than the mean (at no signal it would be {:.3g} ± {:.2g}), as no counting noise"
        return None, text.format(dark, errors[0])
    if (bend := _bend(signal, variance, freedom, kept, (dark, gain))) is not None:
        return (
            None,
            f"the variance grows faster than the mean (by {bend:.2g} of its square), as a restless beam's does",
        )
    dark = max(float(dark), 0.0)
    ratio = dark / gain
    slope = np.array([1, -ratio]) / gain
    ratio_error = float(np.sqrt(slope @ covariance @ slope))
    if ratio_error > _SURE * (dim + ratio) or (dim + ratio) == 0:
        return None, (
            f"the electronic noise is that of {ratio:.3g} ± {ratio_error:.2g} counts, which is too uncertain to weight the "
            "dimmest rays; more flats and darks would tell"
        )
    electronic = dark**0.5
    alike = _alike(lit, (dark, gain), kept[: lit.signal.size], columns)
    law = NoiseLaw(
        gain=float(gain),
        gain_error=float(errors[1]),
        electronic=electronic,
        electronic_error=float(errors[0]) / (2 * electronic) if electronic > 0 else 0.0,
        ratio=ratio,
        ratio_error=ratio_error,
        flats=frames[0],
        darks=frames[1],
        columns=int(kept[: lit.signal.size].sum()),
        correlation=alike[0],
        correlation_error=alike[1],
    )
    return law, ""


def _line(
    signal: NDArray, variance: NDArray, freedom: NDArray, lit: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]] | None:
    """``a + g signal`` by the likelihood of chi-square variances, its covariance, and the columns it holds for.

    The weights are those of the line (Fisher scoring), not of the variances that were found: small ones would weigh most.
    """
    middle = chi_square(0.5, freedom) / freedom
    gain = float(np.median((variance / np.maximum(signal, 1e-300) / middle)[:lit]))
    unlit = float(np.median((variance / middle)[lit:])) if signal.size > lit else 0.0
    found = np.array([unlit, max(gain - unlit / max(float(np.median(signal[:lit])), 1e-300), 0.1 * gain)])
    design = np.stack([np.ones_like(signal), signal], axis=1)
    low = np.where(freedom >= _TOLD_DEAD, chi_square(_TAIL, freedom) / freedom, 0.0)
    high = chi_square(1 - _TAIL, freedom) / freedom
    floor = 1e-3 * float(np.median(variance))
    kept, covariance = np.ones(signal.size, bool), np.eye(2)
    for _ in range(_ROUNDS):
        expected = np.maximum(design @ found, floor if signal.size == lit else 1e-3 * max(unlit, 1e-300))
        share = variance / expected
        kept = (share >= low) & (share <= high)
        if kept[:lit].sum() < _FEWEST or kept.mean() < 1 - _MOST_LEFT_OUT:
            return None
        worth = np.where(kept, freedom / (2 * expected**2), 0.0)
        scale = np.array([1.0, 1 / float(np.median(signal[:lit]))])
        normal = (design * scale).T @ ((design * scale) * worth[:, None])
        covariance = scale[:, None] * np.linalg.pinv(normal, rcond=1e-14, hermitian=True) * scale
        new = covariance @ (design.T @ (worth * variance))
        done = np.allclose(new, found, rtol=1e-8)
        found = new
        if done:
            break
    return found, covariance, kept


def _bend(
    signal: NDArray, variance: NDArray, freedom: NDArray, kept: NDArray[np.bool_], line: tuple[float, float]
) -> float | None:
    """The coefficient of signal squared, where it is clearly there and makes half of the variance or more."""
    top = float(np.percentile(signal, 95))
    design = np.stack([np.ones_like(signal), signal / top, (signal / top) ** 2], axis=1)[kept]
    expected = np.maximum(line[0] + line[1] * signal[kept], 1e-3 * float(np.median(variance)))
    worth = freedom[kept] / (2 * expected**2)
    normal = design.T @ (design * worth[:, None])
    if np.linalg.cond(normal) > 1e12:
        return None
    found = np.linalg.solve(normal, design.T @ (worth * variance[kept]))
    error = float(np.sqrt(np.linalg.inv(normal)[2, 2]))
    return float(found[2] / top**2) if found[2] > _BENT * error and found[2] > 0.5 * found.sum() else None


def _alike(
    lit: _Columns, line: tuple[float, float], kept: NDArray[np.bool_], columns: NDArray[np.int64]
) -> tuple[float, float]:
    """Correlation of neighbouring columns' noise, and its error; the parabola makes independent columns a little unlike."""
    z = lit.steps / np.sqrt(2 * (line[0] + line[1] * lit.signal))
    pairs = kept[:-1] & kept[1:] & (np.diff(columns) == 1)
    if pairs.sum() < _FEWEST:
        return 0.0, 1.0
    first, second = z[:, :-1][:, pairs], z[:, 1:][:, pairs]
    both = float(np.sqrt((first**2).mean() * (second**2).mean()))
    return float((first * second).mean() / both) + _PARABOLA / lit.signal.size, float((lit.freedom * pairs.sum()) ** -0.5)
