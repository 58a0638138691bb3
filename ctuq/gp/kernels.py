"""Covariance functions: stationary ones with a lengthscale for each input, and Tanimoto for fingerprints."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from ctuq.errors import InputError

_TINY = 1e-30  # below any squared distance: the square root stays differentiable where two points coincide


@dataclass(frozen=True, eq=False)
class Kernel(ABC):
    """A covariance function ``k(a, b)`` of inputs in rows.

    Parameters
    ----------
    variance : Tensor, float64, shape ()
        Prior variance of the function at any input.
    """

    variance: Tensor

    @abstractmethod
    def correlation(self, a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
        """``k(a, b) / variance`` for ``a`` of shape (n, d) and ``b`` (m, d), shape (n, m)."""

    @property
    @abstractmethod
    def psi(self) -> Tensor:
        """Log hyperparameters in one vector, float64, the variance first."""

    @abstractmethod
    def at(self, psi: Tensor) -> Self:
        """The same kernel with other log hyperparameters; derivatives flow through."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the hyperparameters in the order of `psi`."""

    def __call__(self, a: Tensor, b: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
        """Covariance matrix ``(n, m)`` of inputs ``a`` (n, d) and ``b`` (m, d), in ``dtype`` or that of ``a``."""
        self.check(a)
        self.check(b)
        matrix = self.correlation(a, b, a.dtype if dtype is None else dtype)
        return matrix * self.variance.to(matrix)

    def diagonal(self, x: Tensor) -> Tensor:
        """Prior variances ``k(x, x)``, shape (n,)."""
        return self.variance.to(x).expand(len(x))

    def check(self, x: Tensor) -> None:
        """Refuse inputs that the kernel cannot take.

        Raises
        ------
        InputError
            For other shapes than (n, d).
        """
        if x.ndim != 2:
            raise InputError(f"A kernel takes inputs of shape (n, d), not {tuple(x.shape)}; add the missing axis.")


@dataclass(frozen=True, eq=False)
class Stationary(Kernel):
    """``variance * rho(|(a - b) / lengthscales|)``.

    Parameters
    ----------
    lengthscales : Tensor, float64, shape (d,)
        In the units of the inputs.
    """

    lengthscales: Tensor

    degrees: ClassVar[int | None] = None
    """Degrees of freedom of the spectral density (a multivariate t); None for a Gaussian one."""

    @classmethod
    def of(cls, variance: float, lengthscales: float | list[float] | Tensor, inputs: int | None = None) -> Self:
        """A kernel from numbers; one lengthscale is repeated for ``inputs`` dimensions.

        Raises
        ------
        InputError
            If a number is not positive and finite.
        """
        scales = torch.as_tensor(lengthscales, dtype=torch.float64).detach()
        scales = scales.expand(1 if inputs is None else inputs).clone() if scales.ndim == 0 else scales
        amount = torch.as_tensor(variance, dtype=torch.float64).detach()
        for value in (amount, *scales):
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"A variance or lengthscale of a kernel is {float(value):g}: give positive, finite numbers.")
        return cls(amount.to(scales.device), scales)

    @property
    def psi(self) -> Tensor:
        return torch.cat([self.variance[None], self.lengthscales]).log()

    def at(self, psi: Tensor) -> Self:
        return type(self)(psi[0].exp(), psi[1:].exp())

    @property
    def names(self) -> tuple[str, ...]:
        return ("variance", *(f"lengthscale_{i}" for i in range(len(self.lengthscales))))

    def check(self, x: Tensor) -> None:
        super().check(x)
        if x.shape[1] != len(self.lengthscales):
            raise InputError(f"Inputs have {x.shape[1]} columns and the kernel {len(self.lengthscales)} lengthscales.")

    def correlation(self, a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
        """Of every input of ``a`` (n, p) with every one of ``b`` (m, p): (n, m)."""
        # The expansion of the square loses digits to cancellation: in float64 they are not missed, and it is one product.
        scales = self.lengthscales.to(a.device)
        centre = b.detach().double().mean(0)
        left, right = (a - centre) / scales, (b - centre) / scales
        squared = torch.addmm(right.square().sum(1).expand(len(a), -1), left, right.T, alpha=-2)
        squared = (squared + left.square().sum(1, keepdim=True)).clamp(min=_TINY)
        return self.profile(squared.to(dtype))

    @abstractmethod
    def profile(self, squared: Tensor) -> Tensor:
        """``rho`` of the squared scaled distance."""


class RBF(Stationary):
    """``exp(-r^2 / 2)``: infinitely smooth functions."""

    def profile(self, squared: Tensor) -> Tensor:
        return torch.exp(-squared / 2)


class Matern12(Stationary):
    """``exp(-r)``: continuous functions."""

    degrees = 1

    def profile(self, squared: Tensor) -> Tensor:
        return torch.exp(-squared.sqrt())


class Matern32(Stationary):
    """``(1 + s) exp(-s)``, ``s = sqrt(3) r``: functions with one derivative."""

    degrees = 3

    def profile(self, squared: Tensor) -> Tensor:
        s = (3 * squared).sqrt()
        return (1 + s) * torch.exp(-s)


class Matern52(Stationary):
    """``(1 + s + s^2 / 3) exp(-s)``, ``s = sqrt(5) r``: functions with two derivatives."""

    degrees = 5

    def profile(self, squared: Tensor) -> Tensor:
        s = (5 * squared).sqrt()
        return (1 + s + s.square() / 3) * torch.exp(-s)


class Tanimoto(Kernel):
    """``variance * a.b / (|a|^2 + |b|^2 - a.b)``, 1 for two vectors of zeros: similarity of molecular fingerprints."""

    @classmethod
    def of(cls, variance: float = 1.0) -> Self:
        """A kernel from a number."""
        return cls(torch.tensor(variance, dtype=torch.float64))

    @property
    def psi(self) -> Tensor:
        return self.variance[None].log()

    def at(self, psi: Tensor) -> Self:
        return type(self)(psi[0].exp())

    @property
    def names(self) -> tuple[str, ...]:
        return ("variance",)

    def correlation(self, a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
        a, b = a.to(dtype), b.to(dtype)
        shared = a @ b.T
        union = a.square().sum(1, keepdim=True) + b.square().sum(1) - shared
        return torch.where(union > 0, shared / union.clamp(min=_TINY), torch.ones_like(shared))
