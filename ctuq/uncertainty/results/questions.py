"""The questions that an image with a covariance answers; what each quantity is stands in `ctuq.quantities`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.quantities import drawn, edges, linear, parts, thresholds
from ctuq.quantities.linear import Profile
from ctuq.quantities.lines import Point
from ctuq.quantities.quantity import LEVEL, Quantity
from ctuq.quantities.regions import Region
from ctuq.tomo.arrays import as_whole
from ctuq.tomo.geometry import VolumeGrid
from ctuq.uncertainty.results.kept_covariance import KeptCovariance

_REMEMBERED = 2**23
"""Values of draws to keep, 32 MiB."""


class Questions(ABC):
    """An image with a covariance that is kept: of a result, or of one slice of a stack.

    Everywhere a region is a `ctuq.quantities.Circle`, `Rectangle` or `Polygon` in mm, or a mask (y, x) of true and false or of
    each pixel's share; points are (x, y) in mm. ``level`` is the probability that intervals are to hold.
    """

    mean: NDArray[np.float32]
    grid: VolumeGrid
    std: NDArray[np.float32] | None
    directions: NDArray[np.float32] | None
    waves: int

    @property
    @abstractmethod
    def instrument(self) -> str:
        """Name of the scanner; empty where it is not told."""

    @abstractmethod
    def split(
        self, functional: NDArray[np.float64], resolved: NDArray[np.float64], variances: tuple[float, float]
    ) -> dict[str, float]:
        """Variance of a linear quantity by its source."""

    @property
    @abstractmethod
    def effects(self) -> Mapping[str, NDArray[np.float64]]:
        """Of each hidden error, in words, what a standard deviation of it does to the image."""

    def region(self, region: Region, *, name: str = "mean", level: float = LEVEL) -> Quantity:
        """Mean attenuation of a region, 1/mm.

        Parameters
        ----------
        region : Circle, Rectangle, Polygon or mask
        name : str
            Of the quantity.
        level : float

        Raises
        ------
        InputError
            If the region does not lie in the image, or the result holds no covariance.
        """
        return linear.mean_of(self, region, name=name, level=level)

    def contrast(self, a: Region, b: Region, *, name: str = "contrast", level: float = LEVEL) -> Quantity:
        """Mean attenuation of region ``a`` less that of ``b``; parameters and errors as of `region`."""
        return linear.contrast(self, a, b, name=name, level=level)

    def profile(self, p: Point, q: Point, *, step: float | None = None, name: str = "profile", level: float = LEVEL) -> Profile:
        """Attenuation along a line, with the interval of each point and their joint covariance.

        Parameters
        ----------
        p, q : tuple of float
            Ends, mm.
        step : float, optional
            From point to point, mm; half a pixel by default.
        """
        return linear.profile(self, p, q, step=step, name=name, level=level)

    def difference(self, other: "Questions", region: Region, *, name: str = "difference", level: float = LEVEL) -> Quantity:
        """Mean of a region here less that in another result on the same grid, to say whether a change is real.

        Errors that no ray tells, such as beam hardening, are taken to be the same where both scans are of one instrument (by
        its name, or unnamed). Else the two err independently: what both get wrong alike cancels in the value and not in its
        uncertainty, which is too large then: three times, where nothing changed. Of a region that ends where the change ends
        the value is too small, as the image is blurred there, and the interval longer for it.
        """
        return linear.difference(self, other, region, name=name, level=level)

    def probability(
        self,
        region: Region,
        *,
        above: float | None = None,
        below: float | None = None,
        at_least: float | None = None,
        name: str = "probability",
        tolerance: float = parts.TOLERANCE,
        seed: int = 0,
    ) -> Quantity:
        """Probability that the mean of a region, or a connected part of it, lies above, or below, an attenuation in 1/mm.

        Its ``standard_uncertainty`` is that of the yes or no itself, ``sqrt(p (1 - p))``; it has no interval.

        Parameters
        ----------
        at_least : float, optional
            Size in mm^2: asks whether any connected part of the region that is as large lies there, such as a void or an
            inclusion, in place of the mean. It is counted over draws, and ``monte_carlo_error`` is the standard error of that.
        tolerance : float
            Standard error of the counted probability at which the draws end.

        Raises
        ------
        InputError
            If the size is below one pixel or above the region's.
        """
        limits = {"above": above, "below": below}
        if at_least is None:
            return linear.probability_of_mean(self, region, **limits, name=name)
        return parts.probability_of_part(self, region, at_least, **limits, name=name, tolerance=tolerance, seed=seed)

    def fraction(
        self,
        region: Region,
        *,
        above: float | None = None,
        below: float | None = None,
        name: str = "fraction",
        level: float = LEVEL,
        tolerance: float = drawn.TOLERANCE,
        seed: int = 0,
    ) -> Quantity:
        """Share of a region's area that lies above, or below, an attenuation in 1/mm, such as its porosity.

        Parameters
        ----------
        region : Circle, Rectangle, Polygon or mask
        above, below : float
            One of them, 1/mm. Half way between two materials is where blur moves edges least.
        name : str
            Of the quantity.
        tolerance : float
            Relative error of the standard deviation by draws at which these end.
        seed : int
            Of the draws.
        """
        return thresholds.fraction(
            self, region, above=above, below=below, name=name, level=level, tolerance=tolerance, seed=seed
        )

    def area(
        self,
        region: Region,
        *,
        above: float | None = None,
        below: float | None = None,
        name: str = "area",
        level: float = LEVEL,
        tolerance: float = drawn.TOLERANCE,
        seed: int = 0,
    ) -> Quantity:
        """Area in mm^2 of what lies above, or below, an attenuation in a region; parameters as of `fraction`."""
        return thresholds.area(self, region, above=above, below=below, name=name, level=level, tolerance=tolerance, seed=seed)

    def centre(
        self,
        region: Region,
        *,
        above: float | None = None,
        below: float | None = None,
        name: str = "centre",
        level: float = LEVEL,
        tolerance: float = drawn.TOLERANCE,
        seed: int = 0,
    ) -> tuple[Quantity, Quantity]:
        """Centre (x, y) in mm of what lies above, or below, an attenuation in a region; parameters as of `fraction`."""
        return thresholds.centre(self, region, above=above, below=below, name=name, level=level, tolerance=tolerance, seed=seed)

    def thickness(
        self,
        p: Point,
        q: Point,
        at: float | None = None,
        *,
        name: str = "thickness",
        level: float = LEVEL,
        tolerance: float = drawn.TOLERANCE,
        seed: int = 0,
    ) -> Quantity:
        """Width in mm of the wall, gap or hole that the line from p to q crosses: between its edges at the attenuation ``at``.

        Parameters
        ----------
        p, q : tuple of float
            mm; the line has exactly two edges.
        at : float, optional
            1/mm, near half way between what is inside and outside; exactly there by default.
        """
        return edges.thickness(self, p, q, at, name=name, level=level, tolerance=tolerance, seed=seed)

    def measure(
        self,
        function: Callable[[NDArray[np.float32]], float],
        *,
        name: str = "function",
        unit: str = "",
        level: float = LEVEL,
        tolerance: float = drawn.TOLERANCE,
        seed: int = 0,
    ) -> Quantity:
        """Any function of the image, from draws of the posterior.

        Parameters
        ----------
        function : callable
            Takes an image (y, x) in 1/mm, gives a number.
        tolerance : float
            Relative error of the standard deviation at which the draws end.
        """
        return drawn.measured(self, function, name=name, unit=unit, level=level, tolerance=tolerance, seed=seed)

    def draw(self, n: int, *, seed: int = 0) -> NDArray[np.float32]:
        """``n`` further draws of the image, (n, y, x), from the covariance that `Result.covariance` uses."""
        n, seed = as_whole(n, "The number of draws"), as_whole(seed, "The seed")
        if n < 0 or seed < 0:
            raise InputError(f"Neither the number of draws nor the seed can be negative, got {n} and {seed}.")
        if (n, seed) not in self._draws:
            made = (self.mean + self._kept.draw(n, np.random.default_rng(seed))).astype(np.float32)
            if sum(each.size for each in self._draws.values()) + made.size > _REMEMBERED:
                return made
            self._draws[n, seed] = made
        return self._draws[n, seed].copy()

    @cached_property
    def _draws(self) -> dict[tuple[int, int], NDArray[np.float32]]:
        """Draws that were made before: many quantities of one result ask for the same."""
        return {}

    def pushed(self, functionals: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The image's covariance with linear functionals (n, y, x), and the part that the kept directions hold; same shape."""
        flat = np.asarray(functionals, np.float64).reshape(len(functionals), -1)
        shape = (-1, *self.mean.shape)
        return self._kept.times(flat).reshape(shape), self._kept.resolved(flat).reshape(shape)

    @property
    def std_rays(self) -> NDArray[np.float32] | None:
        """``std`` without systematic errors that no ray tells, such as beam hardening: it shows where rays are missing.

        None where the error bars hold no such error.
        """
        if self.std is None or not self.effects:
            return None
        hidden = np.sum([effect**2 for effect in self.effects.values()], axis=0)
        return np.sqrt(np.maximum(self.std.astype(np.float64) ** 2 - hidden, 0)).astype(np.float32)

    def hidden_along(self, functional: NDArray[np.float64]) -> dict[str, float]:
        """What a standard deviation of each error that no ray tells adds to a linear functional (y, x), by its name."""
        return {name: float(np.sum(functional * effect)) for name, effect in self.effects.items()}

    @cached_property
    def _kept(self) -> KeptCovariance:
        if self.std is None or self.directions is None:
            raise InputError("The result holds no covariance; reconstruct with error bars and directions.")
        return KeptCovariance(self.directions, self.std, self.waves)
