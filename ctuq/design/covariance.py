"""Prior covariances that are conditioned exactly: dense, or a low-rank factor with white variance beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ctuq.design.rows import ViewRows
from ctuq.errors import InputError


class Covariance(Protocol):
    """What conditioning asks of a prior covariance S of d unknowns; all tensors are float64."""

    @property
    def size(self) -> int:
        """D."""
        ...

    def diagonal(self) -> Tensor:
        """Prior variances, (d,)."""
        ...

    def times(self, x: Tensor) -> Tensor:
        """``x S`` for dense rows ``x`` (k, d)."""
        ...

    def row(self, A: Tensor) -> Tensor:
        """``A S`` for sparse rows (n, d): dense (n, d)."""
        ...

    def blocks(self, rows: ViewRows, region: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """``A_v S A_v^T`` and, with region E = diag(region), ``A_v S E S A_v^T`` of every view, (V, n, n) each."""
        ...


@dataclass(frozen=True, eq=False)
class DenseCovariance:
    """S itself.

    Parameters
    ----------
    matrix : Tensor, float64, shape (d, d)
    """

    matrix: Tensor

    @property
    def size(self) -> int:
        return len(self.matrix)

    def diagonal(self) -> Tensor:
        return self.matrix.diagonal().clone()

    def times(self, x: Tensor) -> Tensor:
        return x @ self.matrix

    def row(self, A: Tensor) -> Tensor:
        return A @ self.matrix

    def blocks(self, rows: ViewRows, region: Tensor | None) -> tuple[Tensor, Tensor | None]:
        own = self.matrix.new_empty(rows.views, rows.rays, rows.rays)
        squared = None if region is None else torch.empty_like(own)
        for v in range(rows.views):
            A = rows.view(v)
            half = A @ self.matrix
            own[v] = A @ half.T
            if region is not None and squared is not None:
                squared[v] = (half * region) @ half.T
        return (own + own.mT) / 2, squared


@dataclass(frozen=True, eq=False)
class FactorCovariance:
    """``S = Q^T Q + diag(white)``: a low-rank factor, and the variance of what it leaves out.

    Parameters
    ----------
    factor : Tensor, float64, shape (r, d)
        Q; r may be 0.
    white : Tensor, float64, shape (d,)
        Independent variance of every unknown beside the factor.
    missed : float
        Share of the trace that the factor does not hold and ``white`` replaces; 0 where exact.
    """

    factor: Tensor
    white: Tensor
    missed: float = 0.0

    @property
    def size(self) -> int:
        return self.factor.shape[1]

    def diagonal(self) -> Tensor:
        return self.factor.square().sum(0) + self.white

    def times(self, x: Tensor) -> Tensor:
        return (x @ self.factor.T) @ self.factor + self.white * x

    def row(self, A: Tensor) -> Tensor:
        return (A @ self.factor.T) @ self.factor + A.to_dense() * self.white

    def blocks(self, rows: ViewRows, region: Tensor | None) -> tuple[Tensor, Tensor | None]:
        X = rows.project(self.factor)
        own = X @ X.mT + rows.squares(self.white)
        if region is None:
            return own, None
        weighted = self.factor * region
        mixed = X @ rows.project(weighted * self.white).mT
        squared = X @ (weighted @ self.factor.T) @ X.mT + mixed + mixed.mT
        return own, squared + rows.squares(self.white.square() * region)


def low_rank(
    times: Callable[[Tensor], Tensor],
    size: int,
    rank: int,
    *,
    rng: torch.Generator,
    trace: float | None = None,
    white: Tensor | float = 0.0,
    batch: int = 64,
) -> FactorCovariance:
    """A randomised Nystrom factor of a covariance that is known by its products (Frangella, Tropp and Udell 2023).

    ``Y = S Omega`` for Gaussian probes and ``S ~ Y (Omega^T Y)^-1 Y^T``: one product a probe, and an error that falls with the
    spectrum, where a factor of prior samples has a relative error of about ``sqrt(2 / r)`` whatever the spectrum. What is
    missed is never negative; it is put back as white variance, so that the total variance is right.

    Parameters
    ----------
    times : callable
        ``x S`` for rows ``x`` (k, d), float64, without the white part.
    size, rank : int
        d, r.
    rng : torch.Generator
    trace : float, optional
        Trace of S; by default estimated from the probes.
    white : Tensor (d,) or float
        Independent variances that are known and not in ``times``.
    batch : int
        Probes at once.

    Returns
    -------
    FactorCovariance

    Raises
    ------
    InputError
        If the rank is not between 1 and d.
    """
    if not 1 <= rank <= size:
        raise InputError(f"A factor of rank {rank} was asked for; give 1 to {size}, the number of unknowns.")
    probes = torch.randn(rank, size, generator=rng, device=rng.device, dtype=torch.float64)
    products = torch.cat([times(part).to(probes) for part in probes.split(batch)])
    if trace is None:
        trace = float((probes * products).sum()) / rank
    # A shift of rounding size keeps the core positive definite; it is taken off the eigenvalues again.
    shift = torch.finfo(torch.float32).eps * float(products.norm()) / rank**0.5
    products = products + shift * probes
    core = products @ probes.T
    L = torch.linalg.cholesky((core + core.T) / 2)
    half = torch.linalg.solve_triangular(L, products, upper=False)
    values, vectors = torch.linalg.eigh(half @ half.T)
    keep = values > 2 * shift
    kept = vectors[:, keep].T @ half
    factor = kept * ((values[keep] - shift) / values[keep]).sqrt()[:, None]
    missed = max(0.0, trace - float(factor.square().sum()))
    return FactorCovariance(factor, factor.new_zeros(size) + white + missed / size, missed / trace)


def sampled(draw: Callable[[int], Tensor], count: int, *, white: Tensor | float = 0.0, batch: int = 64) -> FactorCovariance:
    """The factor of ``count`` prior samples: unbiased, with a relative error of about ``sqrt(2 / count)`` of each variance.

    Parameters
    ----------
    draw : callable
        ``draw(k)``: k independent prior samples (k, d).
    count : int
    white : Tensor (d,) or float
        Independent variances that are known and not in the samples.
    """
    if count < 1:
        raise InputError(f"{count} prior samples were asked for; give at least 1.")
    draws = [draw(min(batch, count - start)) for start in range(0, count, batch)]
    factor = torch.cat(draws).double() / count**0.5
    return FactorCovariance(factor, factor.new_zeros(factor.shape[1]) + white)
