"""The questions that a result answers: quantities with intervals. What each is stands in `ctuq.quantities`."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.quantities import drawn, linear
from ctuq.quantities.budget import VarianceBudget
from ctuq.quantities.linear import Profile
from ctuq.quantities.lines import Point
from ctuq.quantities.quantity import LEVEL, Quantity
from ctuq.quantities.regions import Region
from ctuq.uncertainty.contents import Contents
from ctuq.uncertainty.kept import KeptCovariance


class Measured(Contents):
    """A result with a covariance that is kept.

    Everywhere a region is a `ctuq.quantities.Circle`, `Rectangle` or `Polygon` in mm, or a mask (y, x) of true and false or of
    each pixel's share; points are (x, y) in mm. ``level`` is the probability that intervals are to hold.
    """

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

    def difference(self, other: "Measured", region: Region, *, name: str = "difference", level: float = LEVEL) -> Quantity:
        """Mean of a region here less that in another result on the same grid, to say whether a change is real.

        The two scans are taken to err independently. What both get wrong alike cancels in the value and not in its
        uncertainty, which is too large then.
        """
        return linear.difference(self, other, region, name=name, level=level)

    def probability(
        self, region: Region, *, above: float | None = None, below: float | None = None, name: str = "probability"
    ) -> Quantity:
        """Probability that the mean of a region lies above, or below, an attenuation in 1/mm.

        Its ``standard_uncertainty`` is that of the yes or no itself, ``sqrt(p (1 - p))``; it has no interval.
        """
        return linear.probability_of_mean(self, region, above=above, below=below, name=name)

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
        if n < 0 or seed < 0:
            raise InputError(f"Neither the number of draws nor the seed can be negative, got {n} and {seed}.")
        return (self.mean + self._kept.draw(n, np.random.default_rng(seed))).astype(np.float32)

    def pushed(self, functionals: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The image's covariance with linear functionals (n, y, x), and the part that the kept directions hold; same shape."""
        flat = np.asarray(functionals, np.float64).reshape(len(functionals), -1)
        shape = (-1, *self.mean.shape)
        return self._kept.times(flat).reshape(shape), self._kept.resolved(flat).reshape(shape)

    def split(self, resolved: NDArray[np.float64], variances: tuple[float, float]) -> dict[str, float]:
        """Variance of a linear quantity by its source, see `ctuq.quantities.budget.VarianceBudget`."""
        return self._budget(resolved, variances)

    @cached_property
    def _budget(self) -> VarianceBudget:
        scales = (1.0, 1.0) if self.calibration is None else (self.calibration.image_scale, self.calibration.noise_scale)
        return VarianceBudget(self.scan, self.grid, sigma2=self.sigma2 / scales[1], image_scale=scales[0])

    @cached_property
    def _kept(self) -> KeptCovariance:
        if self.std is None or self.directions is None:
            raise InputError("The result holds no covariance; reconstruct by dip, with uncertainty and directions.")
        return KeptCovariance(self.directions, self.std, self.waves)
