"""Sparse matrices on a torch device: float32 for many products, float64 for what a difference of near numbers is made from."""

import warnings
from functools import cached_property, partial

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

# Measured: below, MKL's CSR product is faster (2x at 8 columns); above, embedding_bag (2x at 32 columns, 256^2).
_FEW_COLUMNS = 20
# A tile's rows of many columns fit in the first-level cache; measured at 256^2: 1.2x forward, 1.4x adjoint.
_TILE = 8
_TILED_FROM = 2**15
_BLOCK_BYTES = 2**27
# Measured in float64 at 256^2, 64 vectors: sixteen columns of an image stay in the cache while rays cross it. All at once MKL
# takes 3.3 times as long forward and 1.6 times back; 1.9 and 1.2 times at 128^2.
_WIDE = 16


class SparseMatrix:
    """A CSR matrix on a torch device, int32 and float32, with the faster kernel for few and for many columns.

    Parameters
    ----------
    matrix : scipy sparse array, shape (rows, columns)
    inputs : tuple of int
        Shape of what the columns multiply: large ones are renumbered in square tiles, because a row of the matrix runs along a
        line and every pixel down a column would otherwise touch a page of memory.
    device : torch.device
    """

    def __init__(self, matrix: sp.csr_array, inputs: tuple[int, ...], device: torch.device):
        self.shape = matrix.shape
        self._order = None
        if int(np.prod(inputs)) >= _TILED_FROM:
            order = _tile_order(*inputs)
            matrix = _renumbered(matrix, order)
            self._order = torch.from_numpy(order).to(device)
        self._rows = _tensor(matrix.indptr, np.int32, device)
        self._columns = _tensor(matrix.indices, np.int32, device)
        self._values = _tensor(matrix.data, np.float32, device)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            self._csr = torch.sparse_csr_tensor(self._rows, self._columns, self._values, self.shape, check_invariants=False)

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply every row of ``x`` (k, columns): (k, rows), a transposed view so that the next product need not copy."""
        columns = x.T.contiguous() if self._order is None else x.T.contiguous().index_select(0, self._order)
        if len(x) == 1:
            return (self._csr @ columns[:, 0])[None]
        if len(x) < _FEW_COLUMNS:
            return (self._csr @ columns).T
        return embedding_bag(
            self._columns,
            columns,
            self._rows,
            mode="sum",
            per_sample_weights=self._values,
            include_last_offset=True,
        ).T


class SparseRows:
    """A CSR matrix (m, d) and its transpose as torch tensors: products, blocks of dense columns, and ``M diag(v) M^T``.

    Products never leave torch, Gram matrices are SciPy's. Products are in float64, because the evidence takes the logarithm of
    a difference of nearly equal numbers; `fast` ones in float32 take a third of the time. What a product needs is made when it
    is first asked for: many a part of the rays multiplies nothing, and all of it takes 52 bytes an entry, SciPy's matrix 12.

    Parameters
    ----------
    matrix : scipy sparse array, shape (m, d)
    device : torch.device
    image : tuple of int, optional
        Shape of the image that the columns multiply.
    """

    def __init__(self, matrix: sp.csr_array, device: torch.device | str = "cpu", *, image: tuple[int, ...] | None = None):
        self._matrix = sp.csr_array(matrix, dtype=np.float64)
        self.shape = self._matrix.shape or (0, 0)
        self.device, self._image = torch.device(device), image or (1, self.shape[1])

    @cached_property
    def _forward(self) -> Tensor:
        return csr_tensor(self._matrix, self.device)

    @cached_property
    def _transpose(self) -> Tensor:
        return csr_tensor(sp.csr_array(self._matrix.T), self.device)

    def __call__(self, x: Tensor) -> Tensor:
        """``M x`` for each row of ``x`` (k, d): (k, m), float64."""
        return _times(self._forward, x.double())

    def transposed(self, y: Tensor) -> Tensor:
        """``M^T y`` for each row of ``y`` (k, m): (k, d), float64."""
        return _times(self._transpose, y.double())

    def fast(self, x: Tensor) -> Tensor:
        """``M x`` in float32."""
        return self._narrow[0](x.float())

    def fast_transposed(self, y: Tensor) -> Tensor:
        """``M^T y`` in float32."""
        return self._narrow[1](y.float())

    @cached_property
    def _narrow(self) -> tuple[SparseMatrix, SparseMatrix]:
        # Narrow before it is turned: what is made on the way is half as large.
        narrow = sp.csr_array(self._matrix, dtype=np.float32)
        forward = SparseMatrix(narrow, self._image, self.device)
        return forward, SparseMatrix(sp.csr_array(narrow.T), (1, self.shape[0]), self.device)

    @property
    def scipy(self) -> sp.csr_array:
        """The matrix as SciPy has it."""
        return self._matrix

    def after(self, inner: sp.csr_array) -> "SparseRows":
        """The matrix M N, of a sparse N (d, n)."""
        return SparseRows(self._matrix @ inner, self.device)

    def rows(self, index: Tensor) -> "SparseRows":
        """The matrix of these rows."""
        return SparseRows(self._matrix[index.cpu().numpy()], self.device, image=self._image)

    def binned(self, count: int) -> "SparseRows":
        """The matrix of sums of so many neighbouring rows, over the root of their number: of white noise as much is left."""
        m = self.shape[0]
        group = np.arange(m) // count
        share = 1 / np.sqrt(np.bincount(group)[group])
        sums = sp.csr_array((share, (group, np.arange(m))), shape=(int(group[-1]) + 1, m))
        return SparseRows(sums @ self._matrix, self.device, image=self._image)

    def squares(self, v: Tensor) -> Tensor:
        """``sum_j M_ij^2 v_j``, (m,)."""
        matrix = self._matrix
        squared = sp.csr_array((matrix.data**2, matrix.indices, matrix.indptr), shape=self.shape)
        return (csr_tensor(squared, self.device) @ v.double()[:, None])[:, 0]

    def column_squares(self) -> Tensor:
        """``sum_i M_ij^2``, (d,)."""
        return torch.from_numpy(self._matrix.power(2).sum(axis=0)).to(self.device)

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

    def gram(self, v: Tensor | sp.csr_array, dtype: torch.dtype = torch.float64) -> Tensor:
        """``M diag(v) M^T``, or ``M V M^T`` of a sparse V, (m, m), by blocks of rows."""
        return self._product(self._matrix, sp.csr_array(self._matrix.T), v, dtype)

    def column_gram(self, v: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """``M^T diag(v) M``, (d, d), by blocks of rows."""
        return self._product(sp.csr_array(self._matrix.T), self._matrix, v, dtype)

    def _product(self, left: sp.csr_array, right: sp.csr_array, v: Tensor | sp.csr_array, dtype: torch.dtype) -> Tensor:
        # Sparse times sparse by SciPy: a pixel meets few rays. As blocks of dense rows it took ten times as long at 256^2.
        n = int(left.indptr.size) - 1
        scaled = sp.csr_array(right.multiply(v.double().cpu().numpy()[:, None])) if isinstance(v, Tensor) else right
        out = torch.empty(n, n, dtype=dtype, device=self.device)
        step = max(1, _BLOCK_BYTES // (8 * n))
        for start in range(0, n, step):
            block = left[start : start + step]
            out[start : start + step] = torch.from_numpy(((block if isinstance(v, Tensor) else block @ v) @ scaled).toarray())
        return out

    def __reduce__(self):
        return partial(SparseRows, image=self._image), (self._matrix, str(self.device))


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    """A sparse matrix times each row of ``x``, so many of them together as the cache of a processor holds."""
    if x.device.type != "cpu" or len(x) <= _WIDE:
        return (matrix @ x.T.contiguous()).T  # a view: the next product need not copy
    return torch.cat([_times(matrix, part) for part in x.split(_WIDE)])


def _tile_order(height: int, width: int) -> NDArray[np.int32]:
    """The places of an array in row-major order, listed tile by tile."""
    row, column = np.divmod(np.arange(height * width), width)
    tile = row // _TILE * -(-width // _TILE) + column // _TILE
    return np.argsort(tile, kind="stable").astype(np.int32)


def _renumbered(matrix: sp.csr_array, order: NDArray[np.int32]) -> sp.csr_array:
    """The matrix with its columns in this order, float32."""
    places = np.empty_like(order)
    places[order] = np.arange(len(order), dtype=np.int32)
    moved = sp.csr_array((matrix.data.astype(np.float32), places[matrix.indices], matrix.indptr), shape=matrix.shape)
    moved.sort_indices()
    return moved


def _tensor(array: NDArray, dtype: type, device: torch.device) -> Tensor:
    return torch.from_numpy(np.require(array, dtype=dtype, requirements="W")).to(device)


def csr_tensor(matrix: sp.csr_array, device: torch.device | str = "cpu") -> Tensor:
    """A sparse matrix as a CSR tensor, float64."""
    parts = [
        torch.from_numpy(np.require(a, dtype=kind, requirements="W")).to(device)
        for a, kind in ((matrix.indptr, np.int32), (matrix.indices, np.int32), (matrix.data, np.float64))
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(*parts, size=matrix.shape, check_invariants=False)
