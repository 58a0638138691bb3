"""The questions that a volume's result answers, by its samples, or through the slices of a stack.

What each is stands in `ctuq.quantities.sampled` and `ctuq.quantities.through`.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.errors import InputError
from ctuq.quantities import drawn, sampled, through
from ctuq.quantities.parts import require_size
from ctuq.quantities.quantity import LEVEL, Quantity
from ctuq.quantities.solids import Pitches, Solid, sections_of, shares_of_solid
from ctuq.systematics.catalogue import KINDS
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.scan import Provenance
from ctuq.uncertainty.results.slice_of_stack import StackSlice

NO_COVARIANCE = (
    "The result holds no covariance of slices, which stacks with error bars keep (--stack); reconstruct one, with room for it "
    "by --covariance."
)
_REMEMBERED = 2**26
"""Values of slices' directions to keep, 256 MiB."""
OF_SLICES = "{what} is of single slices of a stack; ask one of them (in Python result.slice(3))."
_Part = tuple[slice, ...]
Ends = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


class MeasuredVolume:
    """A volume's result with samples of its voxels, or of those of ``roi``; or a stack's with the covariance of each slice.

    Everywhere a region is a `ctuq.quantities.Sphere`, `Box` or `Cylinder` in mm, or a mask (z, y, x) of true and false or of
    each voxel's share, of the whole volume or of ``roi``. ``level`` is the probability that intervals are to hold. Of a volume
    all of it comes from the samples, usually 32: their number is in each interval and in `Quantity.monte_carlo_error`. Of a
    stack it comes from the slices' covariances and from how alike their held-out rays err; `slice` answers for one slice.
    """

    mean: NDArray[np.float32]
    grid: VolumeGrid
    slice_pitch: float | None
    samples: NDArray[np.float32] | None
    roi: Ends | None
    std: NDArray[np.float32] | None
    directions: NDArray[np.float32] | None
    waves: int
    hidden: tuple[str, ...]
    effects: NDArray[np.float32] | None
    alike: NDArray[np.float64] | None
    provenance: Provenance
    slices: Mapping[str, NDArray]

    @property
    def pitches(self) -> Pitches:
        """Steps from voxel to voxel along (z, y, x), mm."""
        return (self.slice_pitch or self.grid.voxel, self.grid.voxel, self.grid.voxel)

    def slice(self, number: int) -> StackSlice:
        """One slice of a stack, which answers as a single slice's result does.

        Parameters
        ----------
        number : int
            From the lowest, which is 0.

        Raises
        ------
        InputError
            If there is no such slice, it could not be made, or the result holds no covariance.
        """
        count = self.grid.shape[0]
        if self.directions is None or self.std is None:
            raise InputError(NO_COVARIANCE)
        if number in self._slices:
            return self._slices[number]
        if not 0 <= number < count:
            raise InputError(f"There is no slice {number}; the stack has 0 to {count - 1}.")
        mean, std, directions = (np.asarray(part[number]) for part in (self.mean, self.std, self.directions))
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and np.isfinite(directions).all()):
            raise InputError(
                f"Slice {self.numbers[number]} could not be made and holds no numbers; choose slices or a region without it."
            )
        effects = () if self.effects is None else np.asarray(self.effects[number], np.float64)
        one = StackSlice(
            number,
            self.grid.centre[2] + (number - (count - 1) / 2) * self.pitches[0],
            mean,
            std,
            VolumeGrid(self.grid.shape[1:], self.grid.voxel, self.grid.centre[:2]),
            directions,
            self.waves,
            {KINDS[name].what: effect for name, effect in zip(self.hidden, effects, strict=True)},
            self.provenance.facts.get("instrument", ""),
        )
        if (len(self._slices) + 1) * directions.size <= _REMEMBERED:
            self._slices[number] = one
        return one

    @cached_property
    def _slices(self) -> dict[int, StackSlice]:
        """Slices that were asked before: many quantities of one stack ask for the same, each of which works out D anew."""
        return {}

    @property
    def made(self) -> list[int]:
        """Places of the slices of a stack that could be made; 0 is the lowest."""
        return [z for z in range(self.grid.shape[0]) if np.isfinite(self.mean[z]).all()]

    @property
    def numbers(self) -> list[int]:
        """What the slices of a stack are called: their numbers in the scan, of which the stack may have some."""
        return [int(number) for number in self.slices.get("number", range(self.grid.shape[0]))]

    def region(self, region: Solid | ArrayLike, *, name: str = "mean", level: float = LEVEL) -> Quantity:
        """Mean attenuation of a region, 1/mm: the volume's own, with the standard deviation of the samples.

        Raises
        ------
        InputError
            If the region does not lie in the voxels that have samples, or these are fewer than 8.
        """
        if self.directions is not None:
            return through.mean_of(self, region, name=name, level=level)
        return self._linear(self._weights(region), name, level)

    def contrast(self, a: Solid | ArrayLike, b: Solid | ArrayLike, *, name: str = "contrast", level: float = LEVEL) -> Quantity:
        """Mean attenuation of region ``a`` less that of ``b``; parameters and errors as of `region`."""
        if self.directions is not None:
            return through.contrast(self, a, b, name=name, level=level)
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
            of 32 samples, where it is about one half. Of stacks it is asked of single slices, see `slice`.
        """
        limits = {"above": above, "below": below}
        if self.directions is not None:
            if at_least is not None:
                raise InputError(OF_SLICES.format(what="The probability of a connected part"))
            return through.probability_of_mean(self, region, **limits, name=name)
        if at_least is None:
            return sampled.probability_of_samples(self.region(region), **limits, name=name)
        shares, voxel = self._shares(region), float(np.prod(self.pitches))
        require_size(at_least, float(shares.sum()) * voxel, voxel, "mm^3", "voxel")
        return sampled.part_of_samples(self.samples, shares, at_least / voxel, **limits, name=name)

    def fraction(
        self,
        region: Solid | ArrayLike,
        *,
        above: float | None = None,
        below: float | None = None,
        name: str = "fraction",
        level: float = LEVEL,
        tolerance: float = drawn.TOLERANCE,
        seed: int = 0,
    ) -> Quantity:
        """Of a stack: share of a region's volume that lies above, or below, an attenuation in 1/mm, such as its porosity.

        Parameters
        ----------
        region : Sphere, Box, Cylinder or mask
        above, below, name, level, tolerance, seed
            As of `ctuq.Result.fraction`.

        Raises
        ------
        InputError
            If the result holds no covariance, as no volume's does.
        """
        self._require_covariance()
        return through.fraction(self, region, above=above, below=below, name=name, level=level, tolerance=tolerance, seed=seed)

    def size(
        self,
        region: Solid | ArrayLike,
        *,
        above: float | None = None,
        below: float | None = None,
        name: str = "volume",
        level: float = LEVEL,
        tolerance: float = drawn.TOLERANCE,
        seed: int = 0,
    ) -> Quantity:
        """Of a stack: volume in mm^3 of what lies above, or below, an attenuation in a region; as `fraction`."""
        found = self.fraction(region, above=above, below=below, name=name, level=level, tolerance=tolerance, seed=seed)
        return found.scaled(self.mm3(region), "mm^3")

    def mm3(self, region: Solid | ArrayLike) -> float:
        """Volume of a region, mm^3."""
        shares = (float(section.sum()) for _, section in sections_of(region, self.grid, self.pitches))
        return sum(shares) * float(np.prod(self.pitches))

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
        if self.directions is not None:
            raise InputError(OF_SLICES.format(what="A joint covariance"))
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
        if self.directions is not None:
            raise InputError(OF_SLICES.format(what="A function of draws"))
        return sampled.of_samples(self.samples, function, name=name, unit=unit, level=level)

    def _require_covariance(self) -> None:
        if self.directions is None:
            raise InputError(NO_COVARIANCE)

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

    def _part(self) -> _Part:
        return tuple(slice(*ends) for ends in self.roi or ((0, n) for n in self.grid.shape))
