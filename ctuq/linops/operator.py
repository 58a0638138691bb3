"""Linear operators between tensor spaces: apply by calling, compose with ``@``, ``+`` and ``*``, transpose with ``.T``."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ctuq.errors import InputError


@dataclass(frozen=True)
class Space:
    """The tensors that an operator acts on.

    Parameters
    ----------
    shape : tuple of int
        Of one tensor; batch axes stand in front of it.
    dtype : torch.dtype
    device : torch.device
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def of(cls, batch: Tensor) -> "Space":
        """The space of the elements of a batch ``(k, *shape)``."""
        return cls(tuple(batch.shape[1:]), batch.dtype, batch.device)

    @property
    def size(self) -> int:
        """Number of values of one element."""
        return int(torch.Size(self.shape).numel())

    def randn(self, *batch: int, rng: torch.Generator) -> Tensor:
        """Standard normal tensors of shape ``(*batch, *shape)``, drawn on the generator's device."""
        draw = torch.randn(*batch, *self.shape, generator=rng, device=rng.device, dtype=self.dtype)
        return draw.to(self.device)


class LinearOperator(ABC):
    """A linear map from ``domain`` to ``range`` that acts on any leading batch axes."""

    domain: Space
    range: Space

    @abstractmethod
    def _apply(self, x: Tensor) -> Tensor:
        """Apply to ``(k, *domain.shape)``."""

    @abstractmethod
    def _apply_transpose(self, y: Tensor) -> Tensor:
        """Apply the exact transpose to ``(k, *range.shape)``."""

    def __call__(self, x: Tensor) -> Tensor:
        return _batched(self._apply, x, self.domain.shape, self.range.shape, self)

    @property
    def T(self) -> "LinearOperator":
        """The transpose; ``A.T.T`` is A."""
        return _Transpose(self)

    def __matmul__(self, other: "LinearOperator") -> "LinearOperator":
        if self.domain.shape != other.range.shape:
            raise InputError(f"Cannot compose {self!r} after {other!r}: {other.range.shape} is not {self.domain.shape}.")
        return _Product(self, other)

    def __add__(self, other: "LinearOperator") -> "LinearOperator":
        if (self.domain.shape, self.range.shape) != (other.domain.shape, other.range.shape):
            raise InputError(f"Cannot add {self!r} and {other!r}: their shapes differ.")
        return _Sum(self, other)

    def __mul__(self, factor: float) -> "LinearOperator":
        return _Scaled(factor, self)

    __rmul__ = __mul__

    def dense(self) -> Tensor:
        """The matrix ``(range.size, domain.size)``, by applying to unit vectors: for small operators and tests."""
        eye = torch.eye(self.domain.size, dtype=self.domain.dtype, device=self.domain.device)
        return self(eye.reshape(-1, *self.domain.shape)).reshape(self.domain.size, -1).T

    def __repr__(self) -> str:
        name = type(self).__name__.lstrip("_")
        return f"{name}({self.domain.shape} -> {self.range.shape})"


class _Transpose(LinearOperator):
    """The transpose of an operator."""

    def __init__(self, operator: LinearOperator):
        self._operator = operator
        self.domain, self.range = operator.range, operator.domain

    def _apply(self, x: Tensor) -> Tensor:
        return self._operator._apply_transpose(x)

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return self._operator._apply(y)

    @property
    def T(self) -> LinearOperator:
        return self._operator


class _Product(LinearOperator):
    """``outer`` after ``inner``."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator):
        self._outer, self._inner = outer, inner
        self.domain, self.range = inner.domain, outer.range

    def _apply(self, x: Tensor) -> Tensor:
        return self._outer._apply(self._inner._apply(x))

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return self._inner._apply_transpose(self._outer._apply_transpose(y))


class _Sum(LinearOperator):
    """Two operators between the same spaces, added."""

    def __init__(self, first: LinearOperator, second: LinearOperator):
        self._first, self._second = first, second
        self.domain, self.range = first.domain, first.range

    def _apply(self, x: Tensor) -> Tensor:
        return self._first._apply(x) + self._second._apply(x)

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return self._first._apply_transpose(y) + self._second._apply_transpose(y)


class _Scaled(LinearOperator):
    """``factor`` times an operator."""

    def __init__(self, factor: float, operator: LinearOperator):
        self._factor, self._operator = factor, operator
        self.domain, self.range = operator.domain, operator.range

    def _apply(self, x: Tensor) -> Tensor:
        return self._factor * self._operator._apply(x)

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return self._factor * self._operator._apply_transpose(y)


def _batched(function, x: Tensor, into: tuple[int, ...], out: tuple[int, ...], operator: LinearOperator) -> Tensor:
    rank = len(into)
    if x.ndim < rank or tuple(x.shape[x.ndim - rank :]) != into:
        raise InputError(f"{operator!r} takes tensors of shape (..., {', '.join(map(str, into))}), not {tuple(x.shape)}.")
    batch = x.shape[: x.ndim - rank]
    return function(x.reshape(-1, *into)).reshape(*batch, *out)
