"""A scan of a volume: projections of an area detector, their geometry and weights."""

from dataclasses import dataclass

from ctuq.tomo.scan import Views
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
