"""The part of an image that rays say nothing of."""

import math
from functools import cached_property

import torch
from torch import Tensor

from ctuq.linops.basic import Symmetric
from ctuq.linops.block_cg import BlockCG
from ctuq.linops.operator import Space
from ctuq.linops.sparse import SparseRows
from ctuq.tomo.rays.rows import RayRows
from ctuq.uncertainty.model.route import some_of

RAYS = 10240
"""Of a Cholesky factor of 0.8 GiB; of more rays neighbouring ones are added up. Of 22,680 rays of a disc at 256 x 256 all then
see 0.6 of their noise of what is added; of so many taken one by one they see twice their noise, and 14 times without N."""
_RTOL, _OF_SEEN, _STEPS = 0.03, 1e-3, 300
_QUIET = 1e-5


class NotInRays:
    """``N = I - M^T (M M^T + l I)^-1 M``: the part of images that rays of noise variance l say nothing of.

    A view sees a strip of frequencies about its own direction, as wide as the object is small. With G alone rays of a real scan
    over 40 degrees had ten times the standard deviation that they miss by; with N it is a fifth of their noise.

    Parameters
    ----------
    matrix : RayRows, shape (m, d)
        M, whitened.
    noise : float
        l, over the variance of a pixel.
    """

    def __init__(self, matrix: RayRows, noise: float):
        count = matrix.shape[0]
        if count > RAYS and isinstance(matrix, SparseRows):
            matrix = matrix.binned(math.ceil(count / RAYS))
        elif count > RAYS:
            matrix, noise = matrix.rows(some_of(count, RAYS).to(matrix.device)), noise * RAYS / count
        self._matrix, self._noise = matrix, noise

    def __call__(self, rows: Tensor) -> Tensor:
        """N of each image (k, d), float64."""
        M, rows = self._matrix, rows.double()
        return rows - M.transposed(torch.cholesky_solve(M(rows).T, self._factor).T)

    @cached_property
    def _factor(self) -> Tensor:
        M = self._matrix
        K = M.gram(torch.ones(M.shape[1], dtype=torch.float64, device=M.device))
        K.diagonal().add_(self._noise)
        return torch.linalg.cholesky(K, out=K)


class NotInRaysBySteps:
    """The same N as ``l (M^T M + l I)^-1``, by conjugate gradients: a volume has ten times more rays than a factor holds.

    They begin from the images themselves, of which rays see little, and end where residuals are small against l times the
    images, or against what rays see of these: without noise they would not come to an end that rays could tell. Of 64 fields
    of 24^3 voxels rays see 0.06, 0.07 and 0.36 of their noise where it is 1, 0.1 and 0.01 %, after 32, 136 and 173 steps.

    Parameters
    ----------
    matrix, noise
        As of `NotInRays`. Noise below a hundred-thousandth of what a voxel does to all rays is taken for that.
    """

    def __init__(self, matrix: RayRows, noise: float):
        self._matrix = matrix
        self._noise = max(noise, _QUIET * float(matrix.column_squares().max()))

    def __call__(self, rows: Tensor) -> Tensor:
        """N of each image (k, d), float64."""
        M, level, rows = self._matrix, self._noise, rows.double()
        if not len(rows):
            return rows
        seen, wanted = M.transposed(M(rows)).norm(dim=1), level * rows.norm(dim=1)
        rtol = _RTOL + _OF_SEEN * seen / wanted.clamp(min=torch.finfo(rows.dtype).tiny)
        K = Symmetric(lambda x: M.transposed(M(x)) + level * x, Space((M.shape[1],), torch.float64, M.device))
        return BlockCG(rtol, _STEPS)(K, level * rows, start=rows).value
