"""Which angles of a volume's scan next: the same design, of coarse voxels and a detector whose pixels are averaged to match.

What an angle is worth shows in coarse voxels already, and their covariance fits: of V candidate views of n rays each, over d
voxels, the first scores take ``nnz(A) d`` operations, and every view that was measured ``n^2 d`` and a product more. At
16 voxels across, 72 candidates and 20 measured views that is seconds, at 24 minutes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.design.models.learners import learner
from ctuq.design.models.lindip import LinDIPOptions
from ctuq.design.models.model import Learn
from ctuq.design.problem import DesignProblem
from ctuq.errors import GeometryError, InputError
from ctuq.linops.memory import require_memory
from ctuq.pipeline.volume.job import VolumeOptions, volume_of
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.tomo.footprint import pitches, require_shadow
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.joseph import build_volume_matrix, rays_of
from ctuq.tomo.rays.matrix import MatrixRayTransform
from ctuq.tomo.scan import binned_rays
from ctuq.tomo.space import ConeBeam, Parallel3D
from ctuq.tomo.volume_scan import VolumeScan

_TURN = 2 * np.pi
_SAME = np.deg2rad(0.01)
_BUILT = 32


@dataclass(frozen=True, eq=False)
class FlatViews:
    """Views of an area detector as rows of rays: what design asks of a geometry.

    Parameters
    ----------
    beam : ConeBeam or Parallel3D
    """

    beam: ConeBeam | Parallel3D

    @property
    def angles(self) -> NDArray[np.float64]:
        """Of the views, radians, (V,)."""
        return self.beam.angles

    @property
    def columns(self) -> int:
        """Rays of a view, row by row."""
        return self.beam.rows * self.beam.columns

    @property
    def shape(self) -> tuple[int, int]:
        """Of the projections, (view, ray)."""
        return self.beam.n_angles, self.columns

    def subset(self, indices: Sequence[int] | NDArray) -> "FlatViews":
        """The chosen views."""
        return FlatViews(self.beam.subset(indices))


class FlatTransform(MatrixRayTransform):
    """The ray transform of a volume to views as rows of rays."""

    def subset(self, indices: Sequence[int] | NDArray) -> "FlatTransform":
        """The ray transform of the chosen views."""
        part = super().subset(indices)
        return FlatTransform(part.matrix, part.grid, part.geometry, part.device)


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
    grid = volume_of(scan, VolumeOptions(size=size))
    coarse, bins = _binned_beam(beam, grid)
    coarse = replace(coarse, angles=np.concatenate([beam.angles, fresh]))
    A = _matrix(grid, coarse)
    projections, weights = _binned(scan, bins)
    askable = np.arange(coarse.n_angles) >= beam.n_angles
    problem = DesignProblem(A=A, askable=askable, repeat=True, **settings)
    return CoarseScan(problem, beam.angles, projections, weights, bins)


def volume_learner(prior: str) -> Learn:
    """How the model of a named prior is learned of a volume: as `ctuq.design.learner`, with a network of three axes."""
    return learner(prior, dip=LinDIPOptions(dip=DIPOptions(network=UNetOptions(dims=3))))


def _fresh(candidates: NDArray[np.float64], measured: NDArray[np.float64]) -> NDArray[np.float64]:
    apart = np.abs((candidates[:, None] - measured + np.pi) % _TURN - np.pi)
    return candidates[(apart > _SAME).all(axis=1)]


def _binned_beam(beam: ConeBeam | Parallel3D, grid: VolumeGrid) -> tuple[ConeBeam | Parallel3D, tuple[int, int]]:
    """The beam with as many pixels averaged as fit into a voxel at the axis; pixels that are left over fall off at the end."""
    wanted = (max(1, int(grid.voxel / pitch + 0.5)) for pitch in pitches(beam))
    rows, columns = (min(b, n) for b, n in zip(wanted, (beam.rows, beam.columns), strict=True))
    left_rows, left_columns = beam.rows % rows, beam.columns % columns
    coarse = replace(
        beam,
        rows=beam.rows // rows,
        columns=beam.columns // columns,
        pixel=beam.pixel * columns,
        row_pixel=beam.row_pitch * rows,
        detector_offset=beam.detector_offset - left_columns * beam.pixel / 2,
        row_offset=beam.row_offset - left_rows * beam.row_pitch / 2,
    )
    return coarse, (rows, columns)


def _binned(scan: VolumeScan, bins: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    y, w = scan.projections, np.ones_like(scan.projections) if scan.weights is None else scan.weights
    for axis, factor in zip((0, 2), bins, strict=True):
        lines = [np.moveaxis(a, axis, -1) for a in (y, w)]
        shape = lines[0].shape[:-1]
        flat = binned_rays(*(a.reshape(-1, a.shape[-1]) for a in lines), factor)
        y, w = (np.moveaxis(np.asarray(a).reshape(*shape, -1), -1, axis) for a in flat)
    return tuple(np.ascontiguousarray(a.swapaxes(0, 1).reshape(a.shape[1], -1), np.float32) for a in (y, w))  # pyright: ignore[reportReturnType]


def _matrix(grid: VolumeGrid, beam: ConeBeam | Parallel3D) -> FlatTransform:
    require_shadow(grid, beam)
    require_memory(
        _BUILT * rays_of(grid, beam).entries, "Rays of all candidates", "choose fewer --candidates or a smaller --size"
    )
    views = FlatViews(beam)
    order = np.arange(int(np.prod(beam.shape))).reshape(beam.shape).swapaxes(0, 1).reshape(-1)
    return FlatTransform(build_volume_matrix(grid, beam)[order], grid, views)  # pyright: ignore[reportArgumentType]
