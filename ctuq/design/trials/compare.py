"""Strategies compared pair by pair on the same subjects: differences, and angles needed for the same error.

Subjects differ by far more than strategies, so every figure is of paired subjects. Qualities are in dB: their mean over
subjects is the logarithm of the geometric mean of their mean squared errors.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctuq.design.trials.trial import Trial
from ctuq.errors import InputError

_TIE = 1e-9


@dataclass(frozen=True, eq=False)
class Curves:
    """One quality of every strategy against the number of angles.

    Parameters
    ----------
    quality : str
        As in `Trial.qualities`.
    counts : array of int, shape (N,)
    subjects : tuple of str
    values : mapping of str to array, shape (subjects, N)
        By strategy, dB, the mean over seeds; NaN where a subject has no such trial.
    """

    quality: str
    counts: NDArray[np.int64]
    subjects: tuple[str, ...]
    values: Mapping[str, NDArray[np.float64]]

    def pair(self, first: str, second: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Both strategies on the subjects that have both.

        Raises
        ------
        InputError
            If there is no such strategy, or no such subject.
        """
        for name in (first, second):
            if name not in self.values:
                raise InputError(f"There is no strategy {name!r} here; there are {', '.join(self.values)}.")
        a, b = self.values[first], self.values[second]
        both = ~(np.isnan(a).all(1) | np.isnan(b).all(1))
        if not both.any():
            raise InputError(f"No subject has both {first!r} and {second!r}.")
        return a[both], b[both]


@dataclass(frozen=True, eq=False)
class Difference:
    """Mean paired difference at each count, dB, its standard error (NaN for one subject), and how many subjects there are."""

    mean: NDArray[np.float64]
    error: NDArray[np.float64]
    subjects: int


@dataclass(frozen=True, eq=False)
class Saving:
    """Angles that a strategy needs to be as good as a baseline with ``counts`` angles.

    Parameters
    ----------
    counts : array, shape (N,)
        Of the baseline.
    needed : array, shape (N,)
        By the strategy, interpolated; inf if it does not get there, its first count if it is there from the start.
    low, high : array, shape (N,)
        95 % bootstrap interval of ``needed`` over subjects; NaN for one subject.
    subjects : int
    """

    counts: NDArray[np.int64]
    needed: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    subjects: int

    @property
    def percent(self) -> NDArray[np.float64]:
        """Share of the baseline's angles that is saved, per cent; negative where more are needed, -inf out of reach."""
        return 100 * (1 - self.needed / self.counts)

    @property
    def interval(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Ends of the 95 % interval of ``percent``, lower first."""
        return 100 * (1 - self.high / self.counts), 100 * (1 - self.low / self.counts)


def curves(trials: Iterable[Trial], quality: str) -> Curves:
    """Collect one quality; counts at which no trial was reconstructed are left out.

    Raises
    ------
    InputError
        If trials were made with different settings, or none has this quality.
    """
    found = [trial for trial in trials if quality in trial.qualities]
    if not found:
        raise InputError(f"No trial was judged by {quality!r}.")
    first = found[0]
    for trial in found:
        if trial.setting != first.setting or not np.array_equal(trial.counts, first.counts):
            raise InputError(
                f"Trials made with different settings cannot be compared: '{first.setting}' and '{trial.setting}'; "
                "compare their folders one by one."
            )
    subjects = tuple(sorted({trial.subject for trial in found}))
    values = {}
    for name in dict.fromkeys(trial.strategy for trial in found):
        table = np.full((len(subjects), len(first.counts)), np.nan)
        for row, subject in enumerate(subjects):
            of_seeds = [t.qualities[quality] for t in found if t.strategy == name and t.subject == subject]
            if of_seeds:
                table[row] = np.mean(of_seeds, axis=0)
        values[name] = table
    known = np.any([np.isfinite(table).any(0) for table in values.values()], axis=0)
    return Curves(quality, first.counts[known], subjects, {name: table[:, known] for name, table in values.items()})


def difference(found: Curves, strategy: str, baseline: str) -> Difference:
    """Strategy minus baseline, paired by subject."""
    a, b = found.pair(strategy, baseline)
    gaps, n = a - b, len(a)
    error = gaps.std(0, ddof=1) / n**0.5 if n > 1 else np.full(gaps.shape[1], np.nan)
    return Difference(gaps.mean(0), error, n)


def saving(found: Curves, strategy: str, baseline: str, *, rng: np.random.Generator, resamples: int = 2000) -> Saving:
    """Angles needed for the same error: the mean curves made monotone, and the bootstrap over paired subjects.

    Parameters
    ----------
    found : Curves
    strategy, baseline : str
    rng : numpy Generator
    resamples : int
        Of the subjects, with replacement; both strategies keep the same ones.
    """
    a, b = found.pair(strategy, baseline)
    n = len(a)
    low = high = np.full(len(found.counts), np.nan)
    if n > 1:
        shares = rng.multinomial(n, np.full(n, 1 / n), resamples) / n
        tries = needed_angles(found.counts, shares @ a, shares @ b)
        # A quantile that is one of the draws: between a number and infinity there is nothing to interpolate.
        low, high = np.quantile(tries, [0.025, 0.975], axis=0, method="inverted_cdf")
    return Saving(found.counts, needed_angles(found.counts, a.mean(0)[None], b.mean(0)[None])[0], low, high, n)


def needed_angles(
    counts: NDArray[np.int64], strategy: NDArray[np.float64], baseline: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How many angles a curve needs to reach another at each count, both first made to rise; curves (R, N) in pairs."""
    rising, goal = _rising(strategy) + _TIE * np.arange(len(counts)), _rising(baseline)
    needed = np.stack([np.interp(g, r, counts) for g, r in zip(goal, rising, strict=True)])
    return np.where(goal > rising[:, -1:], np.inf, needed)


def table(found: Curves, savings: Mapping[str, Mapping[str, Saving]]) -> list[dict[str, str | float | int]]:
    """One row for each strategy and count: mean, paired difference and angles saved against each baseline of ``savings``."""
    rows: list[dict[str, str | float | int]] = []
    for name, values in found.values.items():
        against = {b: (difference(found, name, b), of[name]) for b, of in savings.items() if name in of}
        for i, count in enumerate(found.counts):
            row: dict[str, str | float | int] = {"strategy": name, "quality": found.quality, "angles": int(count)}
            row |= {"subjects": int(np.isfinite(values[:, i]).sum()), "dB": float(np.nanmean(values[:, i]))}
            for b, (gap, saved) in against.items():
                lower, upper = saved.interval
                row |= {f"minus {b} (dB)": float(gap.mean[i]), f"its standard error against {b}": float(gap.error[i])}
                row |= {f"angles for the error of {b}": float(saved.needed[i])}
                row |= {f"saved against {b} (%)": float(saved.percent[i])}
                row |= {f"saved against {b}, low": float(lower[i]), f"saved against {b}, high": float(upper[i])}
            rows.append(row)
    return rows


def _rising(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Isotonic regression of each row: the max-min of its means over intervals (Robertson, Wright and Dykstra 1988)."""
    n = curves.shape[1]
    sums = np.pad(np.cumsum(curves, axis=1), ((0, 0), (1, 0)))
    first, last = np.arange(n)[:, None], np.arange(n)[None]
    with np.errstate(divide="ignore", invalid="ignore"):
        means = (sums[:, None, 1:] - sums[:, :-1, None]) / (last - first + 1)
    means = np.where(last >= first, means, np.inf)
    lowest = np.minimum.accumulate(means[:, :, ::-1], axis=2)[:, :, ::-1]
    return np.where(first <= last, lowest, -np.inf).max(1)
