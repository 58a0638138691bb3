"""Operators to and from SciPy, whose interface other libraries of linear operators share or export to."""

from typing import Any

import numpy as np
import torch
from scipy.sparse import linalg
from torch import Tensor

from ctuq.errors import InputError
from ctuq.linops.operator import LinearOperator, Space


def to_scipy(operator: LinearOperator) -> linalg.LinearOperator:
    """A SciPy operator of shape (range.size, domain.size) on flat vectors: for SciPy's solvers, eigenvalues and norms.

    Products run on the operator's own device; vectors cross over at each one.
    """
    return _ToSciPy(operator)


def from_scipy(matrix: Any, domain: Space | None = None, range: Space | None = None) -> LinearOperator:
    """An operator from anything that ``scipy.sparse.linalg.aslinearoperator`` takes: operators, sparse and dense arrays.

    curvlinops' operators come in by their ``to_scipy()``.

    Parameters
    ----------
    matrix : object
        Of shape (m, n), real; its transposed products must exist only if ``.T`` is used.
    domain, range : Space, optional
        By default plain vectors on the CPU, of the matrix's type.

    Raises
    ------
    InputError
        If the matrix is complex or does not fit the spaces.
    """
    return _FromSciPy(matrix, domain, range)


class _ToSciPy(linalg.LinearOperator):
    def __init__(self, operator: LinearOperator):
        self._operator = operator
        dtype = torch.empty(0, dtype=operator.range.dtype).numpy().dtype
        super().__init__(dtype, (operator.range.size, operator.domain.size))

    def _matmat(self, X: np.ndarray) -> np.ndarray:
        return _columns(self._operator(_rows(X, self._operator.domain)))

    def _rmatmat(self, X: np.ndarray) -> np.ndarray:
        return _columns(self._operator.T(_rows(X, self._operator.range)))

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self._matmat(x.reshape(-1, 1))

    def _rmatvec(self, x: np.ndarray) -> np.ndarray:
        return self._rmatmat(x.reshape(-1, 1))


class _FromSciPy(LinearOperator):
    def __init__(self, matrix: Any, domain: Space | None, range: Space | None):
        self._matrix = linalg.aslinearoperator(matrix)
        kind = np.dtype(self._matrix.dtype or np.float64)
        if kind.kind not in "biuf":
            raise InputError(f"Operators are real, this one is of type {kind}: split it into real and imaginary part.")
        dtype = torch.float32 if kind == np.float32 else torch.float64
        m, n = self._matrix.shape
        self.domain, self.range = domain or Space((n,), dtype), range or Space((m,), dtype)
        if (self.range.size, self.domain.size) != (m, n):
            raise InputError(f"A matrix of shape {(m, n)} is no map from {self.domain.shape} to {self.range.shape}.")

    def _apply(self, x: Tensor) -> Tensor:
        return _rows(self._matrix.matmat(_columns(x)), self.range)

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return _rows(self._matrix.rmatmat(_columns(y)), self.domain)


def _rows(X: np.ndarray, space: Space) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(X.T)).to(space.device, space.dtype).reshape(-1, *space.shape)


def _columns(x: Tensor) -> np.ndarray:
    return x[..., None].flatten(1).detach().cpu().numpy().T
