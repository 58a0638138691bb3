"""The rays of a scan solved at one point of the hyperparameters: what every error bar is made from.

``K = N + b F C F^T b^T``: N, noise and floors, by a factor or iteratively; the network's few directions by Woodbury's formula
(`ctuq.uncertainty.model.posterior` has the symbols).
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ctuq.laplace.system.problem import Point, System, plus_identity
from ctuq.linops.basic import Symmetric
from ctuq.linops.block_cg import BlockCG
from ctuq.linops.gaussian import FactorInPlace, stable_cholesky
from ctuq.linops.local import LocalCovariance
from ctuq.linops.operator import Space
from ctuq.stages import Stages, name_of
from ctuq.tomo.rays.rows import RayRows
from ctuq.uncertainty.model.linear import ImageModel
from ctuq.uncertainty.model.route import noise_route

_BATCH = 64
"""Right-hand sides that are solved together."""
_ROUGH, _RTOL = 1e-4, 1e-6
"""Relative residual of one correction in float32, which the next one refines, and of a whole solve."""
_STEPS, _ROUNDS = 500, 6
"""At most: steps of conjugate gradients in a correction, and corrections in a solve."""
_AGAIN = 3
"""Corrections of ``K^-1``, whose two terms nearly cancel."""


@dataclass(frozen=True, eq=False)
class SolvedRays:
    """The rays of a model at one point of its hyperparameters, solved: ``K^-1`` and the covariance Z of the coefficients.

    Parameters
    ----------
    model : ImageModel
    system : System
        Its problem at that point.
    noise : NoiseSolve
        ``N^-1``.
    W : Tensor, float64, shape (m, r)
        ``N^-1 b F``: the network's directions as rays see them, with noise and floors taken out.
    Z : Tensor, float64, shape (r, r)
        ``(C^-1 + X)^-1`` with ``X = F^T b^T N^-1 b F``.
    roots : tuple of Tensor
        Cholesky factors L of the coefficients' prior covariance, ``C = L L^T``, and R of ``I + L^T X L``.
    """

    model: ImageModel
    system: System
    noise: "NoiseSolve"
    W: Tensor
    Z: Tensor
    roots: tuple[Tensor, Tensor]

    @classmethod
    def on(cls, model: ImageModel, point: Point, *, noise_by: str | None = None, stages: Stages | None = None) -> "SolvedRays":
        """Condition on all rays of a model; ``noise_by`` is one of `ctuq.uncertainty.model.route.NOISE_BY`, by default by size.

        ``stages`` keeps solutions that took long.
        """
        system = System(model.problem(), model.prior, point)
        root = system.noise_root()
        v = model.misfit(point.psi)
        matrix = model.features.matrix
        noise = NoiseSolve(matrix, root, v, noise_by or noise_route(min(matrix.shape)), stages or Stages())
        W = noise((model.features.basis / root).T).T
        return cls._mixed(model, system, noise, W)

    @classmethod
    def _mixed(cls, model: ImageModel, system: System, noise: "NoiseSolve", W: Tensor) -> "SolvedRays":
        seen = model.features.basis / system.noise_root()
        L = stable_cholesky(model.prior.mixing(system.point.psi))
        # 2 W^T bF - W^T N W: of second order in the residual of W, which L multiplies by up to 1e6.
        mixed = W.T @ seen
        inner = L.T @ (mixed + mixed.T - W.T @ noise.times(W.T).T) @ L
        inner.diagonal().add_(1)
        R = torch.linalg.cholesky(inner)
        return cls(model, system, noise, W, covariance_by(L, R), (L, R))

    def with_errors_over(self, factor: float) -> "SolvedRays":
        """The same where known variances of systematic errors are smaller by a factor; noise and floors stay solved.

        A posterior whose covariance is multiplied by that factor then has them as they were.
        """
        errors = tuple(e if e.variance is None else replace(e, variance=e.variance / factor) for e in self.model.prior.errors)
        if errors == self.model.prior.errors:
            return self
        model = replace(self.model, prior=replace(self.model.prior, errors=errors))
        return self._mixed(model, System(model.problem(), model.prior, self.system.point), self.noise, self.W)

    def floors(self, n: int, *, rng: torch.Generator) -> Tensor:
        """``n`` draws of the floors given the coefficients, and what the rays tell of each draw's floors: (2, n, d), float32.

        The two are independent, and sum to draws of variances v: ``u_0 - V b^T s`` and ``V b^T s``.
        """
        v, (u, s) = self.model.misfit(self.system.point.psi), self._drawn(n, rng)
        told = v.times(self.model.features.matrix.transposed(s / self.system.noise_root()))
        return torch.stack([u - told, told]).float()

    def _drawn(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """``u_0`` of the floors, and ``s = N^-1 (b u_0 + e)``."""
        v, noise = self.model.misfit(self.system.point.psi), self.system.noise_root()
        u = v.draws(n, rng=rng)
        e = torch.randn(n, len(self.W), generator=rng, dtype=torch.float64, device=rng.device).to(u)
        return u, self.noise(self.model.features.matrix(u) / noise + e)

    def draws(self, n: int, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """``n`` draws of the image's deviation given the rays, (n, d), and of the systematic errors', (n, e); float64.

        The coefficients c are drawn given the rays, from Z, and not from their prior: at 17,360 rays of HTC ta a prior draw's
        rays are 10^5 times what the rays leave of them, and solves to 1e-6 made such draws 2 to 4 times too wide. With
        ``u_0 ~ N(0, V)``, ``e ~ N(0, I)``, ``z ~ N(0, I)``, ``s = N^-1 (b u_0 + e)`` and ``C = L L^T``,

            c = Z (L^-T z - (b F)^T s),   delta = s + W c,   u = u_0 - V b^T delta.
        """
        v, noise = self.model.misfit(self.system.point.psi), self.system.noise_root()
        L, R = self.roots
        u, s = self._drawn(n, rng)
        z = torch.randn(n, len(L), generator=rng, dtype=torch.float64, device=rng.device).to(u)
        inner = z - (s @ self._seen) @ L
        c = torch.cholesky_solve(inner.T, R).T @ L.T
        pulled = self.model.features.matrix.transposed((s + c @ self.W.T) / noise)
        return self.model.images(c).flatten(1) + u - v.times(pulled), c[:, self.model.factor.rank :]

    @cached_property
    def weighted(self) -> Tensor:
        """``K^-1 t`` of the target in units of the noise, (m,)."""
        return self.solve(self.system.target[None])[0]

    def mean(self) -> Tensor:
        """What the rays make of the image's deviation from its prior mean, float64: ``S b^T K^-1 t``."""
        return self._made_of(self.weighted[None])[0][0].reshape(self.model.image.shape)

    def response(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """What image (k, d) and systematic errors (k, e) make of whitened rays (m, k), float64: ``S b^T K^-1 n``."""
        return self._made_of(self.solve((columns / _column(self.system.noise_root())).T))

    def absorbed(self, errors: Tensor) -> Tensor:
        """What the fitted image holds of systematic errors (e,): (d,), float64.

        An image that is to be right beside these errors is the fitted one less this: how the linear model's image moves when
        their rays are taken from what was measured. Of each block that is what the fit has taken: a network takes little of
        the flux of single views, whose rays are then left in its residual, and most of what a wrong axis does. What was taken
        out of the rays before the fit is not in its image.
        """
        model, start, errors = self.model, self.model.factor.rank, self.model.left_of(errors)
        fitted = model.features.matrix((model.image.double() - model.mean).reshape(1, -1))[0]
        left = model.target - model.taken_rays - fitted
        taken = torch.zeros_like(left)
        for s in model.prior.error_slices:
            rays = model.features.basis[:, s] @ errors[s.start - start : s.stop - start].to(left)
            share = 1 - (rays @ left) / (rays @ rays).clamp(min=torch.finfo(rays.dtype).tiny)
            taken += share.clamp(0, 1) * rays
        return self._without_errors.response(taken[:, None])[0][0]

    @cached_property
    def _without_errors(self) -> "SolvedRays":
        """Given that there are none; noise and floors stay solved."""
        model, point = self.model.with_errors(()), self.system.point
        plain = replace(point, psi=self.model.prior.without_errors(point.psi))
        system = System(model.problem(), model.prior, plain)
        return self._mixed(model, system, self.noise, self.W[:, : self.model.factor.rank])

    def _made_of(self, solved: Tensor) -> tuple[Tensor, Tensor]:
        model, point = self.model, self.system.point
        c = (solved @ self._seen) @ model.prior.mixing(point.psi)
        own = model.misfit(point.psi).times(model.features.matrix.transposed(solved / self.system.noise_root()))
        return model.images(c).flatten(1) + own, c[:, model.factor.rank :]

    def errors(self) -> tuple[Tensor, Tensor]:
        """Mean (e,) and covariance (e, e) of the systematic errors given the rays, float64."""
        rank = self.model.factor.rank
        return self._made_of(self.weighted[None])[1][0], self.Z[rank:, rank:]

    def solve(self, b: Tensor) -> Tensor:
        """``K^-1 b`` for each row of (k, m); without an exact factor improved by what the difference of two terms has lost."""
        value = self._woodbury(b.double())
        if self.noise.factor is not None:
            return value
        K = plus_identity(self.system.dual_gram())
        for _ in range(_AGAIN):
            value = value + self._woodbury(b - K(value), _ROUGH)
        return value

    def _woodbury(self, b: Tensor, rtol: float = _RTOL) -> Tensor:
        first = self.noise(b, rtol)
        return first - ((first @ self._seen) @ self.Z) @ self.W.T

    @cached_property
    def _seen(self) -> Tensor:
        return self.model.features.basis / self.system.noise_root()


def _column(root: Tensor) -> Tensor:
    return root[:, None] if root.ndim else root


def covariance_by(L: Tensor, R: Tensor) -> Tensor:
    """``(C^-1 + X)^-1`` from ``C = L L^T`` and the Cholesky factor R of ``I + L^T X L``."""
    half = torch.linalg.solve_triangular(R, L.T, upper=False)
    return half.T @ half


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

    def _by_factor(self, narrow: FactorInPlace) -> Callable[[Tensor, float], Tensor]:
        # A function that held the solver itself would keep its factor, gigabytes, until the garbage collector comes.
        matrix, root, v, over_pixels = self._matrix, self._root.float(), self._v, self.over_pixels

        def roughly(b: Tensor, _rtol: float) -> Tensor:
            if not over_pixels:
                return narrow.solve(b.float()).double()
            seen = narrow.solve(v.spread_transposed(matrix.fast_transposed(b.float() / root)))
            return b - (matrix.fast(v.spread(seen)) / root).double()

        return roughly

    def _by_conjugate_gradients(self) -> Callable[[Tensor, float], Tensor]:
        # Not preconditioned: among pixels, filters that change with V from pixel to pixel (fast Fourier transforms) take 64
        # right-hand sides of the tooth to the same residual of the rays in 22 steps and 14 s instead of 41 and 17 at
        # 256 x 256, in 19 and 119 s instead of 29 and 87 at 512 x 512. Sharing the space of all has done most of it before.
        matrix, v, root = self._matrix, self._v, self._root.float()

        def product(x: Tensor) -> Tensor:
            return x + matrix.fast(v.fast(matrix.fast_transposed(x / root))) / root

        N = Symmetric(product, Space((matrix.shape[0],), torch.float32, matrix.device))

        def solve(b: Tensor, rtol: float) -> Tensor:
            with warnings.catch_warnings():
                # What float32 leaves is the next round's right-hand side.
                warnings.filterwarnings("ignore", "Block CG reached")
                return BlockCG(rtol, _STEPS)(N, b).value

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
        parts = [self._matrix(self._v.times(self._matrix.transposed(p / self._root))) / self._root for p in x.split(_BATCH)]
        return x + torch.cat(parts)

    def __call__(self, b: Tensor, rtol: float = _RTOL) -> Tensor:
        """``N^-1 b`` for each row of (k, m), to a relative residual where there is no factor in float64."""
        if self._trivial:
            return b
        if self.factor is not None and self.over_pixels:
            pulled = self._v.spread_transposed(self._matrix.transposed(b / self._root))
            seen = torch.cholesky_solve(pulled.T, self.factor).T
            return b - self._matrix(self._v.spread(seen)) / self._root
        if self.factor is not None:
            return torch.cholesky_solve(b.T, self.factor).T
        return torch.cat([self._kept(part, rtol) for part in b.split(_BATCH)])

    def _kept(self, b: Tensor, rtol: float) -> Tensor:
        return self._stages.once(
            f"solve {name_of(b, *self._v.arrays().values(), self._root)}", lambda: self._refined(b, rtol)
        ).to(b.device)

    def _refined(self, b: Tensor, rtol: float) -> Tensor:
        value, left, worst = torch.zeros_like(b), b, math.inf
        size = b.norm(dim=1).clamp(min=torch.finfo(b.dtype).tiny)
        for _ in range(_ROUNDS):
            worst = float((left.norm(dim=1) / size).max())
            if worst <= rtol:
                return value
            value = value + self._correct(left, max(_ROUGH, 0.5 * rtol / worst))
            left = b - self.times(value)
        warnings.warn(f"Noise and floors were solved to a residual of {worst:.1e}, not {rtol:.0e}.", stacklevel=2)
        return value
