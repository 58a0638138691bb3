"""The ray transform as a pair of sparse matrices, built once by ASTRA and applied by torch on any device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from ctuq.errors import InputError
from ctuq.linops.operator import Space
from ctuq.tomo.geometry import Geometry, VolumeGrid
from ctuq.tomo.raytransform import RayTransform

_FEW_COLUMNS = 12


class SparseMatrix:
    """A CSR matrix on a torch device, int32 and float32, with the faster kernel for few and for many columns."""

    def __init__(self, matrix: sp.csr_array, device: torch.device):
        matrix = sp.csr_array(matrix)
        self.shape = matrix.shape
        self._rows = torch.from_numpy(matrix.indptr.astype(np.int32)).to(device)
        self._columns = torch.from_numpy(matrix.indices.astype(np.int32)).to(device)
        self._values = torch.from_numpy(matrix.data.astype(np.float32)).to(device)
        self._csr = torch.sparse_csr_tensor(self._rows, self._columns, self._values, self.shape, check_invariants=False)

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply every row of ``x`` (k, columns): (k, rows)."""
        if x.dtype != torch.float32:
            raise InputError(f"The sparse ray transform takes float32 tensors, not {x.dtype}.")
        if len(x) == 1:
            return (self._csr @ x[0])[None]
        if len(x) < _FEW_COLUMNS:
            return (self._csr @ x.T.contiguous()).T
        return embedding_bag(
            self._columns,
            x.T.contiguous(),
            self._rows,
            mode="sum",
            per_sample_weights=self._values,
            include_last_offset=True,
        ).T


@dataclass(frozen=True)
class _Pair:
    """A matrix and its transpose; a plain object, because torch.func cannot carry sparse tensors."""

    forward: SparseMatrix
    transpose: SparseMatrix

    @property
    def swapped(self) -> "_Pair":
        return _Pair(self.transpose, self.forward)


class _Multiply(torch.autograd.Function):
    """``pair.forward`` on the last axis of x; its derivatives are the pair itself, so all of torch.func works."""

    @staticmethod
    def forward(x: Tensor, pair: _Pair) -> Tensor:
        return pair.forward(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.pair = inputs[1]

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return _Multiply.apply(gradient, ctx.pair.swapped), None

    @staticmethod
    def jvp(ctx, tangent: Tensor, _):
        return _Multiply.apply(tangent, ctx.pair)

    @staticmethod
    def vmap(info, in_dims, x: Tensor, pair: _Pair):
        return _Multiply.apply(x.movedim(in_dims[0], 0), pair), 0


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
        self._pair = _Pair(SparseMatrix(self.matrix, device), SparseMatrix(sp.csr_array(self.matrix.T), device))

    def _apply(self, x: Tensor) -> Tensor:
        return _Multiply.apply(x.reshape(len(x), -1), self._pair).reshape(len(x), *self.range.shape)

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return _Multiply.apply(y.reshape(len(y), -1), self._pair.swapped).reshape(len(y), *self.domain.shape)

    def subset(self, indices: Sequence[int] | NDArray) -> "MatrixRayTransform":
        indices = np.asarray(indices)
        columns = self.geometry.columns
        rows = (indices[:, None] * columns + np.arange(columns)).reshape(-1)
        return MatrixRayTransform(self.matrix[rows], self.grid, self.geometry.subset(indices), self.device)

    def __reduce__(self):
        return MatrixRayTransform, (self.matrix, self.grid, self.geometry, str(self.device))


def build_matrix(grid: VolumeGrid, geometry: Geometry) -> sp.csr_array:
    """Intersection lengths in mm of every detector pixel's rays with every voxel, from ASTRA's line projectors.

    A detector pixel that is wide against a voxel averages several rays: at least two to a voxel's width at the axis, so that a
    binned detector is modelled as one that integrates over its pixels.

    Returns
    -------
    csr_array, float32, shape (angles * columns, voxels)
    """
    rays = max(1, int(np.ceil(2 * geometry.pixel_at_axis / grid.voxel - 1e-9)))
    fine = _astra_matrix(grid, geometry, rays)
    if rays == 1:
        return fine
    n = int(np.prod(geometry.shape))
    mean = sp.csr_array(
        (np.full(n * rays, 1 / rays, np.float32), np.arange(n * rays), np.arange(n + 1) * rays), shape=(n, n * rays)
    )
    return sp.csr_array(mean @ fine)


def _astra_matrix(grid: VolumeGrid, geometry: Geometry, rays: int) -> sp.csr_array:
    import astra

    left, right, bottom, top = np.array(grid.extent) / grid.voxel
    volume = astra.create_vol_geom(*grid.shape, left, right, bottom, top)
    vectors = geometry.vectors()[:, [0, 1, 3, 4, 6, 7]] / grid.voxel
    vectors[:, 4:] /= rays
    fan = geometry.magnification != 1
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
