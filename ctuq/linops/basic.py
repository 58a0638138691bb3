"""The plainest operators: identity, symmetric function, diagonal, matrix, low-rank update, change of floating-point type."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.linops.operator import LinearOperator, Space


class Identity(LinearOperator):
    """The identity of a space."""

    def __init__(self, space: Space):
        self.domain = self.range = space

    def _apply(self, x: Tensor) -> Tensor:
        return x

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return y


class Symmetric(LinearOperator):
    """A function of ``(k, *shape)`` that is known to be linear and symmetric, on a space."""

    def __init__(self, function: Callable[[Tensor], Tensor], space: Space):
        self._function = function
        self.domain = self.range = space

    def _apply(self, x: Tensor) -> Tensor:
        return self._function(x).to(x)

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return self._apply(y)


class Diagonal(LinearOperator):
    """Each value multiplied by its own factor.

    Parameters
    ----------
    factors : Tensor
        Any shape that broadcasts to ``space.shape``, such as one number for each view.
    space : Space, optional
        By default that of ``factors``.

    Raises
    ------
    InputError
        If the factors do not broadcast to the space.
    """

    def __init__(self, factors: Tensor, space: Space | None = None):
        if space is None:
            space = Space(tuple(factors.shape), factors.dtype, factors.device)
        self.domain = self.range = space
        try:
            self._factors = factors.to(space.dtype).expand(space.shape)
        except RuntimeError:
            raise InputError(f"Factors of shape {tuple(factors.shape)} do not broadcast to {space.shape}.") from None

    def _apply(self, x: Tensor) -> Tensor:
        return x * self._factors

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return y * self._factors


class Dense(LinearOperator):
    """A matrix between tensors of any shape.

    Parameters
    ----------
    matrix : Tensor, shape (range.size, domain.size)
    domain, range : Space, optional
        By default plain vectors of the matrix's type and device.

    Raises
    ------
    InputError
        If the matrix does not fit the spaces.
    """

    def __init__(self, matrix: Tensor, domain: Space | None = None, range: Space | None = None):
        self.matrix = matrix
        self.domain = domain or Space((matrix.shape[1],), matrix.dtype, matrix.device)
        self.range = range or Space((matrix.shape[0],), matrix.dtype, matrix.device)
        if matrix.shape != (self.range.size, self.domain.size):
            raise InputError(
                f"A matrix of shape {tuple(matrix.shape)} is no map from {self.domain.shape} to {self.range.shape}: "
                f"give one of shape {(self.range.size, self.domain.size)}."
            )

    def _apply(self, x: Tensor) -> Tensor:
        return (x.reshape(-1, self.domain.size) @ self.matrix.T).reshape(-1, *self.range.shape)

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return (y.reshape(-1, self.range.size) @ self.matrix).reshape(-1, *self.domain.shape)

    def rows(self, index: Tensor, x: Tensor) -> Tensor:
        """``A x`` at places ``index`` of the range's first axis, for x of shape ``(k, *domain.shape)``."""
        part = self.matrix.reshape(*self.range.shape, -1)[index]
        return (x.reshape(-1, self.domain.size) @ part.flatten(0, -2).T).reshape(-1, *part.shape[:-1])

    def block(self, index: Tensor) -> Tensor:
        """The square matrix between places ``index`` of the first axes of range and domain."""
        sides = [part for space in (self.range, self.domain) for part in (space.shape[0], space.size // space.shape[0])]
        return self.matrix.reshape(sides)[index][:, :, index].flatten(2).flatten(0, 1)


class LowRankUpdate(LinearOperator):
    """``I + V^T diag(f) V`` with orthonormal rows V ``(r, n)`` and factors f ``(r,)``: symmetric."""

    def __init__(self, vectors: Tensor, factors: Tensor, space: Space):
        self._vectors, self._factors = vectors, factors
        self.domain = self.range = space

    def _apply(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.domain.size)
        return (rows + (rows @ self._vectors.T * self._factors) @ self._vectors).reshape(x.shape)

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return self._apply(y)


class Cast(LinearOperator):
    """An operator for vectors of another type: ``dtype`` outside, the operator's own products inside.

    A solver keeps float64 vectors over a network's float32 products in this way.
    """

    def __init__(self, operator: LinearOperator, dtype: torch.dtype):
        self._operator = operator
        self.domain, self.range = replace(operator.domain, dtype=dtype), replace(operator.range, dtype=dtype)

    def _apply(self, x: Tensor) -> Tensor:
        return self._operator._apply(x.to(self._operator.domain.dtype)).to(self.range.dtype)

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return self._operator._apply_transpose(y.to(self._operator.range.dtype)).to(self.domain.dtype)
