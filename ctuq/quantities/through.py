"""Quantities through the slices of a stack: sums of what each slice tells, by how alike slices err.

Every slice has a posterior of its own. Given the hyperparameters that they share these are independent, but their errors are
not: views that are missing hide the same things in neighbours, and what a prior does to an edge it does to the next one. The
held-out rays of two slices tell how alike. With ``s_z`` the standard deviation of what slice z adds,

    variance = sum_z sum_z' r(|z - z'|) s_z s_z'

where r are correlations of their errors, `likeness`. Hidden errors of the scanner, and what an image does to edges, are the
same in all slices: there r is 1.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.quantities import linear, thresholds
from ctuq.quantities.drawn import POSTERIOR
from ctuq.quantities.linear import UNIT
from ctuq.quantities.quantity import LEVEL, Quantity, gaussian_quantity, probability_of
from ctuq.quantities.solids import Pitches, Solid, sections_of
from ctuq.quantities.thresholds import Threshold
from ctuq.tomo.geometry import VolumeGrid

ALIKE = "slices that err alike"
_UNKNOWN = "No held-out rays tell how alike the slices err: they are taken to err wholly alike, and the interval is long."
_LIKENESS = (
    "Slices are taken to err as alike as their held-out rays do: the errors of neighbours by {near:.2f}{further} (0 is "
    "independent, 1 the same)."
)


class _Slice(linear.Measurable, thresholds.Thresholded, Protocol):
    """A slice that answers questions."""


class _Stacked(Protocol):
    """A volume of slices."""

    @property
    def grid(self) -> VolumeGrid: ...
    @property
    def pitches(self) -> Pitches: ...
    @property
    def alike(self) -> NDArray[np.float64] | None: ...
    def slice(self, number: int) -> _Slice: ...


def mean_of(stack: _Stacked, solid: Solid | ArrayLike, *, name: str = "mean", level: float = LEVEL) -> Quantity:
    """Mean attenuation of a region of a volume."""
    return _linear(stack, _weights(stack, solid), name, level)


def contrast(
    stack: _Stacked, a: Solid | ArrayLike, b: Solid | ArrayLike, *, name: str = "contrast", level: float = LEVEL
) -> Quantity:
    """Mean of region ``a`` less that of region ``b``."""
    weights, other = _weights(stack, a), _weights(stack, b)
    none = np.zeros(stack.grid.shape[1:])
    both = {z: weights.get(z, none) - other.get(z, none) for z in sorted({*weights, *other})}
    return _linear(stack, both, name, level)


def probability_of_mean(
    stack: _Stacked,
    solid: Solid | ArrayLike,
    *,
    above: float | None = None,
    below: float | None = None,
    name: str = "probability",
) -> Quantity:
    """Probability that the mean of a region lies above, or below, a number."""
    return probability_of(mean_of(stack, solid), linear.one_limit(above, below), above=above is not None, name=name)


def fraction(stack: _Stacked, solid: Solid | ArrayLike, **how: Unpack[Threshold]) -> Quantity:
    """Share of a region's volume above, or below, an attenuation."""
    asked: Threshold = {"name": "fraction", "level": LEVEL, **how}
    sections = dict(sections_of(solid, stack.grid, stack.pitches))
    whole = sum(float(shares.sum()) for shares in sections.values())

    def parts() -> Iterator[tuple[int, Quantity]]:
        for z, shares in sections.items():
            yield z, thresholds.fraction(stack.slice(z), shares, **asked).scaled(float(shares.sum()) / whole, "")

    found = summed(parts(), stack.alike, name=asked["name"], level=asked["level"])
    low, high = found.interval
    return replace(found, interval=(max(low, 0.0), min(high, 1.0)))


def summed(
    parts: Iterable[tuple[int, Quantity]], alike: NDArray[np.float64] | None, *, name: str, level: float, unit: str = ""
) -> Quantity:
    """The sum of what slices tell, each with its number.

    Parameters
    ----------
    parts : iterable of (int, Quantity)
        With a budget each.
    alike : array, shape (lags,), optional
        Correlation of the posterior's errors of slices so many apart, see `likeness`; None takes them to be the same.
    """
    found = list(parts)
    numbers, told = np.array([z for z, _ in found]), [quantity for _, quantity in found]
    lags = np.abs(numbers[:, None] - numbers)
    budget: dict[str, float] = {}
    for source in dict.fromkeys(source for quantity in told for source in quantity.budget):
        spread = np.sqrt([max(quantity.budget.get(source, 0.0), 0.0) for quantity in told])
        if source != POSTERIOR:
            budget[source] = float(spread.sum() ** 2)
            continue
        budget[source] = float(np.sum(spread**2))
        common = np.ones(lags.shape) if alike is None else alike[lags]
        if (more := float(spread @ common @ spread) - budget[source]) > 0:
            budget[ALIKE] = more
    value = float(sum(quantity.value for quantity in told))
    # What one slice has to say of itself, such as that it shows nothing there, is no news of the whole.
    notes = tuple(note for note in told[0].notes if all(note in quantity.notes for quantity in told))
    return gaussian_quantity(
        name,
        value,
        sum(budget.values()),
        level=level,
        unit=unit,
        budget=budget,
        draws=min(quantity.draws for quantity in told),
        monte_carlo_error=max(quantity.monte_carlo_error for quantity in told),
        notes=notes + _told(alike, int(lags.max())),
    )


def likeness(residuals: NDArray, signals: NDArray, noises: NDArray) -> NDArray[np.float64]:
    """How alike the images of slices err, by how alike their held-out rays are off: a correlation for each distance.

    A ray's noise is its own, so that what two slices' residuals have in common is their images' errors. Of slices h apart it is

        r(h) = sum u_z u_(z + h) / sum v_z v_(z + h),   u = residual / s,  v = sqrt(signal) / s,  s^2 = signal + noise

    over all pairs and their rays; distances 1, 2 to 3, 4 to 7 and so on have one number each, from 0 to 1.

    Parameters
    ----------
    residuals, signals, noises : array, shape (z, rays)
        Of the same held-out rays of each slice: measured less predicted, and the variances that are the image's and the
        noise's, calibrated. NaN in slices that were not made.

    Returns
    -------
    array of float64, shape (z,)
        Of slices 0, 1, 2, ... apart; 1 where no pair tells.
    """
    whole = signals + noises
    known = np.isfinite(residuals) & np.isfinite(whole) & (whole > 0)
    root = np.sqrt(np.where(known, whole, 1.0))
    u, v = np.where(known, residuals, 0.0) / root, np.sqrt(np.where(known, signals, 0.0)) / root
    off, expected = u @ u.T, v @ v.T
    found = np.ones(len(u))
    first = 1
    while first < len(u):
        few = range(first, min(2 * first, len(u)))
        top, bottom = (sum(float(np.trace(pairs, lag)) for lag in few) for pairs in (off, expected))
        if bottom > 0:
            found[few.start : few.stop] = np.clip(top / bottom, 0.0, 1.0)
        first *= 2
    return found


def _linear(stack: _Stacked, weights: Mapping[int, NDArray[np.float64]], name: str, level: float) -> Quantity:
    parts = ((z, linear.of_weights(stack.slice(z), each, name=name, level=level)) for z, each in weights.items())
    return summed(parts, stack.alike, name=name, level=level, unit=UNIT)


def _weights(stack: _Stacked, solid: Solid | ArrayLike) -> dict[int, NDArray[np.float64]]:
    sections = dict(sections_of(solid, stack.grid, stack.pitches))
    whole = sum(float(shares.sum()) for shares in sections.values())
    return {z: shares / whole for z, shares in sections.items()}


def _told(alike: NDArray[np.float64] | None, far: int) -> tuple[str, ...]:
    if far == 0:
        return ()
    if alike is None:
        return (_UNKNOWN,)
    further = f", of slices {far} apart by {alike[far]:.2f}" if far > 1 else ""
    return (_LIKENESS.format(near=alike[1], further=further),)
