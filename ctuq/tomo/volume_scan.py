"""A scan of a volume: projections of an area detector, their geometry and weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.scan import Provenance, chosen_views, own_arrays
from ctuq.tomo.space import VolumeGeometry


@dataclass(frozen=True, eq=False)
class VolumeScan:
    """Log-corrected projections of an area detector with their geometry.

    Parameters
    ----------
    projections : array of float32, shape ``geometry.shape``
        Line integrals of attenuation (no unit), ``(row, angle, column)``.
    geometry : ConeBeam, Parallel3D or FreeBeam
        How they were taken.
    weights : array of float32, same shape, optional
        Relative precision of each ray; None means all ones.
    truth : array of float32, shape ``grid.shape``, optional
        Known attenuation in 1/mm, (z, y, x).
    grid : VolumeGrid, optional
        The grid of the truth, or the one that the file asks for.
    provenance : Provenance

    Raises
    ------
    InputError
        If shapes disagree, or projections or weights hold NaN, inf or (weights) negative numbers.
    """

    projections: NDArray[np.float32]
    geometry: VolumeGeometry
    weights: NDArray[np.float32] | None = None
    truth: NDArray[np.float32] | None = None
    grid: VolumeGrid | None = None
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self):
        own_arrays(self, self.geometry.shape)

    @property
    def n_angles(self) -> int:
        """Number of views."""
        return self.geometry.n_angles

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was assumed, repaired, searched for or left out, one sentence each; see `Provenance`."""
        return self.provenance.warnings

    def warned(self, *sentences: str) -> "VolumeScan":
        """The same scan with more warnings."""
        return replace(self, provenance=self.provenance.warned(*sentences))

    def select(self, indices: Sequence[int] | NDArray) -> "VolumeScan":
        """The scan of the chosen views, in the order given.

        Raises
        ------
        InputError
            If no view is chosen, or one is chosen that does not exist.
        """
        chosen = chosen_views(indices, self.n_angles)
        return replace(
            self,
            projections=self.projections[:, chosen],
            weights=None if self.weights is None else self.weights[:, chosen],
            geometry=self.geometry.subset(chosen),
            provenance=self.provenance.then(f"{chosen.size} of {self.n_angles} views selected"),
        )

    def every(self, step: int) -> "VolumeScan":
        """Every ``step``-th view, from the first."""
        if step < 1:
            raise InputError(f"'every' takes a positive whole number, got {step}.")
        return self.select(np.arange(0, self.n_angles, step))
