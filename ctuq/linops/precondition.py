"""Low-rank approximations of positive semi-definite operators, as preconditioners of the operator plus noise."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.linops.basic import Diagonal, LowRankUpdate
from ctuq.linops.operator import LinearOperator, Space
from ctuq.linops.solve import flat_product

_BLOCK = 32
_CLOSE = 10.0
"""CG is fast enough once what is left out is below this many times the noise; smaller values cost more than they save."""


class Preconditioner(LinearOperator):
    """``P^-1`` with ``P = W + N``, low rank plus noise, in the form ``P = N^1/2 (I + V^T diag(s) V) N^1/2``.

    Attributes
    ----------
    log_det : float
        ``log det P``.
    root : LinearOperator
        R with ``R R^T = P``: standard normal tensors become draws of ``N(0, P)``.
    """

    def __init__(self, vectors: Tensor, values: Tensor, noise: Tensor, space: Space):
        self.domain = self.range = space
        scale = Diagonal(noise.sqrt(), space)
        inverse_scale = Diagonal(noise.rsqrt(), space)
        self._inverse = inverse_scale @ LowRankUpdate(vectors, 1 / (1 + values) - 1, space) @ inverse_scale
        self.root: LinearOperator = scale @ LowRankUpdate(vectors, (1 + values).sqrt() - 1, space)
        self.log_det = float(values.log1p().sum() + noise.log().expand(space.shape).sum())

    def _apply(self, x: Tensor) -> Tensor:
        return self._inverse._apply(x)

    def _apply_transpose(self, y: Tensor) -> Tensor:
        return self._inverse._apply(y)


@dataclass(frozen=True, eq=False)
class Nystrom:
    """A low-rank approximation ``V^T diag(values) V <= G``; any noise is added without a new sketch.

    Parameters
    ----------
    vectors : Tensor, float64, shape (r, m)
        Orthonormal rows.
    values : Tensor, float64, shape (r,)
        Approximate eigenvalues, falling.
    space : Space
        That of G, float64.
    """

    vectors: Tensor
    values: Tensor
    space: Space

    def with_noise(self, sigma2: float | Tensor) -> Preconditioner:
        """The approximate inverse of ``G + sigma2``.

        Parameters
        ----------
        sigma2 : float or Tensor
            Noise variance: one, or any shape that broadcasts to the space.

        Raises
        ------
        InputError
            If a variance is not positive.
        """
        noise = torch.as_tensor(sigma2, dtype=torch.float64, device=self.vectors.device)
        if not (noise > 0).all():
            raise InputError(f"A preconditioner needs positive noise, not {float(noise.min()):g}.")
        if noise.ndim == 0 or not len(self.values):
            return Preconditioner(self.vectors, self.values / noise, noise, self.space)
        factor = self.vectors / noise.expand(self.space.shape).reshape(-1).sqrt() * self.values.sqrt()[:, None]
        _, roots, vectors = torch.linalg.svd(factor, full_matrices=False)
        return Preconditioner(vectors, roots.square(), noise, self.space)

    def log_det(self, sigma2: float | Tensor) -> float:
        """``log det`` of the approximation plus noise."""
        return self.with_noise(sigma2).log_det

    def scaled(self, factor: float) -> "Nystrom":
        """The approximation of ``factor`` times G."""
        return replace(self, values=factor * self.values)


@torch.no_grad()
def nystrom(G: LinearOperator, rank: int = 512, *, rng: torch.Generator, noise: float = 0.0) -> Nystrom:
    """Randomised Nystrom approximation from a block Krylov space.

    Each block of 32 directions is the product of G with the one before it, made orthogonal to all of them: a power iteration
    that forgets nothing, so that steep spectra are captured with one product for each direction. The approximation is
    ``Y (Q^T Y)^-1 Y^T`` with ``Y = G Q`` (Tropp and Webber, Randomized algorithms for low-rank matrix approximation, 2023), by
    block elimination: ``F^T F`` with one more block of rows of F for each block.

    The space grows until the largest pivot of the newest block, an eigenvalue of its Schur complement in ``Q^T G Q``, falls
    below 10 times the noise (or the rounding of the products), or until it has ``rank`` directions.

    Parameters
    ----------
    G : LinearOperator
        Symmetric positive semi-definite, without the noise.
    rank : int
        Most directions, and products.
    rng : torch.Generator
    noise : float
        Smallest noise variance that will be added.

    Raises
    ------
    InputError
        If G is not square or the rank not positive.
    """
    if G.domain.shape != G.range.shape or rank < 1:
        raise InputError(f"Nystrom needs a square operator and a positive rank, not {G!r} and {rank}.")
    product, n = flat_product(G), G.domain.size
    space = Space(G.domain.shape, torch.float64, G.domain.device)
    rounding = torch.finfo(G.range.dtype).eps
    Q = factor = torch.empty(0, n, dtype=torch.float64, device=space.device)
    block = space.randn(min(_BLOCK, rank, n), rng=rng).reshape(-1, n)
    largest = 0.0
    while len(block := _new_directions(block, Q, rounding)[: min(rank, n) - len(Q)]):
        Y = product(block)
        shared = factor @ block.T
        pivots, basis = torch.linalg.eigh(Y @ block.T - shared.T @ shared)
        largest = max(largest, float(pivots[-1]))
        kept = pivots > 10 * rounding * largest
        root = basis[:, kept] * pivots[kept].rsqrt()
        Q, factor = torch.cat([Q, block]), torch.cat([factor, root.T @ (Y - shared.T @ factor)])
        if pivots[-1] <= _CLOSE * max(noise, rounding * largest):
            break
        block = Y
    _, values, vectors = torch.linalg.svd(factor, full_matrices=False)
    return Nystrom(vectors, values.square(), space)


@torch.no_grad()
def pivoted_cholesky(
    rows: Callable[[Tensor], Tensor], diagonal: Tensor, rank: int = 512, *, rng: torch.Generator, noise: float = 0.0
) -> Nystrom:
    """Randomly pivoted Cholesky factorisation of a matrix whose entries are cheap, such as a kernel's.

    Pivots are drawn 32 at a time with the diagonal of what is left as their probabilities (Chen, Epperly, Tropp and Webber,
    Randomly pivoted Cholesky, 2025). ``rank`` rows of the matrix are all that is computed, where `nystrom` needs as many
    products; its approximation of a given rank is somewhat better.

    Parameters
    ----------
    rows : callable
        ``rows(index)``: these rows of the matrix, without the noise, shape ``(|index|, n)``.
    diagonal : Tensor, shape (n,)
    rank : int
        Most pivots.
    rng : torch.Generator
    noise : float
        Pivoting ends where the trace of what is left is below 10 times this.

    Raises
    ------
    InputError
        If the rank is not positive, or the diagonal negative or not finite.
    """
    if rank < 1 or not (diagonal >= 0).all() or not diagonal.isfinite().all():
        raise InputError(f"Pivots need a rank of at least 1 (it is {rank}) and a finite diagonal that is nowhere negative.")
    left, rounding = diagonal.double(), torch.finfo(diagonal.dtype).eps
    factor = left.new_empty(0, len(left))
    scale, end = float(left.max()), max(_CLOSE * noise, len(left) * rounding * float(left.max()))
    while len(factor) < rank and float(left.sum()) > end:
        count = min(_BLOCK, rank - len(factor), int((left > 0).sum()))
        index = torch.multinomial(left.to(rng.device), count, generator=rng).to(left.device)
        block = rows(index).double() - factor[:, index].T @ factor
        pivots, basis = torch.linalg.eigh(block[:, index])
        kept = pivots > _BLOCK * rounding * max(scale, float(pivots[-1]))
        if not kept.any():
            break
        new = (basis[:, kept] * pivots[kept].rsqrt()).T @ block
        factor = torch.cat([factor, new])
        left = (left - new.square().sum(0)).clamp(min=0)
        left[index] = 0.0
    _, values, vectors = torch.linalg.svd(factor, full_matrices=False)
    return Nystrom(vectors, values.square(), Space((len(left),), torch.float64, left.device))


def _new_directions(block: Tensor, Q: Tensor, rounding: float) -> Tensor:
    """Orthonormal rows that span what ``block`` adds to the rows of Q."""
    size = block.norm()
    for _ in range(2):
        block = block - (block @ Q.T) @ Q
        _, lengths, block = torch.linalg.svd(block, full_matrices=False)
        kept = lengths > rounding * size
        block, size = block[kept], 0.0
    return block
