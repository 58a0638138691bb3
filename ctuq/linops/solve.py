"""Solvers of ``K x = b`` with a symmetric positive definite operator: dense Cholesky and conjugate gradients.

Vectors are float64 whatever the products of K are; relative residuals are always those of the products themselves.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ctuq.errors import CtuqError, InputError
from ctuq.linops.basic import Cast
from ctuq.linops.memory import require_memory
from ctuq.linops.operator import LinearOperator

_EXACT = 1e-6
_CHECK = 50


@dataclass(frozen=True, eq=False)
class Solution:
    """What a solver found.

    Parameters
    ----------
    value : Tensor, float64, shape (k, *shape)
    residual : Tensor, float64, shape (k,)
        ``|b - K x| / |b|`` by a product with K, not by the solver's recursion; 0 where b is 0.
    steps : int
        Products with K that the solver's recursion took.
    converged : bool
        Whether every right-hand side reached the tolerance.
    """

    value: Tensor
    residual: Tensor
    steps: int
    converged: bool


class Solver(Protocol):
    """A way to solve ``K x = b`` for k right-hand sides at once."""

    def __call__(self, K: LinearOperator, b: Tensor, *, start: Tensor | None = None) -> Solution:
        """Solve for ``b`` of shape ``(k, *shape)``, from ``start`` of the same shape (zeros if None)."""
        ...


@dataclass(frozen=True)
class Cholesky:
    """Dense float64 factorisation: n products and n^2 numbers; any start is ignored."""

    @torch.no_grad()
    def __call__(self, K: LinearOperator, b: Tensor, *, start: Tensor | None = None) -> Solution:
        """Solve exactly.

        Raises
        ------
        ResourceError
            If the matrix does not fit in memory.
        CtuqError
            If K is not positive definite.
        """
        rows, _ = flat_rows(K, b, None)
        n, device = K.domain.size, rows.device
        require_memory(24.0 * n**2, f"A dense solve of {n} unknowns", "use conjugate gradients", device)
        matrix = Cast(K, torch.float64).dense()
        factor, fault = torch.linalg.cholesky_ex(matrix)
        if fault:
            raise CtuqError(
                f"The operator of {n} unknowns is not positive definite (pivot {int(fault)}): "
                f"use float64 products, or more noise."
            )
        x = torch.cholesky_solve(rows.T, factor).T
        residual = relative(rows - x @ matrix, rows)
        return reported("Cholesky", Solution(x.reshape(b.shape), residual, 1, True), _EXACT)


@dataclass(frozen=True)
class CG:
    """Preconditioned conjugate gradients; all right-hand sides share each product, finished ones leave.

    The residual of the recursion drifts from the true one when products are rounded to float32. So the true one is computed
    every 50 steps and before a column may leave; a column whose recursion claims less than half of the truth has reached the
    rounding of the products, and leaves with what it has.

    Parameters
    ----------
    rtol : float
        Relative residual to reach.
    max_steps : int
    preconditioner : LinearOperator, optional
        Symmetric positive definite, close to the inverse of K; float64 is best.
    """

    rtol: float = 1e-3
    max_steps: int = 1000
    preconditioner: LinearOperator | None = None

    @torch.no_grad()
    def __call__(self, K: LinearOperator, b: Tensor, *, start: Tensor | None = None) -> Solution:
        """Solve to the tolerance; a miss is a warning with the number.

        Raises
        ------
        InputError
            If K does not act on tensors of b's shape, or b is not finite.
        """
        found = self.each(K, b, torch.full((len(b),), self.rtol, dtype=torch.float64, device=b.device), start=start)
        return reported("CG", found, self.rtol)

    @torch.no_grad()
    def each(self, K: LinearOperator, b: Tensor, rtol: Tensor, *, start: Tensor | None = None) -> Solution:
        """Solve each right-hand side to a relative residual of its own, ``rtol`` (k,); a miss is only told by `Solution`."""
        rows, x = flat_rows(K, b, start)
        precondition = _identity if self.preconditioner is None else flat_product(self.preconditioner)
        residual, steps = _descend(flat_product(K), precondition, rows, x, (rtol.to(rows), self.max_steps))
        return Solution(x.reshape(b.shape), residual, steps, bool((residual <= rtol.to(rows)).all()))


def flat_product(K: LinearOperator) -> Callable[[Tensor], Tensor]:
    """K as a function of flat float64 rows ``(k, n)``."""
    wide = K if K.domain.dtype == torch.float64 == K.range.dtype else Cast(K, torch.float64)

    def product(rows: Tensor) -> Tensor:
        return wide._apply(rows.reshape(-1, *K.domain.shape)).reshape(rows.shape)

    return product


def flat_rows(K: LinearOperator, b: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor]:
    """Right-hand sides and start as float64 rows ``(k, n)``; the start is a copy.

    Raises
    ------
    InputError
        If K does not act on tensors of these shapes, or b is not finite.
    """
    shape = K.domain.shape
    if K.range.shape != shape or tuple(b.shape[1:]) != shape or (start is not None and start.shape != b.shape):
        told = tuple(b.shape) if start is None else (tuple(b.shape), tuple(start.shape))
        raise InputError(f"{K!r} cannot be solved for tensors of shape {told}: give k right-hand sides (k, *shape).")
    rows = b.reshape(len(b), K.domain.size).double()
    if not rows.isfinite().all():
        raise InputError("A right-hand side has values that are not finite: check the data it was made from.")
    return rows, torch.zeros_like(rows) if start is None else start.reshape(rows.shape).double().clone()


def relative(residual: Tensor, rows: Tensor) -> Tensor:
    """Norm of each row of ``residual`` over that of ``rows``; 0 where both are 0."""
    return residual.norm(dim=1) / rows.norm(dim=1).clamp(min=torch.finfo(rows.dtype).tiny)


def reported(name: str, found: Solution, rtol: float | Tensor) -> Solution:
    """The solution with ``converged`` by its residuals, and a warning with the number if they miss the tolerance."""
    if bool(found.residual.isnan().any()):
        raise CtuqError(f"{name} came to values that are not finite: check the operator, its noise and its scale.")
    missed = found.residual > rtol
    if not bool(missed.any()):
        return found
    worst = int((found.residual / rtol).argmax())
    asked = torch.as_tensor(rtol).expand(len(missed))
    warnings.warn(
        f"{name} reached a relative residual of {float(found.residual[worst]):.1e} in {found.steps} steps, "
        f"not {float(asked[worst]):.1e}: "
        f"allow more steps, precondition, or use float64 products.",
        stacklevel=4,  # past the solver and its no_grad
    )
    return replace(found, converged=False)


def _descend(
    product: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    b: Tensor,
    x: Tensor,
    stop: tuple[Tensor, int],
) -> tuple[Tensor, int]:
    """Improve ``x`` in place until ``stop`` (tolerances, steps); the true relative residuals and the number of steps."""
    rtol, max_steps = stop
    r = b - product(x) if x.any() else b.clone()
    residual = relative(r, b)
    active, steps = (residual > rtol).nonzero()[:, 0], 0
    r = r[active]
    p = z = precondition(r)
    rz = _dot(r, z)
    while len(active) and steps < max_steps:
        steps += 1
        Kp = product(p)
        curvature = _dot(p, Kp)
        length = torch.where(curvature > 0, rz / curvature, 0.0)
        x[active] += length[:, None] * p
        r = r - length[:, None] * Kp
        claims = relative(r, b[active])
        checks = (claims <= rtol[active]) | (curvature <= 0) | (steps % _CHECK == 0)
        if checks.any():
            which = active[checks]
            residual[which] = relative(b[which] - product(x[which]), b[which])
        # Where the truth has parted from the recursion, the rounding of the products is reached: a restart gains nothing.
        ends = checks & ((residual[active] <= rtol[active]) | (residual[active] > 2 * claims) | (curvature <= 0))
        active, r, p, rz = active[~ends], r[~ends], p[~ends], rz[~ends]
        z = precondition(r)
        beta = _dot(r, z) / rz
        p, rz = z + beta[:, None] * p, _dot(r, z)
    if len(active):
        residual[active] = relative(b[active] - product(x[active]), b[active])
    return residual, steps


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(1)


def _identity(x: Tensor) -> Tensor:
    return x
