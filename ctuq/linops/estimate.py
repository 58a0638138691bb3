"""Stochastic estimates of the trace, diagonal and log determinant of operators, each with its error; largest eigenvalue."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.errors import CtuqError, InputError
from ctuq.linops.operator import LinearOperator
from ctuq.linops.precondition import Preconditioner
from ctuq.linops.solve import flat_product

_NEGLIGIBLE = 0.1


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error: ``value +- 1.96 error`` holds the truth 95 times of 100.

    For few draws the error is wider than the sample's, by Student's t distribution.

    Parameters
    ----------
    value, error : float
        In the same unit; an error of 0 is an exact number's.
    """

    value: float
    error: float


@torch.no_grad()
def trace(op: LinearOperator, *, rng: torch.Generator, probes: int) -> Estimate:
    """Trace by Hutchinson's estimator, ``mean of z^T A z`` over random signs z.

    Parameters
    ----------
    op : LinearOperator
        Square.
    rng : torch.Generator
    probes : int
        How many products with the operator.
    """
    z, Az = _sign_products(op, rng, probes)
    return estimate_of((z * Az).sum(1))


@torch.no_grad()
def diagonal(op: LinearOperator, *, rng: torch.Generator, probes: int) -> tuple[Tensor, Tensor]:
    """Diagonal by ``mean of z * A z`` over random signs z, exact for diagonal operators.

    Parameters
    ----------
    op : LinearOperator
        Square.
    rng : torch.Generator
    probes : int
        How many products with the operator.

    Returns
    -------
    value, error : Tensor, float64, of the operator's shape
        The estimate and its standard error.
    """
    z, Az = _sign_products(op, rng, probes)
    draws = (z * Az).reshape(probes, *op.domain.shape)
    return draws.mean(0), _widening(probes) * draws.std(0) / probes**0.5


@torch.no_grad()
def log_det(
    op: LinearOperator,
    *,
    rng: torch.Generator,
    probes: int = 16,
    steps: int = 128,
    preconditioner: Preconditioner | None = None,
) -> Estimate:
    """Log determinant by stochastic Lanczos quadrature, ``log det K = log det P + log det(P^-1/2 K P^-1/2)``.

    The second term is ``n`` times the mean of ``u^T log(P^-1/2 K P^-1/2) u`` over unit vectors u, each by the Gauss quadrature
    of Lanczos steps from a probe drawn from ``N(0, P)`` (Ubaru, Chen and Saad 2017). Steps double until that changes the value
    by less than a tenth of its error, or reach ``steps``; the last change is part of the error, and a warning where it is the
    larger part. Every vector is made orthogonal to all before it, which keeps ``2 probes steps`` vectors.

    Parameters
    ----------
    op : LinearOperator
        Symmetric positive definite.
    rng : torch.Generator
    probes : int
        At least 2.
    steps : int
        Most Lanczos steps.
    preconditioner : Preconditioner, optional
        Of the operator, with the noise in it.

    Raises
    ------
    CtuqError
        If the operator is found not to be positive definite.
    """
    _check(op, probes)
    n = op.domain.size
    z = op.domain.randn(probes, rng=rng).reshape(probes, n).double()
    if preconditioner is not None:
        z = flat_product(preconditioner.root)(z)
    known = 0.0 if preconditioner is None else preconditioner.log_det
    precondition = _identity if preconditioner is None else flat_product(preconditioner)
    most = min(steps, n)
    draws, change = torch.full_like(z[:, 0], torch.inf), torch.inf
    diagonals: list[Tensor] = []
    offsets: list[Tensor] = []
    for step, (a, b) in enumerate(_lanczos(flat_product(op), precondition, z, steps=most, kept=most), start=1):
        diagonals.append(a)
        offsets.append(b)
        if step == most or step in (most // 2**i for i in range(1, 6)):
            before, draws = draws, n * _log_quadrature(diagonals, offsets)
            change = 0.0 if step == n else abs(float((draws - before).mean()))
            if change < _NEGLIGIBLE * estimate_of(draws).error:
                break
    found = estimate_of(draws)
    if change > found.error:
        warnings.warn(
            f"Lanczos quadrature still changed the log determinant by {change:.2g} in its last of {most} steps: "
            f"allow more steps, or precondition.",
            stacklevel=2,
        )
    return Estimate(known + found.value, (found.error**2 + change**2) ** 0.5)


@torch.no_grad()
def largest_eigenvalue(op: LinearOperator, *, rng: torch.Generator, steps: int = 30) -> float:
    """Largest eigenvalue of a symmetric positive semi-definite operator, from above rather than from below.

    The largest Ritz value after so many Lanczos steps from one random vector, plus the norm of its residual. Costs no more than
    a power iteration, which is far less exact, and keeps three vectors.
    """
    _check(op, 2)
    n = op.domain.size
    start = op.domain.randn(1, rng=rng).reshape(1, n).double()
    parts = list(_lanczos(flat_product(op), _identity, start, steps=min(steps, n), kept=2))
    offsets = [b for _, b in parts]
    values, vectors = torch.linalg.eigh(_tridiagonal([a for a, _ in parts], offsets))
    return float(values[0, -1] + offsets[-1][0] * vectors[0, -1, -1].abs())


def estimate_of(draws: Tensor) -> Estimate:
    """Mean of independent draws ``(k,)``, k at least 2, with its error."""
    return Estimate(float(draws.mean()), _widening(len(draws)) * float(draws.std()) / len(draws) ** 0.5)


def _widening(count: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, 0.975) / stdtrit(torch.inf, 0.975))


def _check(op: LinearOperator, probes: int) -> None:
    if op.domain.shape != op.range.shape:
        raise InputError(f"{op!r} is not square: it has no trace, diagonal or determinant.")
    if probes < 2:
        raise InputError(f"{probes} probe gives no error: take at least 2.")


def _sign_products(op: LinearOperator, rng: torch.Generator, probes: int) -> tuple[Tensor, Tensor]:
    _check(op, probes)
    z = op.domain.randn(probes, rng=rng).sign().reshape(probes, op.domain.size).double()
    return z, flat_product(op)(z)


def _lanczos(
    product: Callable[[Tensor], Tensor], precondition: Callable[[Tensor], Tensor], r: Tensor, *, steps: int, kept: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Diagonal and next off-diagonal entries ``(k,)`` of the tridiagonal matrices of ``P^-1/2 K P^-1/2`` from ``P^-1/2 r``.

    Each new vector is made orthogonal to the last ``kept``, twice: what rounding leaves after once grows to false, tiny
    eigenvalues. Where a Krylov space ends in zeros, the matrix goes on with an isolated 1.
    """
    s = precondition(r)
    norm = _dot(r, s).sqrt()
    basis: list[tuple[Tensor, Tensor]] = []
    for _ in range(steps):
        scale = torch.where(norm > 0, 1 / norm, 0.0)[:, None]
        q, s = scale * r, scale * s
        basis = [*basis[len(basis) - kept + 1 :], (q, s)] if len(basis) >= kept else [*basis, (q, s)]
        r = product(s)
        a = torch.where(norm > 0, _dot(r, s), 1.0)
        for q, s in (*reversed(basis), *basis):
            r = r - _dot(r, s)[:, None] * q
        s = precondition(r)
        norm = _dot(r, s).clamp(min=0).sqrt()
        yield a, norm


def _tridiagonal(diagonals: list[Tensor], offsets: list[Tensor]) -> Tensor:
    upper = torch.diag_embed(torch.stack(offsets[:-1], 1), 1) if len(offsets) > 1 else 0.0
    return torch.diag_embed(torch.stack(diagonals, 1)) + upper + (upper.mT if isinstance(upper, Tensor) else 0.0)


def _log_quadrature(diagonals: list[Tensor], offsets: list[Tensor]) -> Tensor:
    """``e_1^T log(T) e_1`` for each probe."""
    values, vectors = torch.linalg.eigh(_tridiagonal(diagonals, offsets))
    if (values <= 0).any():
        raise CtuqError(
            f"The operator has an eigenvalue of {float(values.min()):.1e} or less where a positive one is needed for its "
            f"log determinant: use float64 products, more noise, or a preconditioner."
        )
    return (vectors[:, 0].square() * values.log()).sum(1)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(1)


def _identity(x: Tensor) -> Tensor:
    return x
