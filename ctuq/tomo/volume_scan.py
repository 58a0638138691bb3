"""A scan of a volume: projections of an area detector, their geometry and weights."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctuq.tomo.scan import Views, binned_rays
from ctuq.tomo.space import VolumeGeometry


@dataclass(frozen=True, eq=False, repr=False)
class VolumeScan(Views[VolumeGeometry]):
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

    geometry: VolumeGeometry

    def rows(self, some: range) -> "VolumeScan":
        """The scan of evenly spaced rows, from the lowest; what is known of the volume stays as it is."""
        told = f"rows {some[0]} to {some[-1]} of {self.geometry.rows} chosen, counted from the lowest, step {some.step}"
        return self._part(np.s_[some.start : some.stop : some.step], self.geometry.part(rows=some), told)

    def cropped(self, first: int, last: int) -> "VolumeScan":
        """The scan of columns ``first`` to ``last - 1``."""
        told = f"cropped to columns {first} to {last - 1}"
        return self._part(np.s_[..., first:last], self.geometry.part(columns=range(first, last)), told)

    def _part(self, which: Any, geometry: VolumeGeometry, told: str) -> "VolumeScan":
        weights = None if self.weights is None else self.weights[which]
        provenance = self.provenance.then(told)
        return replace(self, projections=self.projections[which], geometry=geometry, weights=weights, provenance=provenance)


def averaged_pixels(
    projections: NDArray[np.float32], weights: NDArray[np.float32] | None, bins: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Projections and weights (row, angle, column), averaged over so many rows and columns, by their precision."""
    y, w = projections, np.ones_like(projections) if weights is None else weights
    for axis, factor in zip((0, 2), bins, strict=True):
        lines = [np.moveaxis(a, axis, -1) for a in (y, w)]
        shape = lines[0].shape[:-1]
        flat = binned_rays(*(a.reshape(-1, a.shape[-1]) for a in lines), factor)
        y, w = (np.moveaxis(np.asarray(a).reshape(*shape, -1), -1, axis) for a in flat)
    return y, w
