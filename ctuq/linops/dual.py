"""Solvers of ``K a = b`` by blocks of rows of K: block descent, and stochastic dual descent over features."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ctuq.errors import CtuqError, InputError
from ctuq.linops.basic import Symmetric
from ctuq.linops.operator import LinearOperator, Space
from ctuq.linops.solve import Solution, flat_rows, reported
from ctuq.linops.stochastic import automatic_step, batches, descend, residuals, smallest_batch


@runtime_checkable
class Rows(Protocol):
    """A symmetric operator on ``(n, ...)`` whose rows can be had a block at a time, noise included."""

    def rows(self, index: Tensor, x: Tensor) -> Tensor:
        """``(K x)[:, index]``, shape ``(k, |index|, ...)``, for x of shape ``(k, n, ...)``."""
        ...


@runtime_checkable
class Blocks(Protocol):
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


@torch.no_grad()
def sdd_features(
    features: Callable[[Tensor], LinearOperator],
    covariance: Callable[[Tensor], Tensor],
    noise: Tensor,
    b: Tensor,
    *,
    batch: int,
    steps: int,
    momentum: float = 0.9,
    rtol: float = 1e-2,
    rng: torch.Generator,
) -> tuple[Solution, Tensor]:
    """Stochastic dual descent for ``K = H Sigma H^T + N`` by products with the features of one mini-batch.

    ``u = Sigma H^T a`` is carried along: each step changes it by the features of the mini-batch alone, and costs one product
    with ``H_I`` and one with ``H_I^T``.

    Parameters
    ----------
    features : callable
        ``features(index)``: ``H_I`` from ``(P,)`` to ``(|I|, ...)``.
    covariance : callable
        Sigma applied to ``(k, P)``.
    noise : Tensor
        Noise variances, of the shape ``(n, ...)`` of the observations.
    b : Tensor, shape (k, n, ...)
    batch, steps, momentum, rtol, rng
        As for `ctuq.linops.stochastic.sdd`.

    Returns
    -------
    solution : Solution
    lifted : Tensor, float64, shape (k, P)
        ``u`` of the solution, computed anew.
    """
    b, noise, shape = b.double(), noise.double(), b.shape[1:]
    n, size = shape[0], shape.numel()

    def lift(index: Tensor, part: Tensor) -> Tensor:
        H = features(index)
        return covariance(H.T(part.to(H.range.dtype))).to(b)

    def push(index: Tensor, u: Tensor) -> Tensor:
        H = features(index)
        return H(u.to(H.domain.dtype)).to(b)

    def principal(index: Tensor) -> LinearOperator:
        index = index.to(b.device)
        scale = n / len(index)
        return Symmetric(lambda x: scale * (push(index, lift(index, x)) + noise[index] * x), Space.of(b[:, index]))

    def gradient(pair: Tensor, index: Tensor) -> Tensor:
        a, u = pair[:, :size].reshape(-1, *shape), pair[:, size:]
        change = (n / len(index)) * (push(index, u) + noise[index] * a[:, index] - b[:, index])
        return torch.cat([torch.zeros_like(b).index_copy_(1, index, change).flatten(1), lift(index, change)], 1)

    step_size = automatic_step(principal, n=n, batch=smallest_batch(n, batch), momentum=momentum, rng=rng)
    weights = features(torch.arange(1, device=b.device)).domain.size
    pair = descend(gradient, b.new_zeros(len(b), size + weights), batches(n, batch, rng), [step_size] * steps, momentum)
    a = pair[:, :size].reshape(b.shape)
    blocks = torch.arange(n, device=b.device).split(batch)
    u = torch.stack([lift(index, a[:, index]) for index in blocks]).sum(0)
    residual = residuals(lambda index, a: push(index, u) + noise[index] * a[:, index], a, b, batch)
    return reported("SDD", Solution(a, residual, steps, True), rtol), u


def _rows(K: LinearOperator) -> Callable[[Tensor, Tensor], Tensor]:
    if not isinstance(K, Rows):
        raise InputError(f"{K!r} does not give single rows of its products: solve it by CG.")
    return K.rows


def _block(K: LinearOperator, index: Tensor) -> Tensor:
    if not isinstance(K, Blocks):
        raise InputError(f"{K!r} does not give its diagonal blocks: solve it by CG or `sdd`.")
    return K.block(index).double()


def _solve(block: Tensor, gap: Tensor) -> Tensor:
    factor, fault = torch.linalg.cholesky_ex(block)
    if fault:
        raise CtuqError(f"A block of {len(block)} coordinates is not positive definite: use float64, or more noise.")
    return torch.cholesky_solve(gap.T, factor).T
