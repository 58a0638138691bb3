"""Many rays of few pixels as few numbers, exactly: what rays tell of an image of d pixels and e systematic errors.

Rays that are whitened for one noise variance are ``t = M x + N eta + noise``, M (m, d) and N (m, e). With ``[M N] = Q R``, Q of
``k = d + e`` orthonormal columns, ``Q^T t`` are k numbers of the same model with R's columns for M and N, and the same noise.
What is left of t is noise alone, known by its sum of squares and their number, m - k, and independent of them:

    log p(t) = log N(Q^T t; 0, Q^T K Q) - (m - k) / 2 log(2 pi sigma2) - |t - Q Q^T t|^2 / (2 sigma2)

R alone is made, of rays by blocks, t as its last column: Householder's triangles lose nothing of rays that are a million times
their noise, where Gram matrices lose the square of that.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.laplace.system.problem import Problem
from ctuq.uncertainty.model.linear import ImageModel, RayFeatures, components_of

_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class _DenseRows:
    """A matrix M (k, d), as `RayFeatures` and `ctuq.linops.local` take it.

    Of covariances with neighbours the latter asks for sparse rows; where rays outnumber pixels a factor leaves none of them
    out.
    """

    matrix: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """``M x`` for each row of (n, d)."""
        return x.double() @ self.matrix.T

    def transposed(self, y: Tensor) -> Tensor:
        """``M^T y`` for each row of (n, k)."""
        return y.double() @ self.matrix

    def gram(self, v: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """``M diag(v) M^T``."""
        return ((self.matrix * v.double()) @ self.matrix.T).to(dtype)

    def squares(self, v: Tensor) -> Tensor:
        """Its diagonal."""
        return self.matrix.square() @ v.double()

    def columns(self, start: int, stop: int) -> Tensor:
        """Columns as dense rows."""
        return self.matrix[:, start:stop].T.contiguous()


def reduced(model: ImageModel) -> tuple[Problem, Tensor]:
    """The engine's problem of all rays of a model, as many numbers as it has pixels and errors, and its components.

    Parameters
    ----------
    model : ImageModel
        Of more rays than that.
    """
    features, pixels, rank = model.features, model.image.numel(), model.factor.rank
    count = pixels + model.prior.rank - rank
    R = features.basis.new_zeros(0, count + 1)
    for start in range(0, len(model.target), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(model.target)))
        seen = features.matrix.dense(rows.start, rows.stop)
        block = torch.cat([seen, features.basis[rows, rank:], model.target[rows, None]], 1)
        R = torch.linalg.qr(torch.cat([R, block]), mode="r").R
    matrix, target = _DenseRows(R[:count, :pixels].contiguous()), R[:count, -1].contiguous()
    basis, errors = model.factor.basis, R[:count, pixels:count]
    network = matrix.matrix if basis is None else matrix.matrix @ basis.double()
    seen = torch.cat([network, errors], 1)
    fewer = RayFeatures(seen, matrix, features.slopes, features.rest)  # pyright: ignore[reportArgumentType]
    problem = Problem(
        fewer,
        target,
        torch.full((1,), math.nan, dtype=torch.float64),
        log_scale=0.5 * float(model.precision.log().sum()),
        over_observations=True,
        beside=(len(model.target) - count, float(R[count, -1].square())),
    )
    return problem, components_of(fewer, model.prior)
