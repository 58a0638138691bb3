"""The questions that a volume's result answers, by its samples. What each is stands in `ctuq.quantities.sampled`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.errors import InputError
from ctuq.quantities import sampled
from ctuq.quantities.parts import require_size
from ctuq.quantities.quantity import LEVEL, Quantity
from ctuq.quantities.solids import Pitches, Solid, shares_of_solid
from ctuq.tomo.geometry import VolumeGrid

Ends = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


class MeasuredVolume:
    """A volume's result with samples of its voxels, or of those of ``roi``.

    Everywhere a region is a `ctuq.quantities.Sphere` or `Box` in mm, or a mask (z, y, x) of true and false or of each voxel's
    share, of the whole volume or of ``roi``. ``level`` is the probability that intervals are to hold. All of it comes from the
    samples, usually 32: their number is in each interval and in `Quantity.monte_carlo_error`.
    """

    mean: NDArray[np.float32]
    grid: VolumeGrid
    slice_pitch: float | None
    samples: NDArray[np.float32] | None
    roi: Ends | None

    @property
    def pitches(self) -> Pitches:
        """Steps from voxel to voxel along (z, y, x), mm."""
        return (self.slice_pitch or self.grid.voxel, self.grid.voxel, self.grid.voxel)

    def region(self, region: Solid | ArrayLike, *, name: str = "mean", level: float = LEVEL) -> Quantity:
        """Mean attenuation of a region, 1/mm: the volume's own, with the standard deviation of the samples.

        Raises
        ------
        InputError
            If the region does not lie in the voxels that have samples, or these are fewer than 8.
        """
        return self._linear(self._weights(region), name, level)

    def contrast(self, a: Solid | ArrayLike, b: Solid | ArrayLike, *, name: str = "contrast", level: float = LEVEL) -> Quantity:
        """Mean attenuation of region ``a`` less that of ``b``; parameters and errors as of `region`."""
        return self._linear(self._weights(a) - self._weights(b), name, level)

    def probability(
        self,
        region: Solid | ArrayLike,
        *,
        above: float | None = None,
        below: float | None = None,
        at_least: float | None = None,
        name: str = "probability",
    ) -> Quantity:
        """Probability that the mean of a region, or a connected part of it, lies above, or below, an attenuation in 1/mm.

        Parameters
        ----------
        at_least : float, optional
            Size in mm^3: asks whether any connected part of the region that is as large lies there, such as a void or an
            inclusion, in place of the mean. It is the share of the samples, and ``monte_carlo_error`` its standard error: 0.09
            of 32 samples, where it is about one half.
        """
        limits = {"above": above, "below": below}
        if at_least is None:
            return sampled.probability_of_samples(self.region(region), **limits, name=name)
        shares, voxel = self._shares(region), float(np.prod(self.pitches))
        require_size(at_least, float(shares.sum()) * voxel, voxel, "mm^3", "voxel")
        return sampled.part_of_samples(self.samples, shares, at_least / voxel, **limits, name=name)

    def covariance(self, functionals: NDArray) -> NDArray[np.float64]:
        """Joint covariance of linear functionals of the volume by its samples.

        Unlike `ctuq.Result.covariance` it is Monte Carlo: of n samples each variance has the relative error
        `covariance_error`, 25 % of 32, and the rank is n - 1 at most.

        Parameters
        ----------
        functionals : array, shape (k, z, y, x)
            Weight of each voxel, of the whole volume or of ``roi``.

        Returns
        -------
        array of float64, shape (k, k)
            In 1/mm squared, for weights that sum to 1.

        Raises
        ------
        InputError
            If the shapes differ, weights lie outside of ``roi``, or there are fewer than 8 samples.
        """
        if np.ndim(functionals) != 4:
            raise InputError(f"The functionals have {np.ndim(functionals)} axes; give (n, z, y, x).")
        values = sampled.values_of(self.samples, np.stack([self._in_roi(np.asarray(each)) for each in functionals]))
        return np.atleast_2d(np.cov(values.T)).astype(np.float64)

    @property
    def covariance_error(self) -> float:
        """Relative standard error of each variance of `covariance`."""
        return sampled.covariance_error(sampled.require_samples(self.samples))

    def measure(
        self, function: Callable[[NDArray[np.float32]], float], *, name: str = "function", unit: str = "", level: float = LEVEL
    ) -> Quantity:
        """Any function of the voxels of ``roi`` (of all without one) by the samples; see `region`."""
        return sampled.of_samples(self.samples, function, name=name, unit=unit, level=level)

    def _linear(self, weights: NDArray[np.float64], name: str, level: float) -> Quantity:
        mean = np.asarray(self.mean[self._part()])
        return sampled.linear_of_samples(mean, self.samples, weights, name=name, level=level)

    def _weights(self, region: Solid | ArrayLike) -> NDArray[np.float64]:
        shares = self._shares(region)
        return shares / shares.sum()

    def _shares(self, region: Any) -> NDArray[np.float64]:
        sampled.require_samples(self.samples)
        part = tuple(last - first for first, last in self.roi) if self.roi is not None else self.grid.shape
        if not hasattr(region, "ends") and np.shape(region) == part:
            grid = VolumeGrid(part, self.grid.voxel)
            return shares_of_solid(region, grid, self.pitches)
        return self._in_roi(shares_of_solid(region, self.grid, self.pitches))

    def _in_roi(self, weights: NDArray) -> NDArray:
        """Weights of the voxels that have samples."""
        if self.roi is None or weights.shape != self.grid.shape:
            return weights
        inside = weights[self._part()]
        if np.count_nonzero(inside) != np.count_nonzero(weights):
            box = ",".join(f"{first}:{last}" for first, last in self.roi)
            raise InputError(f"The region reaches out of the voxels {box} (z, y, x) that have error bars; move it into them.")
        return inside

    def _part(self) -> tuple[slice, ...]:
        return tuple(slice(*ends) for ends in self.roi or ((0, n) for n in self.grid.shape))
