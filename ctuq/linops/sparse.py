"""A sparse matrix on a torch device in float64, with its transpose, its rows, and Gram matrices weighted in the middle."""

import warnings

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

_BLOCK_BYTES = 2**27


class SparseRows:
    """A CSR matrix (m, d) and its transpose as torch tensors: products, blocks of dense columns, and ``M diag(v) M^T``.

    Built once from SciPy's matrix; from then on nothing leaves torch. (`ctuq.tomo.rays.matrix` has the float32 products of the
    fit; the evidence needs float64, because what it takes the logarithm of is a difference of nearly equal numbers.)

    Parameters
    ----------
    matrix : scipy sparse array, shape (m, d)
    device : torch.device
    """

    def __init__(self, matrix: sp.csr_array, device: torch.device | str = "cpu"):
        self._matrix = sp.csr_array(matrix, dtype=np.float64)
        self.shape = self._matrix.shape or (0, 0)
        self.device = torch.device(device)
        self._forward, self._transpose = (
            csr_tensor(self._matrix, self.device),
            csr_tensor(sp.csr_array(self._matrix.T), self.device),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """``M x`` for each row of ``x`` (k, d): (k, m), float64."""
        return (self._forward @ x.double().T.contiguous()).T

    def transposed(self, y: Tensor) -> Tensor:
        """``M^T y`` for each row of ``y`` (k, m): (k, d), float64."""
        return (self._transpose @ y.double().T.contiguous()).T

    def rows(self, index: Tensor) -> "SparseRows":
        """The matrix of these rows."""
        return SparseRows(self._matrix[index.cpu().numpy()], self.device)

    def squares(self, v: Tensor) -> Tensor:
        """``sum_j M_ij^2 v_j``, (m,)."""
        squared = sp.csr_array(self._matrix.multiply(self._matrix))
        return (csr_tensor(squared, self.device) @ v.double()[:, None])[:, 0]

    def dense(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop``, (stop - start, d), float64."""
        return torch.from_numpy(self._matrix[start:stop].toarray()).to(self.device)

    def columns(self, start: int, stop: int) -> Tensor:
        """Columns ``start`` to ``stop`` as dense rows, (stop - start, m), float64."""
        offsets = self._transpose.crow_indices()
        first, last = int(offsets[start]), int(offsets[stop])
        counts = offsets[start : stop + 1].diff().to(torch.int64)
        out = torch.zeros(stop - start, self.shape[0], dtype=torch.float64, device=self.device)
        row = torch.arange(stop - start, device=self.device).repeat_interleave(counts)
        out[row, self._transpose.col_indices()[first:last].to(torch.int64)] = self._transpose.values()[first:last]
        return out

    def gram(self, v: Tensor) -> Tensor:
        """``M diag(v) M^T``, (m, m), float64, by blocks of rows."""
        m, d = self.shape
        out = torch.empty(m, m, dtype=torch.float64, device=self.device)
        step = max(1, _BLOCK_BYTES // (8 * d))
        other = csr_tensor(self._matrix, self.device)
        for start in range(0, m, step):
            block = torch.from_numpy(self._matrix[start : start + step].toarray()).to(self.device)
            out[:, start : start + step] = other @ (block * v.double()).T.contiguous()
        return out

    def __reduce__(self):
        return SparseRows, (self._matrix, str(self.device))


def csr_tensor(matrix: sp.csr_array, device: torch.device | str = "cpu") -> Tensor:
    """A sparse matrix as a CSR tensor, float64."""
    parts = [
        torch.from_numpy(np.require(a, dtype=kind, requirements="W")).to(device)
        for a, kind in ((matrix.indptr, np.int32), (matrix.indices, np.int32), (matrix.data, np.float64))
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(*parts, size=matrix.shape, check_invariants=False)
