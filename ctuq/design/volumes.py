"""Which angles of a volume's scan next: the same design, of coarse voxels and a detector whose pixels are averaged to match.

What an angle is worth shows in coarse voxels already, and their covariance fits: of V candidate views of n rays each, over d
voxels, the first scores take ``nnz(A) d`` operations, and every view that was measured ``n^2 d`` and a product more. At
16 voxels across, 72 candidates and 20 measured views that is seconds, at 24 minutes.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.design.area import averaged, binned_beam, flat_transform
from ctuq.design.models.learners import learner
from ctuq.design.models.lindip import LinDIPOptions
from ctuq.design.models.model import Learn
from ctuq.design.problem import DesignProblem
from ctuq.errors import GeometryError, InputError
from ctuq.pipeline.volume.job import VolumeOptions, grid_of_volume
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.tomo.space import ConeBeam, Parallel3D
from ctuq.tomo.volume_scan import VolumeScan

_TURN = 2 * np.pi
_SAME = np.deg2rad(0.01)


@dataclass(frozen=True, eq=False)
class CoarseScan:
    """A volume's scan as design sees it.

    Parameters
    ----------
    problem : DesignProblem
        Of the measured views and of the candidates; only these may be asked for.
    measured : array, radians, shape (k,)
    projections, weights : array, shape (k, n)
        Of the measured views, averaged over ``bins`` pixels of the detector.
    bins : tuple of int
        Along rows and columns.
    """

    problem: DesignProblem
    measured: NDArray[np.float64]
    projections: NDArray[np.float32]
    weights: NDArray[np.float32]
    bins: tuple[int, int]


def coarse_scan(scan: VolumeScan, candidates: ArrayLike, *, size: int = 16, **settings) -> CoarseScan:
    """A scan of a volume with the angles that could be measured next.

    Parameters
    ----------
    scan : VolumeScan
        What was measured so far.
    candidates : array, radians
        Angles that may be asked for; those of measured views are left out.
    size : int
        Voxels along x and y.
    **settings
        Of `DesignProblem`.

    Raises
    ------
    GeometryError
        If the vectors are free, or a view misses the volume.
    InputError
        If no candidate is left.
    """
    beam = scan.geometry
    if not isinstance(beam, ConeBeam | Parallel3D):
        raise GeometryError("The next angle of a scan with free vectors is not defined; give a cone or a parallel beam.")
    fresh = _fresh(np.asarray(candidates, np.float64).reshape(-1), beam.angles)
    if not len(fresh):
        raise InputError("All candidate angles were measured; give others with --candidates.")
    grid = grid_of_volume(scan, VolumeOptions(size=size))
    coarse, bins = binned_beam(beam, grid)
    coarse = replace(coarse, angles=np.concatenate([beam.angles, fresh]))
    A = flat_transform(grid, coarse)
    projections, weights = averaged(scan.projections, scan.weights, bins)
    askable = np.arange(coarse.n_angles) >= beam.n_angles
    problem = DesignProblem(A=A, askable=askable, repeat=True, **settings)
    return CoarseScan(problem, beam.angles, projections, weights, bins)


def volume_learner(prior: str) -> Learn:
    """How the model of a named prior is learned of a volume: as `ctuq.design.learner`, with a network of three axes."""
    return learner(prior, dip=LinDIPOptions(dip=DIPOptions(network=UNetOptions(dims=3))))


def _fresh(candidates: NDArray[np.float64], measured: NDArray[np.float64]) -> NDArray[np.float64]:
    apart = np.abs((candidates[:, None] - measured + np.pi) % _TURN - np.pi)
    return candidates[(apart > _SAME).all(axis=1)]
