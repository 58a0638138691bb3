"""Linear quantities, exactly from the covariance that a result keeps: means over regions, contrasts, profiles, differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.pictures import figure_of_line
from ctuq.quantities.discrepancy import LEAKS, PLACE, leaking, slope
from ctuq.quantities.lines import Point, line
from ctuq.quantities.quantity import LEVEL, Quantity, checked_level, gaussian_quantity, probability_of
from ctuq.quantities.regions import Region, shares_of
from ctuq.tomo.arrays import is_finite
from ctuq.tomo.geometry import VolumeGrid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNIT = "1/mm"
BETWEEN = "edges between pixels"
ALONG_EDGES = (
    "An outline runs along edges of the object, which the image blurs: for the attenuation of a part, draw it a pixel or two "
    "inside of its edge."
)
_MOSTLY, _WORTH_TELLING = 0.5, 0.01


class Measurable(Protocol):
    """What linear quantities need of a result."""

    @property
    def mean(self) -> NDArray[np.float32]: ...
    @property
    def grid(self) -> VolumeGrid: ...
    @property
    def instrument(self) -> str: ...
    def hidden_along(self, functional: NDArray[np.float64]) -> dict[str, float]: ...
    def pushed(self, functionals: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
    def split(
        self, functional: NDArray[np.float64], resolved: NDArray[np.float64], variances: tuple[float, float]
    ) -> dict[str, float]: ...


@dataclass(frozen=True, repr=False)
class Profile:
    """Values along a line.

    Parameters
    ----------
    positions : array, shape (n,)
        Distance from the line's first point, mm.
    points : tuple of Quantity
        At each of them.
    covariance : array, shape (n, n)
        Joint, (1/mm)^2.
    """

    positions: NDArray[np.float64]
    points: tuple[Quantity, ...]
    covariance: NDArray[np.float64]

    def __repr__(self) -> str:
        lengths, values = f"{len(self.points)} points over {self.positions[-1]:.3g} mm", self.values
        return f"<Profile: {lengths}, {values.min():.3g} to {values.max():.3g} {self.points[0].unit}>"

    @property
    def values(self) -> NDArray[np.float64]:
        """Of every point."""
        return np.array([point.value for point in self.points])

    @property
    def band(self) -> NDArray[np.float64]:
        """Lower and upper end of every point's interval, (2, n)."""
        return np.array([point.interval for point in self.points]).T

    def plot(self) -> "Figure":
        """The values with their band along the line, as a matplotlib figure: ``.savefig(path)`` keeps it."""
        return figure_of_line(self.positions, self.values, self.band, self.points[0].unit, self.points[0].level)


def mean_of(result: Measurable, region: Region, *, name: str = "mean", level: float = LEVEL) -> Quantity:
    """Mean attenuation of a region."""
    return of_weights(result, _weights(result, region), name=name, level=level)


def of_weights(result: Measurable, weights: NDArray[np.float64], *, name: str, level: float = LEVEL) -> Quantity:
    """The sum of an image times weights (y, x)."""
    found = _quantities(result, weights[None], [name], level)[0][0]
    return with_leak(found, float(np.sum(weights * leaking(result.mean))))


def with_leak(quantity: Quantity, leak: float) -> Quantity:
    """A mean whose outline may run along edges, with the variance of what blur takes across it."""
    sd = math.hypot(quantity.standard_uncertainty, leak)
    half = quantity.coverage_factor * sd
    return replace(
        quantity,
        standard_uncertainty=sd,
        interval=(quantity.value - half, quantity.value + half),
        monte_carlo_error=quantity.monte_carlo_error * (quantity.standard_uncertainty / sd) ** 2 if sd > 0 else 0.0,
        budget={**quantity.budget, LEAKS: leak**2},
        notes=quantity.notes
        + (ALONG_EDGES,) * (leak**2 > _MOSTLY * sd**2 and abs(leak) > _WORTH_TELLING * abs(quantity.value)),
    )


def contrast(result: Measurable, a: Region, b: Region, *, name: str = "contrast", level: float = LEVEL) -> Quantity:
    """Mean of region ``a`` less that of region ``b``."""
    return of_weights(result, _weights(result, a) - _weights(result, b), name=name, level=level)


def profile(
    result: Measurable, p: Point, q: Point, *, step: float | None = None, name: str = "profile", level: float = LEVEL
) -> Profile:
    """Attenuation along the line from p to q, by bilinear interpolation."""
    along = line(result.grid, p, q, step=step)
    functionals = along.functionals(result.grid.shape)
    names = [f"{name} at {place:.4g} mm" for place in along.positions]
    points, covariance = _quantities(result, functionals, names, level)
    return Profile(along.positions, points, covariance)


def _width(result: Measurable) -> float:
    """Of its image in mm."""
    return result.grid.shape[-1] * result.grid.voxel


def difference(
    result: Measurable, other: Measurable, region: Region, *, name: str = "difference", level: float = LEVEL
) -> Quantity:
    """Mean of a region in ``result`` less that in ``other``.

    An error that no ray tells, such as beam hardening, is the same in two scans by one scanner, and its parts cancel, as does
    what blur takes across the region's outline in both. Else the scans are taken to err independently: what both get wrong
    alike is counted twice, and the uncertainty is then too large.
    """
    if not result.grid == other.grid:
        raise InputError(
            f"The two results are on different grids ({result.grid} and {other.grid}); reconstruct both with "
            f"--size {max(result.grid.shape[-1], other.grid.shape[-1])} --field {max(map(_width, (result, other))):.6g}."
        )
    weights = _weights(result, region)
    one, two = (_quantities(each, weights[None], [name], level)[0][0] for each in (result, other))
    budget = {source: one.budget.get(source, 0.0) + two.budget.get(source, 0.0) for source in {**one.budget, **two.budget}}
    here, there = (each.hidden_along(weights) for each in (result, other))
    for source in here.keys() & there.keys() if result.instrument == other.instrument else ():
        budget[source] -= 2 * here[source] * there[source]
    found = gaussian_quantity(name, one.value - two.value, sum(budget.values()), level=level, unit=UNIT, budget=budget)
    change = result.mean.astype(np.float64) - other.mean
    return with_leak(found, float(np.sum(weights * leaking(change))))


def probability_of_mean(
    result: Measurable, region: Region, *, above: float | None = None, below: float | None = None, name: str = "probability"
) -> Quantity:
    """Probability that the mean of a region lies above, or below, a number."""
    return probability_of(mean_of(result, region), one_limit(above, below), above=above is not None, name=name)


def one_limit(above: float | None, below: float | None) -> float:
    """The one that is given.

    Raises
    ------
    InputError
        If none or both are, or it is not finite.
    """
    limit = above if above is not None else below
    if limit is None or (above is not None and below is not None):
        raise InputError("Give one of above and below, in 1/mm.")
    if not is_finite(limit):
        raise InputError(f"The limit is a finite attenuation in 1/mm, got {limit!r}.")
    return float(limit)


def _weights(result: Measurable, region: Region) -> NDArray[np.float64]:
    shares = shares_of(region, result.grid)
    return shares / shares.sum()


def _quantities(
    result: Measurable, functionals: NDArray[np.float64], names: Sequence[str], level: float
) -> tuple[tuple[Quantity, ...], NDArray[np.float64]]:
    """Of every functional (n, y, x), and their joint covariance (n, n)."""
    level, flat = checked_level(level), functionals.reshape(len(functionals), -1)
    pushed, resolved = result.pushed(functionals)
    place = (PLACE * slope(result.mean).ravel()) ** 2
    between = (flat * place) @ flat.T
    covariance = flat @ pushed.reshape(len(pushed), -1).T
    values = flat @ result.mean.ravel().astype(np.float64)
    if not (np.isfinite(values).all() and np.isfinite(covariance).all()):
        raise InputError("The result holds pixels that are NaN or infinite, of which nothing can be measured; make it again.")
    told = []
    for i, name in enumerate(names):
        variances = (float(covariance[i, i]), float(np.sum(functionals[i] * resolved[i])))
        budget = result.split(functionals[i], resolved[i], variances)
        budget[BETWEEN] = float(between[i, i])
        variance = variances[0] + budget[BETWEEN]
        told.append(gaussian_quantity(name, float(values[i]), variance, level=level, unit=UNIT, budget=budget))
    return tuple(told), covariance + between
