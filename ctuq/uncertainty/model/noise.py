"""Noise and floors of a scan's rays, solved: ``N = I + b V b^T``.

By a Cholesky factor where that is affordable; else by block conjugate gradients in float32, refined in float64, given the few
pixels that hold most of the variance.
"""

import math
import warnings
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ctuq.errors import CtuqError
from ctuq.linops.basic import Symmetric
from ctuq.linops.block_cg import BlockCG
from ctuq.linops.gaussian import FactorInPlace
from ctuq.linops.local import LocalCovariance
from ctuq.linops.operator import Space
from ctuq.linops.sparse import SparseRows
from ctuq.stages import Stages, name_of
from ctuq.tomo.rays.rows import RayRows

BATCH = 64
"""Right-hand sides that are solved together."""
ROUGH, RTOL = 1e-4, 1e-6
"""Relative residual of one correction in float32, which the next one refines, and of a whole solve."""
UNITS = (1e-3, 1e-4, 1e-5)
"""Those of single rays, whose solutions enter by `NoiseSolve.inner`: the first that does."""
_RESOLVED = 1e5
"""Times the noise, what floors may do to a ray for float32 to resolve it: in variance."""
_FAINT = 0.01
"""Residual, in units of the noise, of what enters sums of such units by its square."""
_PRODUCT, _LEAST = 3e-4, 1e-10
"""Error of a covariance, over the standard deviations of both functionals; the relative residual that it may ask for."""
_STEPS, _ROUNDS, _GAIN = 500, 12, 2.0
"""At most: steps of conjugate gradients in a correction, and corrections in a solve; what each gains at least."""
_EDGES, _FEW, _STANDS_OUT = 8192, 64, 3.0
"""At most and at least so many pixels, each of so many times the median variance, are solved for exactly before conjugate
gradients."""


class NoiseSolve:
    """``N^-1`` with ``N = I + b V b^T``: by Cholesky; or by Cholesky or block CG in float32, refined in float64.

    The factor is of N, or of ``Q = I + S^T b^T b S`` with ``V = S S^T`` where pixels are fewer:
    ``N^-1 = I - b S Q^-1 S^T b^T``. Where N is solved for a thousand times and more, a factor is cheaper than CG: at 7,800 rays
    of the walnut CG takes 140 steps for each block of right-hand sides.

    Attributes
    ----------
    factor : Tensor, float64, (m, m) or (d, d), optional
        Where that is affordable.
    over_pixels : bool
        Of which of the two.
    """

    def __init__(self, matrix: RayRows, root: Tensor, v: LocalCovariance, noise_by: str, stages: Stages):
        self._matrix, self._root, self._v, self._stages = matrix, root, v, stages
        self.factor: Tensor | None = None
        self.over_pixels = matrix.shape[0] > matrix.shape[1]
        self._trivial = float(v.diagonal.max()) == 0
        if self._trivial:
            return
        if noise_by == "float64":
            N = self._gram(torch.float64)
            self.factor = torch.linalg.cholesky(N, out=N)
            return
        # None where rounding to float32 left N without a Cholesky factor.
        narrow = FactorInPlace.of(self._gram(torch.float32)) if noise_by == "float32" else None
        self._correct = self._by_conjugate_gradients() if narrow is None else self._by_factor(narrow)

    @property
    def exact(self) -> bool:
        """Whether there is nothing to be solved by steps."""
        return self._trivial or self.factor is not None

    def _by_factor(self, narrow: FactorInPlace) -> Callable[[Tensor, Tensor], Tensor]:
        # A function that held the solver itself would keep its factor, gigabytes, until the garbage collector comes.
        matrix, root, v, over_pixels = self._matrix, self._root.float(), self._v, self.over_pixels

        def roughly(b: Tensor, _rtol: Tensor) -> Tensor:
            if not over_pixels:
                return narrow.solve(b.float()).double()
            seen = narrow.solve(v.spread_transposed(matrix.fast_transposed(b.float() / root)))
            return b - (matrix.fast(v.spread(seen)) / root).double()

        return roughly

    def _by_conjugate_gradients(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Where few right-hand sides do not come to their end, more beside them, which want no solution, span what they lack.

        Specks at 32 x 32 whose floors are 2.4e5 times the noise: 64 together took 330 steps to 1e-4, one 500 to 2e-2.
        """
        matrix, v, root = self._matrix, self._v, self._root.float()
        space = Space((matrix.shape[0],), torch.float32, matrix.device)

        def product(x: Tensor) -> Tensor:
            return x + matrix.fast(v.fast(matrix.fast_transposed(x / root))) / root

        N, near = Symmetric(product, space), _given_edges(matrix, self._root, v.own)

        def solve(b: Tensor, rtol: Tensor) -> Tensor:
            with warnings.catch_warnings():
                # What float32 leaves is the next round's right-hand side.
                warnings.filterwarnings("ignore", "Block CG reached")
                found = BlockCG(rtol, _STEPS, near)(N, b)
                if found.converged or len(b) > BATCH // 4:
                    return found.value
                left = b - product(found.value.float()).double()
                goals = rtol * b.norm(dim=1) / left.norm(dim=1)
                drawn = torch.randn(BATCH - len(b), b.shape[1], generator=torch.Generator().manual_seed(0))
                company = product(drawn.to(b.device)).double()
                both = torch.cat([left, company]), torch.cat([goals, torch.ones(len(company)).to(goals)])
                return found.value + BlockCG(both[1], _STEPS, near)(N, both[0]).value[: len(b)]

        return solve

    def _gram(self, dtype: torch.dtype) -> Tensor:
        """N, or Q."""
        if self.over_pixels:
            weights = (1 / self._root.square()).expand(self._matrix.shape[0])
            out = self._v.between(self._matrix.column_gram(weights, dtype))
        else:
            out = self._v.gram(self._matrix, dtype).div_(self._root.square().to(dtype))
        out.diagonal().add_(1)
        return out

    def times(self, x: Tensor) -> Tensor:
        """``N x`` for each row of (k, m)."""
        parts = [self._matrix(self._v.times(self._matrix.transposed(p / self._root))) / self._root for p in x.split(BATCH)]
        return x + torch.cat(parts)

    def inner(self, told: Tensor, x: Tensor) -> Tensor:
        """``b N^-1 b^T`` (k, k) of rows b from their solutions x and ``b x^T``: of second order in what is left of b."""
        return told + told.T - torch.cat([self.times(part) @ x.T for part in x.split(BATCH)])

    def __call__(self, b: Tensor, rtol: float | Tensor = RTOL) -> Tensor:
        """``N^-1 b`` for each row of (k, m), to a relative residual, of all or each (k,), where there is no factor in float64.

        Rows of like residuals are best side by side.
        """
        if self._trivial:
            return b
        if self.factor is not None and self.over_pixels:
            pulled = self._v.spread_transposed(self._matrix.transposed(b / self._root))
            seen = torch.cholesky_solve(pulled.T, self.factor).T
            return b - self._matrix(self._v.spread(seen)) / self._root
        if self.factor is not None:
            return torch.cholesky_solve(b.T, self.factor).T
        goals = torch.as_tensor(rtol, dtype=b.dtype, device=b.device).expand(len(b))
        return torch.cat([self._kept(*part) for part in zip(b.split(BATCH), goals.split(BATCH), strict=True)])

    def _kept(self, b: Tensor, rtol: Tensor) -> Tensor:
        name = name_of(b, rtol, *self._v.arrays().values(), self._root)
        return self._stages.once(f"solve {name}", lambda: self._refined(b, rtol)).to(b.device)

    def _refined(self, b: Tensor, rtol: Tensor) -> Tensor:
        value, left, before, rounds = torch.zeros_like(b), b, math.inf, 0
        size, least = b.norm(dim=1).clamp(min=torch.finfo(b.dtype).tiny), torch.finfo(b.dtype).tiny
        off = left.norm(dim=1) / size
        # A round that gains little has come to the rounding of float32, or to steps that are too few: so would the next.
        while 1 < (missed := float((off / rtol).max())) < before / _GAIN and rounds < _ROUNDS:
            value = value + self._correct(left, (0.5 * rtol / off.clamp(min=least)).clamp(min=ROUGH))
            left, before, rounds = b - self.times(value), missed, rounds + 1
            off = left.norm(dim=1) / size
        if not math.isfinite(missed):
            raise CtuqError("Noise and floors cannot be solved: they are too far apart, or not finite.")
        if missed > 1:
            worst = int((off / rtol).argmax())
            warnings.warn(
                f"Noise and floors were solved to a residual of {float(off[worst]):.1e}, not {float(rtol[worst]):.0e}: "
                "what is made from it may be off by as much; smaller images are solved exactly.",
                stacklevel=2,
            )
        return value


def least_noise(matrix: RayRows, v: LocalCovariance) -> float:
    """Variance of the noise of a whitened ray that float32 resolves beside the floors."""
    return float(v.squares(matrix).max()) / _RESOLVED


def to_faint(b: Tensor, residual: float = _FAINT) -> Tensor:
    """Relative residual of each row of b (k, m) that is so much in units of the noise: of what is 10^4 times the noise 1e-6."""
    return (residual / b.norm(dim=1)).clamp(RTOL, 1.0)


def for_draws(y: Tensor, pixels: int) -> Tensor:
    """Relative residual that rays y (k, m) of draws of the floors take, noise included.

    A residual r adds ``|r|^2 / 4`` at most to the d squares ``u^2 / v`` of what rays leave of the floors, and these are 1 over
    the size of N at least, ``m / |y|^2``: a twentieth in the standard deviation of that would be much.
    """
    return (0.1 * (pixels * y.shape[1]) ** 0.5 / y.square().sum(1)).clamp(RTOL, _FAINT)


def for_products(y: Tensor, prior: Tensor) -> Tensor:
    """Relative residual that rays ``y = b V x`` (k, m) of functionals x take, ``x^T V x`` their prior variance.

    With ``V = S S^T``, ``G = b S``, ``Q = I + G^T G`` the covariance of the floors given the rays is ``S Q^-1 S^T``. A residual
    r of y moves it by ``S Q^-1 G^T r``: any functional by its own standard deviation times ``|r|`` at most. That may be
    `_PRODUCT` of x's, which is ``prior / (prior + |y|^2)^1/2`` at least.
    """
    size = y.norm(dim=1)
    least = prior / (prior + size.square()).sqrt().clamp(min=torch.finfo(y.dtype).tiny)
    return (_PRODUCT * least / size.clamp(min=torch.finfo(y.dtype).tiny)).clamp(_LEAST, 1.0)


def _given_edges(matrix: RayRows, root: Tensor, own: Tensor) -> Symmetric | None:
    """``(I + b V_e b^T)^-1`` of the pixels e of largest variance, by a factor over them; None where none stands out.

    Floors are large at edges and small all over: of the tooth at 256 x 256 an eighth of the pixels has 94 % of all variance.
    Beside these, what is left of N is nearly I: 64 right-hand sides come to 1e-4 in 16 steps instead of 79, each step 1.4
    times as long. Filters for the whole image, which a Fourier transform applies, took half the steps at twice the time.
    """
    count = min(_EDGES, int((own > _STANDS_OUT * own.median()).sum()))
    if count < _FEW or not isinstance(matrix, SparseRows):
        return None
    pixels = own.topk(count).indices.sort().values
    sizes, places = own[pixels].sqrt().cpu().numpy(), (pixels.cpu().numpy(), np.arange(count))
    rays, narrow = matrix.after(sp.csr_array((sizes, places), shape=(matrix.shape[1], count))), root.float()
    Q = rays.column_gram((1 / root.square()).expand(matrix.shape[0]), torch.float32)
    Q.diagonal().add_(1)
    factor = FactorInPlace.of(Q)
    if factor is None:
        return None

    def near(x: Tensor) -> Tensor:
        return x - rays.fast(factor.solve(rays.fast_transposed(x / narrow))) / narrow

    return Symmetric(near, Space((matrix.shape[0],), torch.float32, matrix.device))
