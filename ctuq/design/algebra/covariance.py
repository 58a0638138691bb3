"""Prior covariances that are conditioned exactly: dense, or a low-rank factor and a local covariance beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ctuq.design.algebra.rows import ViewRows
from ctuq.errors import InputError
from ctuq.linops.basic import Symmetric
from ctuq.linops.local import LocalCovariance
from ctuq.linops.memory import require_memory
from ctuq.linops.operator import Space
from ctuq.linops.precondition import nystrom

_CHECKS, _BATCH = 16, 64


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
        """View by view: one product of its rays with S is the half of both."""
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
    """``S = Q^T Q + V``: a low-rank factor, and the covariance of what it leaves out.

    Parameters
    ----------
    factor : Tensor, float64, shape (r, d)
        Q; r may be 0.
    beside : LocalCovariance, of d pixels
        V: independent variances, or a covariance that reaches a few pixels.
    missed : float
        Share of the trace that the factor does not hold and V replaces; 0 where exact.
    """

    factor: Tensor
    beside: LocalCovariance
    missed: float = 0.0

    @property
    def size(self) -> int:
        return self.factor.shape[1]

    def diagonal(self) -> Tensor:
        return self.factor.square().sum(0) + self.beside.diagonal

    def times(self, x: Tensor) -> Tensor:
        return (x @ self.factor.T) @ self.factor + self.beside.times(x)

    def row(self, A: Tensor) -> Tensor:
        return (A @ self.factor.T) @ self.factor + self.beside.times(A.to_dense())

    def blocks(self, rows: ViewRows, region: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """All views at once: S E S is multiplied out, so that nothing is larger than the factor."""
        X = rows.project(self.factor)
        own = X @ X.mT + rows.squares(self.beside)
        if region is None:
            return own, None
        weighted = self.factor * region
        mixed = X @ rows.project(self.beside.times(weighted)).mT
        squared = X @ (weighted @ self.factor.T) @ X.mT + mixed + mixed.mT
        return own, squared + rows.after(self.beside).squares(LocalCovariance(region))


def low_rank(
    times: Callable[[Tensor], Tensor], size: int, rank: int, *, rng: torch.Generator, white: Tensor | float = 0.0
) -> FactorCovariance:
    """The factor of a covariance that is known by its products, from `ctuq.linops.nystrom`.

    Its error falls with the spectrum, where a factor of prior samples has a relative error of about ``sqrt(2 / r)`` whatever
    that is. What is missed is never negative; its trace is estimated from 16 further probes, which see the remainder alone, and
    put back as white variance.

    Parameters
    ----------
    times : callable
        ``x S`` for rows ``x`` (k, d), float64, without the white part.
    size, rank : int
        d, r.
    rng : torch.Generator
    white : Tensor (d,) or float
        Independent variances that are known and not in ``times``.

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
    S = Symmetric(lambda x: times(x).to(x), Space((size,), torch.float64, rng.device))
    found = nystrom(S, rank, rng=rng)
    factor, fresh = found.values.sqrt()[:, None] * found.vectors, S.domain.randn(_CHECKS, rng=rng)
    remainder = (fresh * S(fresh)).sum(1) - (fresh @ factor.T).square().sum(1)
    missed = max(0.0, float(remainder.mean()))
    total = float(found.values.sum()) + missed
    return FactorCovariance(factor, LocalCovariance(factor.new_zeros(size) + white + missed / size), missed / total)


@dataclass(frozen=True)
class Hold:
    """How a covariance of the image is held: whole where the image is small enough, else as a low-rank factor.

    Parameters
    ----------
    rank : int
        Of the factor. On 32 x 32 pixels one of rank 400 chose the same 15 angles among 60 as the whole covariance, with scores
        0.2 % off; rank 300 the first 11, 0.5 % off; rank 200 others, 2.8 % off, for 99.93 % of the information.
    dense_pixels : int
        Largest image whose covariance is kept whole.
    seed : int
        Of the factor's probes.
    """

    rank: int
    dense_pixels: int
    seed: int = 0

    def __call__(self, size: int, times: Callable[[Tensor], Tensor], matrix: Callable[[], Tensor]) -> tuple[Covariance, str]:
        """The covariance of ``size`` pixels from ``times(x) = x S`` or ``matrix() = S``, and how it is held in a sentence."""
        if size <= self.dense_pixels:
            require_memory(8 * 2.5 * size**2, "The image's covariance", "choose a smaller image for the design")
            return DenseCovariance(matrix()), f"{size} pixels: exact in image space"
        rank = min(self.rank, size)
        factor = low_rank(times, size, rank, rng=torch.Generator().manual_seed(self.seed))
        return factor, f"{size} pixels: a factor of rank {rank}, which misses {factor.missed:.1%} of the variance"


def sampled(draw: Callable[[int], Tensor], count: int, *, white: Tensor | float = 0.0) -> FactorCovariance:
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
    draws = [draw(min(_BATCH, count - start)) for start in range(0, count, _BATCH)]
    factor = torch.cat(draws).double() / count**0.5
    return FactorCovariance(factor, LocalCovariance(factor.new_zeros(factor.shape[1]) + white))
