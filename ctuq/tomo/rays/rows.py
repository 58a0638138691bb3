"""Single rays of a ray transform as the rows of a matrix: a sparse one where it fits into memory, else products without it."""

from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ctuq.linops.memory import available_memory
from ctuq.linops.sparse import SparseRows, csr_tensor
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.joseph import rays_of, rows_of_matrix
from ctuq.tomo.rays.matrix import MatrixRayTransform
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.rays.volume import VolumeTransform
from ctuq.tomo.space import VolumeGeometry

_ENTRY = 64
"""Bytes of an entry: in float64 by rows and by columns and as SciPy has it, in float32 by rows and by columns."""
_MET = 0.45
"""Of the voxels that `Rays.entries` counts, as many are met at most: a ray leaves the volume at half of its planes."""
_SHARE, _LARGEST = 0.25, 2**32
_BLOCK_BYTES = 2**27


def ray_rows(
    A: RayTransform | VolumeTransform, rays: Tensor, sizes: Tensor, *, free: bool | None = None
) -> "SparseRows | FreeRows":
    """Some rays as the rows of a matrix, each multiplied by a number.

    Parameters
    ----------
    A : MatrixRayTransform or VolumeTransform
    rays : Tensor of int, shape (m,)
        Flat indices among all rays.
    sizes : Tensor, shape (m,)
    free : bool, optional
        Whether to make do without the matrix; by default where it would take more than a quarter of the memory that is left.
    """
    if isinstance(A, MatrixRayTransform):
        return _sparse(sp.csr_array(A.matrix[rays.cpu().numpy()]), sizes, A.grid.shape, A.device)
    assert isinstance(A, VolumeTransform), "a ray transform whose rays are known one by one"
    if not bytes_of_rows(A.grid, A.geometry, len(rays), A.device) if free is None else free:
        return FreeRows(A, rays, sizes)
    return _sparse(rows_of_matrix(rays_of(A.grid, A.geometry), rays.cpu().numpy()), sizes, A.grid.shape, A.device)


def bytes_of_rows(grid: VolumeGrid, geometry: VolumeGeometry, count: int, device: torch.device) -> float:
    """What the sparse matrix of so many of the rays takes; 0 where that is too much, and there is none."""
    needed, left = _size(grid, geometry, count), available_memory(device)
    return 0.0 if needed > min(_LARGEST, float("inf") if left is None else _SHARE * left) else needed


def _size(grid: VolumeGrid, geometry: VolumeGeometry, count: int) -> float:
    rays = rays_of(grid, geometry)
    return _ENTRY * _MET * rays.entries * count / float(np.prod(geometry.shape))


def _sparse(matrix: sp.csr_array, sizes: Tensor, shape: tuple[int, ...], device: torch.device) -> SparseRows:
    sizes_of_entries = np.repeat(sizes.double().cpu().numpy(), np.diff(matrix.indptr))
    scaled = sp.csr_array((matrix.data * sizes_of_entries, matrix.indices, matrix.indptr), shape=matrix.shape)
    # Large images are numbered in tiles of two axes.
    return SparseRows(scaled, device, image=(int(np.prod(shape[:-1])), shape[-1]))


class FreeRows:
    """What `ctuq.linops.sparse.SparseRows` does, of the rays of a volume's transform that keeps no matrix.

    Products are in float32, whose errors are those of rays that lie a ten-millionth of a voxel beside; single rows are built
    when they are asked for.

    Parameters
    ----------
    A : VolumeTransform
    rays : Tensor of int, shape (m,)
        Flat indices among all rays.
    sizes : Tensor, float64, shape (m,)
        What each row is multiplied by.
    """

    def __init__(self, A: VolumeTransform, rays: Tensor, sizes: Tensor):
        self._A, self._rays, self._sizes = A, rays, sizes.double()
        self.shape = (len(rays), A.domain.size)
        self.device = A.device

    def __call__(self, x: Tensor) -> Tensor:
        """``M x`` for each row of ``x`` (k, d): (k, m), float64."""
        seen = self._A(x.float().reshape(-1, *self._A.domain.shape)).flatten(1)
        return seen[:, self._rays].double() * self._sizes

    def transposed(self, y: Tensor) -> Tensor:
        """``M^T y`` for each row of ``y`` (k, m): (k, d), float64."""
        spread = torch.zeros(len(y), self._A.range.size, device=self.device)
        spread[:, self._rays] = (y.double() * self._sizes).float()
        return self._A.T(spread.reshape(-1, *self._A.range.shape)).flatten(1).double()

    def fast(self, x: Tensor) -> Tensor:
        """``M x`` in float32."""
        return self(x).float()

    def fast_transposed(self, y: Tensor) -> Tensor:
        """``M^T y`` in float32."""
        return self.transposed(y).float()

    def rows(self, index: Tensor) -> "SparseRows | FreeRows":
        """The matrix of these rows: sparse if that is small."""
        return ray_rows(self._A, self._rays[index], self._sizes[index])

    def squares(self, v: Tensor) -> Tensor:
        """``sum_j M_ij^2 v_j``, (m,)."""
        return torch.cat([csr_tensor(part.power(2), self.device) @ v.double()[:, None] for part in self._parts()])[:, 0]

    def column_squares(self) -> Tensor:
        """``sum_i M_ij^2``, (d,)."""
        found = sum((part.power(2).sum(axis=0) for part in self._parts()), np.zeros(self.shape[1]))
        return torch.from_numpy(found).to(self.device)

    def dense(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop``, (stop - start, d), float64."""
        return torch.from_numpy(self._built(slice(start, stop)).toarray()).to(self.device)

    def columns(self, start: int, stop: int) -> Tensor:
        """Columns ``start`` to ``stop`` as dense rows, (stop - start, m), float64."""
        unit = torch.zeros(stop - start, self.shape[1], device=self.device)
        unit[:, start:stop].diagonal().fill_(1)
        return self(unit)

    def gram(self, v: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """``M diag(v) M^T``, (m, m), by blocks of rows."""
        out = torch.empty(self.shape[0], self.shape[0], dtype=dtype, device=self.device)
        for start, stop in self._blocks(0):
            out[start:stop] = self(self.dense(start, stop) * v.double())
        return out

    def column_gram(self, v: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """``M^T diag(v) M``, (d, d), by blocks of columns."""
        out = torch.empty(self.shape[1], self.shape[1], dtype=dtype, device=self.device)
        for start, stop in self._blocks(1):
            out[start:stop] = self.transposed(self.columns(start, stop) * v.double())
        return out

    def _blocks(self, axis: int) -> list[tuple[int, int]]:
        count, step = self.shape[axis], max(1, _BLOCK_BYTES // (8 * max(self.shape)))
        return [(start, min(start + step, count)) for start in range(0, count, step)]

    def _parts(self):
        """The sparse matrix of one block of rows after another."""
        step = max(1, int(_BLOCK_BYTES / (64 * max(self._A.grid.shape))))
        return (self._built(slice(start, start + step)) for start in range(0, self.shape[0], step))

    def _built(self, part: slice) -> sp.csr_array:
        rows = rows_of_matrix(self._every, self._rays[part].cpu().numpy())
        return sp.csr_array(rows.multiply(self._sizes[part].cpu().numpy()[:, None]), dtype=np.float64)

    @cached_property
    def _every(self):
        return rays_of(self._A.grid, self._A.geometry)


RayRows = SparseRows | FreeRows
