"""Exact minimisation over one block of unknowns after another, for operators that give their rows and diagonal blocks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ctuq.errors import CtuqError, InputError
from ctuq.linops.operator import LinearOperator
from ctuq.linops.solve import Solution, flat_rows, reported
from ctuq.linops.stochastic import residuals


@runtime_checkable
class _Rows(Protocol):
    """A symmetric operator on ``(n, ...)`` whose rows can be had a block at a time, noise included."""

    def rows(self, index: Tensor, x: Tensor) -> Tensor:
        """``(K x)[:, index]``, shape ``(k, |index|, ...)``, for x of shape ``(k, n, ...)``."""
        ...


@runtime_checkable
class _Blocks(Protocol):
    """A symmetric operator on ``(n, ...)`` whose diagonal blocks can be had, noise included."""

    def block(self, index: Tensor) -> Tensor:
        """The matrix of ``K[index, index]``, square."""
        ...


@dataclass(frozen=True, eq=False)
class BlockDescent:
    """Exact minimisation over one random block of coordinates after another (alternating projections).

    ``a_I <- a_I + K_II^-1 (b - K a)_I`` needs no step and no momentum, and forgets the conditioning inside of blocks. It passes
    over all coordinates, each time in a new random order, until the residuals met on the way are within the tolerance.

    Parameters
    ----------
    rng : torch.Generator
    batch : int
        Coordinates in a block; a step solves dense systems of this size.
    rtol : float
        Relative residual to reach.
    max_passes : int
    """

    rng: torch.Generator
    batch: int = 512
    rtol: float = 1e-2
    max_passes: int = 100

    @torch.no_grad()
    def __call__(self, K: LinearOperator, b: Tensor, *, start: Tensor | None = None) -> Solution:
        """Solve to the tolerance; a miss is a warning with the number.

        Raises
        ------
        InputError
            If K does not give its rows and blocks.
        CtuqError
            If a block is not positive definite.
        """
        rows, (wanted, a) = _rows(K), (x.reshape(b.shape) for x in flat_rows(K, b, start))
        n = b.shape[1]
        goal, residual = self.rtol * wanted.flatten(1).norm(dim=1), wanted.new_full((len(b),), torch.inf)
        passes = 0
        while passes < self.max_passes and not (residual <= self.rtol).all():
            passes += 1
            met = torch.zeros_like(goal)
            for index in torch.randperm(n, generator=self.rng, device=self.rng.device).to(b.device).split(self.batch):
                gap = (wanted[:, index] - rows(index, a).to(wanted)).flatten(1)
                met += gap.square().sum(1)
                a[:, index] += _solve(_block(K, index), gap).reshape(len(b), len(index), *b.shape[2:])
            if (met.sqrt() <= goal).all() or passes == self.max_passes:
                residual = residuals(rows, a, wanted, self.batch)
        return reported("Block descent", Solution(a, residual, passes, True), self.rtol)


def _rows(K: LinearOperator) -> Callable[[Tensor, Tensor], Tensor]:
    if not isinstance(K, _Rows):
        raise InputError(f"{K!r} does not give single rows of its products: solve it by CG.")
    return K.rows


def _block(K: LinearOperator, index: Tensor) -> Tensor:
    if not isinstance(K, _Blocks):
        raise InputError(f"{K!r} does not give its diagonal blocks: solve it by CG or `sdd`.")
    return K.block(index).double()


def _solve(block: Tensor, gap: Tensor) -> Tensor:
    factor, fault = torch.linalg.cholesky_ex(block)
    if fault:
        raise CtuqError(f"A block of {len(block)} coordinates is not positive definite: use float64, or more noise.")
    return torch.cholesky_solve(gap.T, factor).T
