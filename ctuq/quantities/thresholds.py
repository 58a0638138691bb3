"""What lies above a level: shares of an area and centres, by a threshold that knows the pixel's size.

Within a pixel the image is taken as the plane through its value with the slope of its neighbours; the share of the pixel where
this plane lies above the level is exact. A pixel on an edge then counts in part, as it is covered in part.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.quantities import discrepancy
from ctuq.quantities.drawn import TOLERANCE, square_about, values_at_draws
from ctuq.quantities.linear import one_limit
from ctuq.quantities.quantity import LEVEL, Quantity, checked_level, gaussian_quantity
from ctuq.quantities.regions import Region, shares_of
from ctuq.tomo.geometry import VolumeGrid

DRAWN = "posterior"
_LEAST = 0.5
"""Pixels that a centre needs."""
_NOTHING = (
    "{name}: the image shows {what} {side} {limit:g} 1/mm there; structures thinner than a pixel can hide, and the interval "
    "does not hold them."
)
"""Of 22 scans the skull of a head, half a pixel thin, was missed so in two arcs of 90 degrees."""
_RESOLUTION = 0.1
"""Pixels: a share of an area is never told more finely than a tenth of one pixel's share."""


class Thresholded(Protocol):
    """What thresholds need of a result."""

    @property
    def mean(self) -> NDArray[np.float32]: ...
    @property
    def grid(self) -> VolumeGrid: ...
    def draw(self, n: int, *, seed: int = 0) -> NDArray[np.float32]: ...


class Threshold(TypedDict, total=False):
    """How what lies beyond an attenuation is asked for.

    Attributes
    ----------
    above, below : float
        One of them, 1/mm. Half way between two materials is where blur moves edges least.
    name : str
        Of the quantity.
    level : float
        Probability that the interval is to hold.
    tolerance : float
        Relative error of the standard deviation by draws at which these end.
    seed : int
        Of the draws.
    """

    above: float | None
    below: float | None
    name: str
    level: float
    tolerance: float
    seed: int


Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Of the share of each pixel that lies above (..., y, x), a number each."""
_Slopes = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""What a statistic changes by with each pixel's share, (y, x), at the shares of the image."""


def shares_above(images: NDArray, level: float, shift: float = 0.0) -> NDArray[np.float64]:
    """Share of each pixel of images (..., y, x) that lies above a level, with every edge moved outwards by ``shift`` pixels.

    Uniform points of a pixel have the values ``x + a u + b w`` with u and w uniform on +-1/2, a and b the slopes: a trapezoid
    whose distribution function is a sum of four squares.
    """
    x = images.astype(np.float64)
    slopes = np.abs([_gradient(x, axis) for axis in (-2, -1)])
    s = x - level + shift * np.hypot(*slopes)
    a = np.maximum(slopes.max(0), 1e-300)
    b = np.maximum(slopes.min(0), 1e-3 * a)
    wide, narrow = (a + b) / 2, (a - b) / 2
    squares = [np.maximum(s + each, 0) ** 2 for each in (wide, narrow, -narrow, -wide)]
    inside = (squares[0] - squares[1] - squares[2] + squares[3]) / np.maximum(2 * a * b, 1e-300)
    # Far from the level the squares cancel to nothing but rounding.
    return np.where(np.abs(s) >= wide, s > 0, inside.clip(0, 1)).astype(np.float64)


def fraction(
    result: Thresholded,
    region: Region,
    *,
    above: float | None = None,
    below: float | None = None,
    name: str = "fraction",
    level: float = LEVEL,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Quantity:
    """Share of a region's area above, or below, an attenuation."""
    limit, weights = one_limit(above, below), shares_of(region, result.grid)
    weights, side = weights / weights.sum(), "above" if above is not None else "below"

    def share(shares: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.sum(shares * weights, axis=(-2, -1))
        return found if above is not None else 1 - found

    least = (_RESOLUTION * float(weights.max())) ** 2
    found = _measured(
        result, (share, lambda _: weights), limit, least, name=name, unit="", level=level, tolerance=tolerance, seed=seed
    )
    low, high = found.interval
    notes = ()
    if min(found.value, 1 - found.value) < _LEAST * float(weights.max()):
        notes = (_NOTHING.format(name=name, what="nothing" if found.value < 0.5 else "all", limit=limit, side=side),)
    return replace(found, interval=(max(low, 0.0), min(high, 1.0)), notes=notes)


def area(result: Thresholded, region: Region, **how: Unpack[Threshold]) -> Quantity:
    """Area in mm^2 of what lies above, or below, an attenuation in a region."""
    found = fraction(result, region, **{"name": "area", **how})
    return found.scaled(float(shares_of(region, result.grid).sum()) * result.grid.voxel**2, "mm^2")


def centre(
    result: Thresholded,
    region: Region,
    *,
    above: float | None = None,
    below: float | None = None,
    name: str = "centre",
    level: float = LEVEL,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> tuple[Quantity, Quantity]:
    """Centre of what lies above, or below, an attenuation in a region: x and y in mm.

    Raises
    ------
    InputError
        If less than half a pixel lies there.
    """
    limit, weights, grid = one_limit(above, below), shares_of(region, result.grid), result.grid
    y, x = np.ix_(*grid.places())
    mass = shares_above(result.mean, limit)
    if float(np.sum((mass if above is not None else 1 - mass) * weights)) < _LEAST:
        raise InputError(
            f"Less than half a pixel of the region lies {'above' if above is not None else 'below'} {limit:g} 1/mm."
        )

    def place(along: NDArray) -> tuple[Statistic, _Slopes]:
        def mean_place(shares: NDArray[np.float64]) -> NDArray[np.float64]:
            inside = (shares if above is not None else 1 - shares) * weights
            middle = float(np.sum(along * weights) / weights.sum())
            mass = np.sum(inside, axis=(-2, -1))
            return np.where(mass > 1e-9, np.sum(inside * along, axis=(-2, -1)) / np.maximum(mass, 1e-9), middle)

        def slopes(shares: NDArray[np.float64]) -> NDArray[np.float64]:
            mass = float(np.sum((shares if above is not None else 1 - shares) * weights))
            return weights * (along - float(mean_place(shares))) / mass

        return mean_place, slopes

    least = (_RESOLUTION * grid.voxel / 4) ** 2
    parts = ((f"{name} x", place(np.broadcast_to(x, grid.shape))), (f"{name} y", place(np.broadcast_to(y, grid.shape))))
    first, second = (
        _measured(result, statistic, limit, least, name=each, unit="mm", level=level, tolerance=tolerance, seed=seed)
        for each, statistic in parts
    )
    return first, second


def _measured(
    result: Thresholded,
    asked: tuple[Statistic, _Slopes],
    limit: float,
    least: float,
    *,
    name: str,
    unit: str,
    level: float,
    tolerance: float,
    seed: int,
) -> Quantity:
    """Value of the image; variance of the draws, of each way of being wrong that draws do not know, and ``least``."""
    level, (statistic, slopes) = checked_level(level), asked
    values, error = values_at_draws(result, lambda images: statistic(shares_above(images, limit)), tolerance, seed)
    shares = shares_above(result.mean, limit)
    value = float(statistic(shares))
    budget = {DRAWN: square_about(value, values) + least}
    for source, *both in discrepancy.alternatives(result.mean, limit):
        moved = [shares_above(*each) for each in both]
        ends = [float(statistic(each)) for each in moved]
        if source == discrepancy.SHIFTED:
            pixels = slopes(shares) * (moved[0] - moved[1]) / 2
            budget[discrepancy.ALONE] = discrepancy.RAGGED**2 * float(np.sum(pixels**2))
        # Of thin structures each end is a way of its own: what may have faded is not what may be missing.
        width = sum(abs(end - value) for end in ends) / (1 if source == discrepancy.FADES else 2)
        budget[source] = (discrepancy.SHARED[source] * width) ** 2
    told = gaussian_quantity(name, value, sum(budget.values()), level=level, unit=unit, budget=budget)
    return replace(told, draws=len(values), monte_carlo_error=error * budget[DRAWN] / max(sum(budget.values()), 1e-300))


def _gradient(images: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return np.gradient(images, axis=axis) if images.shape[axis] > 1 else np.zeros_like(images)
