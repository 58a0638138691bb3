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
from ctuq.tomo.geometry import Geometry, VolumeGrid
from ctuq.tomo.rays.transform import RayTransform, multiply


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
