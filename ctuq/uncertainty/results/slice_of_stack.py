"""One slice of a stack's result, which answers the questions that a single slice's result does."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctuq.quantities.drawn import POSTERIOR
from ctuq.tomo.geometry import VolumeGrid
from ctuq.uncertainty.results.questions import Questions


@dataclass(frozen=True, eq=False)
class StackSlice(Questions):
    """A slice with its covariance, as the stack's file keeps it.

    The variance of a quantity is split into hidden errors, such as beam hardening, and all else: a stack keeps no weights of
    its rays, which would tell noise and missing views apart.

    Parameters
    ----------
    number : int
        From the lowest, which is 0.
    z : float
        Height of its middle, mm.
    mean, std : array of float32, shape (y, x)
        1/mm.
    grid : VolumeGrid
        Of the slice, (y, x).
    directions : array of float32, shape (k, y, x)
    waves : int
        See `ctuq.uncertainty.results.kept_covariance`.
    hidden : mapping of str to array, shape (y, x)
        Of each error that no ray tells, in words, what a standard deviation of it does to the image.
    scanner : str
        Its name.
    """

    number: int
    z: float
    mean: NDArray[np.float32]
    std: NDArray[np.float32] | None
    grid: VolumeGrid
    directions: NDArray[np.float32] | None
    waves: int
    hidden: Mapping[str, NDArray[np.float64]]
    scanner: str

    @property
    def instrument(self) -> str:
        """Name of the scanner; empty where it is not told."""
        return self.scanner

    @property
    def effects(self) -> Mapping[str, NDArray[np.float64]]:
        """Of each hidden error, in words, what a standard deviation of it does to the slice."""
        return self.hidden

    def split(
        self, functional: NDArray[np.float64], resolved: NDArray[np.float64], variances: tuple[float, float]
    ) -> dict[str, float]:
        """Variance of a linear quantity by its source."""
        del resolved
        hidden = {name: along**2 for name, along in self.hidden_along(functional).items()}
        return {POSTERIOR: max(variances[0] - sum(hidden.values()), 0.0)} | hidden
