"""Views of an area detector as a design sees them: rows of rays of coarse pixels, in place of a sinogram's columns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctuq.linops.memory import require_memory
from ctuq.tomo.footprint import averaged_beam, pitches, require_shadow
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.joseph import build_volume_matrix, rays_of
from ctuq.tomo.rays.matrix import MatrixRayTransform
from ctuq.tomo.space import ConeBeam, Parallel3D
from ctuq.tomo.volume_scan import averaged_pixels

OrbitBeam = ConeBeam | Parallel3D
_BUILT = 32


@dataclass(frozen=True, eq=False)
class FlatViews:
    """Views of an area detector as rows of rays: what design asks of a geometry.

    Parameters
    ----------
    beam : ConeBeam or Parallel3D
    """

    beam: OrbitBeam

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


def binned_beam(beam: OrbitBeam, grid: VolumeGrid) -> tuple[OrbitBeam, tuple[int, int]]:
    """The beam with as many pixels averaged as fit into a voxel at the axis; pixels that are left over fall off at the end."""
    wanted = (max(1, int(grid.voxel / pitch + 0.5)) for pitch in pitches(beam))
    rows, columns = (min(b, n) for b, n in zip(wanted, (beam.rows, beam.columns), strict=True))
    return averaged_beam(beam, (rows, columns)), (rows, columns)


def averaged(
    projections: NDArray[np.float32], weights: NDArray[np.float32] | None, bins: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Projections and weights (row, angle, column), averaged over so many rows and columns, as rows of rays (angle, ray)."""
    flat = averaged_pixels(projections, weights, bins)
    return tuple(np.ascontiguousarray(a.swapaxes(0, 1).reshape(a.shape[1], -1), np.float32) for a in flat)  # pyright: ignore[reportReturnType]


def flat_transform(grid: VolumeGrid, beam: OrbitBeam) -> FlatTransform:
    """The ray transform of all views of a beam.

    Raises
    ------
    GeometryError
        If a view misses the volume.
    ResourceError
        If the matrix does not fit into memory.
    """
    require_shadow(grid, beam)
    require_memory(
        _BUILT * rays_of(grid, beam).entries, "Rays of all candidates", "choose fewer --candidates or a smaller --size"
    )
    views = FlatViews(beam)
    order = np.arange(int(np.prod(beam.shape))).reshape(beam.shape).swapaxes(0, 1).reshape(-1)
    return FlatTransform(build_volume_matrix(grid, beam)[order], grid, views)  # pyright: ignore[reportArgumentType]
