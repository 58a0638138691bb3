"""Low-rank approximations of positive semi-definite operators, as preconditioners of the operator plus noise."""

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
    ``Y (Q^T Y)^+ Y^T`` with ``Y = G Q`` (Tropp and Webber, Randomized algorithms for low-rank matrix approximation, 2023).

    The space grows until what the rest of the newest block adds to the approximation, the largest eigenvalue of its Schur
    complement in ``Q^T G Q``, falls below 10 times the noise (or the rounding of the products), or until it has ``rank``
    directions.

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
    Q = Y = torch.empty(0, n, dtype=torch.float64, device=space.device)
    block = space.randn(min(_BLOCK, rank, n), rng=rng).reshape(-1, n)
    while len(block := _new_directions(block, Q, rounding)[: min(rank, n) - len(Q)]):
        before = len(Q)
        Q, Y = torch.cat([Q, block]), torch.cat([Y, product(block)])
        core = Y @ Q.T
        if _left_out(core, before, rounding) <= _CLOSE * max(noise, rounding * float(core.norm())):
            break
        block = Y[before:]
    root = _inverse_root(Y @ Q.T, rounding)
    _, values, vectors = torch.linalg.svd(root.T @ Y, full_matrices=False)
    return Nystrom(vectors, values.square(), space)


def _new_directions(block: Tensor, Q: Tensor, rounding: float) -> Tensor:
    """Orthonormal rows that span what ``block`` adds to the rows of Q."""
    size = block.norm()
    for _ in range(2):
        block = block - (block @ Q.T) @ Q
        _, lengths, block = torch.linalg.svd(block, full_matrices=False)
        kept = lengths > rounding * size
        block, size = block[kept], 0.0
    return block


def _left_out(core: Tensor, before: int, rounding: float) -> float:
    """Largest eigenvalue of the Schur complement of the newest directions."""
    core = (core + core.T) / 2
    half = _inverse_root(core[:before, :before], rounding).T @ core[:before, before:]
    return float(torch.linalg.eigvalsh(core[before:, before:] - half.T @ half)[-1])


def _inverse_root(core: Tensor, rounding: float) -> Tensor:
    """R with ``R R^T`` the inverse of a semi-definite matrix, without its eigenvalues below rounding."""
    if not len(core):
        return core
    values, vectors = torch.linalg.eigh((core + core.T) / 2)
    kept = values > 10 * rounding * values[-1]
    return vectors[:, kept] * values[kept].rsqrt()
