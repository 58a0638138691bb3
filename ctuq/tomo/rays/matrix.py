"""The ray transform as a pair of sparse matrices, built once by ASTRA and applied by torch on any device."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.errors import InputError
from ctuq.linops.operator import Space
from ctuq.linops.sparse import SparseMatrix
from ctuq.tomo.geometry import FanBeam, Geometry, VolumeGrid
from ctuq.tomo.rays.transform import RayTransform, multiply

_BLOCK_BYTES = 2**28


class MatrixPair:
    """A sparse matrix and its transpose, each brought to the device when it is first used."""

    def __init__(self, matrix: sp.csr_array, domain: Space, target: Space):
        self._matrix, self._domain, self._range = matrix, domain, target

    @cached_property
    def _forward(self) -> SparseMatrix:
        return SparseMatrix(self._matrix, self._domain.shape, self._domain.device)

    @cached_property
    def _transpose(self) -> SparseMatrix:
        return SparseMatrix(sp.csr_array(self._matrix.T), self._range.shape, self._range.device)

    def multiply(self, x: Tensor, transposed: bool) -> Tensor:
        return (self._transpose if transposed else self._forward)(x)


class MatrixRayTransform(RayTransform):
    """A ray transform held as a sparse matrix and its transpose.

    Parameters
    ----------
    matrix : scipy sparse array, shape (angles * columns, voxels)
        Rows in the order (angle, column), columns in the order (y, x).
    grid, geometry
        What the matrix was built for.
    device : torch.device
    """

    exact_transpose = True

    def __init__(self, matrix: sp.csr_array, grid: VolumeGrid, geometry: Geometry, device: torch.device | str = "cpu"):
        rows = int(np.prod(geometry.shape))
        if matrix.shape != (rows, grid.size):
            raise InputError(f"The matrix is {matrix.shape}, but geometry and grid ask for {(rows, grid.size)}.")
        device = torch.device(device)
        self.grid, self.geometry = grid, geometry
        self.domain = Space(grid.shape, torch.float32, device)
        self.range = Space(geometry.shape, torch.float32, device)
        self.matrix = sp.csr_array(matrix, dtype=np.float32)
        self._pair = MatrixPair(self.matrix, self.domain, self.range)

    def _apply(self, x: Tensor) -> Tensor:
        return multiply(x.flatten(1), self._pair, transposed=False).reshape(len(x), *self.range.shape)

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return multiply(y.flatten(1), self._pair, transposed=True).reshape(len(y), *self.domain.shape)

    def subset(self, indices: Sequence[int] | NDArray) -> "MatrixRayTransform":
        """The ray transform of the chosen views: their rows, copied; a transpose is made only if it is used."""
        indices = np.arange(self.range.shape[0])[np.asarray(indices)]
        columns = self.geometry.columns
        rows = (indices[:, None] * columns + np.arange(columns)).reshape(-1)
        return MatrixRayTransform(self.matrix[rows], self.grid, self.geometry.subset(indices), self.device)

    def __reduce__(self):
        return MatrixRayTransform, (self.matrix, self.grid, self.geometry, str(self.device))


def rays_per_pixel(grid: VolumeGrid, geometry: Geometry) -> int:
    """How many parallel or diverging rays stand for one detector pixel, so that a wide pixel integrates over its width.

    One ray to a voxel's width for a parallel beam, whose Joseph projector interpolates over that width already; two for a fan,
    whose line projector does not. Against a disc's mean chords
    over each pixel these counts are the best, or within a tenth of it, of 1, 2, 4 and 8.
    """
    density = 2 if isinstance(geometry, FanBeam) else 1
    return max(1, int(np.ceil(density * geometry.pixel_at_axis / grid.voxel - 1e-9)))


def expected_entries(grid: VolumeGrid, geometry: Geometry) -> float:
    """About how many non-zeros the rays have before those of one detector pixel are averaged."""
    return 1.3 * max(grid.shape) * float(np.prod(geometry.shape)) * rays_per_pixel(grid, geometry)


def build_matrix(grid: VolumeGrid, geometry: Geometry) -> sp.csr_array:
    """Intersection lengths in mm of every detector pixel's rays with every voxel, from ASTRA's line projectors.

    A pixel's row is the mean over its rays (`rays_per_pixel`). Views are built in blocks, because ASTRA exports float64.

    Returns
    -------
    csr_array, float32, shape (angles * columns, voxels)
    """
    rays = rays_per_pixel(grid, geometry)
    bytes_per_view = 36 * expected_entries(grid, geometry) / len(geometry.angles)
    views = max(1, int(_BLOCK_BYTES / bytes_per_view))
    parts = np.split(np.arange(len(geometry.angles)), range(views, len(geometry.angles), views))
    blocks = [_mean_rays(_astra_matrix(grid, geometry.subset(part), rays), rays) for part in parts]
    return blocks[0] if len(blocks) == 1 else sp.csr_array(sp.vstack(blocks, format="csr"))


def _mean_rays(fine: sp.csr_array, rays: int) -> sp.csr_array:
    if rays == 1:
        return fine
    n = (len(fine.indptr) - 1) // rays
    ends = np.arange(n + 1) * rays
    mean = sp.csr_array((np.full(n * rays, 1 / rays, np.float32), np.arange(n * rays), ends), shape=(n, n * rays))
    matrix = sp.csr_array(mean @ fine)
    matrix.sort_indices()
    return matrix


def _astra_matrix(grid: VolumeGrid, geometry: Geometry, rays: int) -> sp.csr_array:
    import astra

    left, right, bottom, top = np.array(grid.extent) / grid.voxel
    volume = astra.create_vol_geom(*grid.shape, left, right, bottom, top)
    vectors = geometry.vectors()[:, [0, 1, 3, 4, 6, 7]] / grid.voxel
    vectors[:, 4:] /= rays
    fan = isinstance(geometry, FanBeam)
    kind, projector = ("fanflat_vec", "line_fanflat") if fan else ("parallel_vec", "linear")
    projections = astra.create_proj_geom(kind, geometry.columns * rays, vectors)
    handle = astra.create_projector(projector, projections, volume)
    matrix_id = astra.projector.matrix(handle)
    try:
        matrix = sp.csr_array(astra.matrix.get(matrix_id), dtype=np.float32)
    finally:
        astra.matrix.delete(matrix_id)
        astra.projector.delete(handle)
    matrix.data *= np.float32(grid.voxel)
    matrix.sort_indices()
    return matrix
