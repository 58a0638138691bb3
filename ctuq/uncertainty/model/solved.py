"""The rays of a scan solved at one point of the hyperparameters: what every error bar is made from.

``K = N + b F C F^T b^T``: N, noise and floors, by a factor or iteratively; the network's few directions by Woodbury's formula
(`ctuq.uncertainty.model.posterior` has the symbols).
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ctuq.laplace.system.problem import Point, System
from ctuq.linops.basic import Symmetric
from ctuq.linops.block_cg import BlockCG
from ctuq.linops.gaussian import FactorInPlace, stable_cholesky
from ctuq.linops.local import LocalCovariance
from ctuq.linops.operator import Space
from ctuq.linops.sparse import SparseRows
from ctuq.stages import Stages, name_of
from ctuq.tomo.rays.rows import RayRows
from ctuq.uncertainty.model.linear import ImageModel
from ctuq.uncertainty.model.route import noise_route

_BATCH = 64
"""Right-hand sides that are solved together."""
_ROUGH, _RTOL = 1e-4, 1e-6
"""Relative residual of one correction in float32, which the next one refines, and of a whole solve."""
_FAINT = 0.01
"""Residual, in units of the noise, of what enters sums of such units by its square."""
_STEPS, _ROUNDS = 500, 6
"""At most: steps of conjugate gradients in a correction, and corrections in a solve."""
_EDGES, _FEW, _STANDS_OUT = 8192, 64, 3.0
"""At most and at least so many pixels, each of so many times the median variance, are solved for exactly before conjugate
gradients."""
_PASSES = 4
"""Of ``K^-1``, whose two terms nearly cancel."""


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
        L = stable_cholesky(model.prior.mixing(point.psi))
        return cls._mixed(model, system, noise, _network_rays(noise, model.features.basis / root, L))

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
        v, (u, _, s) = self.model.misfit(self.system.point.psi), self._drawn(n, rng)
        told = v.times(self.model.features.matrix.transposed(s / self.system.noise_root()))
        return torch.stack([u - told, told]).float()

    def _drawn(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """``u_0`` of the floors, their rays with noise ``y = b u_0 + e``, and ``s = N^-1 y``.

        A residual r of s adds ``|r|^2 / 4`` at most to the d squares ``u^2 / v`` of what rays leave of the floors, and these
        are 1 over the size of N at least, ``m / |y|^2``: a twentieth in the standard deviation of that would be much.
        """
        v, noise = self.model.misfit(self.system.point.psi), self.system.noise_root()
        u = v.draws(n, rng=rng)
        e = torch.randn(n, len(self.W), generator=rng, dtype=torch.float64, device=rng.device).to(u)
        y = self.model.features.matrix(u) / noise + e
        enough = 0.1 * (u.shape[1] * y.shape[1]) ** 0.5 / y.square().sum(1)
        return u, y, self.noise(y, enough.clamp(_RTOL, _FAINT))

    def draws(self, n: int, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """``n`` draws of the image's deviation given the rays, (n, d), and of the systematic errors', (n, e); float64.

        The coefficients c are drawn given the rays, from Z, and not from their prior: at 17,360 rays of HTC ta a prior draw's
        rays are 10^5 times what the rays leave of them, and solves to 1e-6 made such draws 2 to 4 times too wide. With
        ``u_0 ~ N(0, V)``, ``e ~ N(0, I)``, ``z ~ N(0, I)``, ``s = N^-1 (b u_0 + e)`` and ``C = L L^T``,

            c = Z (L^-T z - W^T (b u_0 + e)),   delta = s + W c,   u = u_0 - V b^T delta.
        """
        v, noise = self.model.misfit(self.system.point.psi), self.system.noise_root()
        L, R = self.roots
        u, y, s = self._drawn(n, rng)
        z = torch.randn(n, len(L), generator=rng, dtype=torch.float64, device=rng.device).to(u)
        inner = z - (y @ self.W) @ L
        c = torch.cholesky_solve(inner.T, R).T @ L.T
        pulled = self.model.features.matrix.transposed((s + c @ self.W.T) / noise)
        return self.model.images(c).flatten(1) + u - v.times(pulled), c[:, self.model.factor.rank :]

    @property
    def weighted(self) -> Tensor:
        """``K^-1 t`` of the target in units of the noise, (m,)."""
        return self._weighted[0][0]

    @cached_property
    def _weighted(self) -> tuple[Tensor, Tensor]:
        return self._solved(self.system.target[None])

    def mean(self) -> Tensor:
        """What the rays make of the image's deviation from its prior mean, float64: ``S b^T K^-1 t``."""
        return self._made_of(*self._weighted)[0][0].reshape(self.model.image.shape)

    def response(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """What image (k, d) and systematic errors (k, e) make of whitened rays (m, k), float64: ``S b^T K^-1 n``."""
        return self._made_of(*self._solved((columns / _column(self.system.noise_root())).T))

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

    def _made_of(self, solved: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        model, point = self.model, self.system.point
        own = model.misfit(point.psi).times(model.features.matrix.transposed(solved / self.system.noise_root()))
        return model.images(c).flatten(1) + own, c[:, model.factor.rank :]

    def errors(self) -> tuple[Tensor, Tensor]:
        """Mean (e,) and covariance (e, e) of the systematic errors given the rays, float64."""
        rank = self.model.factor.rank
        return self._weighted[1][0, rank:], self.Z[rank:, rank:]

    def solve(self, b: Tensor) -> Tensor:
        """``K^-1 b`` for each row of (k, m)."""
        return self._solved(b)[0]

    def _solved(self, b: Tensor) -> tuple[Tensor, Tensor]:
        """``s = K^-1 b`` for each row of (k, m), and ``c = C (b F)^T s``, what it makes of the coefficients.

        With ``c = L w`` as the solution of ``N s + b F L w = b``, ``(b F L)^T s = w``: residuals of both are as large as the
        rays at most, where those of K are C times as large. Each round has W's error, a hundredth; an exact factor takes one.
        """
        b, (L, R) = b.double(), self.roots
        s, w, left, off = torch.zeros_like(b), b.new_zeros(len(b), len(L)), b, 0.0
        for round_ in range(1 if self.noise.exact else _PASSES):
            if round_:
                left = b - self.noise.times(s) - (w @ L.T) @ self.directions.T
                off = w - (s @ self.directions) @ L
            first = self.noise(left, _ROUGH)
            step = torch.cholesky_solve(((first @ self.directions) @ L - off).T, R).T
            s, w = s + first - (step @ L.T) @ self.W.T, w + step
        return s, w @ L.T

    @cached_property
    def directions(self) -> Tensor:
        """``b F``, (m, r): rays of the network's directions and of systematic errors, in units of the noise."""
        return self.model.features.basis / self.system.noise_root()


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


def _network_rays(noise: "NoiseSolve", seen: Tensor, L: Tensor) -> Tensor:
    """``N^-1 b F`` (m, r) of the network's rays b F, as exactly as the prior ``L L^T`` of their coefficients needs.

    W enters by ``L^T F^T b^T W L``, which is added to I. The columns of ``b F L Q`` that are orthogonal to one another each
    take a residual of a hundredth of the noise: those of 10^4 times the noise are solved to 1e-6, most to 1e-2, the faintest
    not at all.
    """
    if noise.exact:
        return noise(seen.T).T
    mixed = seen @ L
    Q = torch.linalg.eigh(mixed.T @ mixed)[1].flip(1)
    columns = (mixed @ Q).T
    solved = Q @ noise(columns, (_FAINT / columns.norm(dim=1)).clamp(_RTOL, 1.0))
    return torch.linalg.solve_triangular(L.T, solved, upper=True).T


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
        matrix, v, root = self._matrix, self._v, self._root.float()
        space = Space((matrix.shape[0],), torch.float32, matrix.device)

        def product(x: Tensor) -> Tensor:
            return x + matrix.fast(v.fast(matrix.fast_transposed(x / root))) / root

        N, near = Symmetric(product, space), _given_edges(matrix, self._root, v.own)

        def solve(b: Tensor, rtol: Tensor) -> Tensor:
            with warnings.catch_warnings():
                # What float32 leaves is the next round's right-hand side.
                warnings.filterwarnings("ignore", "Block CG reached")
                return BlockCG(rtol, _STEPS, near)(N, b).value

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

    def __call__(self, b: Tensor, rtol: float | Tensor = _RTOL) -> Tensor:
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
        return torch.cat([self._kept(*part) for part in zip(b.split(_BATCH), goals.split(_BATCH), strict=True)])

    def _kept(self, b: Tensor, rtol: Tensor) -> Tensor:
        name = name_of(b, rtol, *self._v.arrays().values(), self._root)
        return self._stages.once(f"solve {name}", lambda: self._refined(b, rtol)).to(b.device)

    def _refined(self, b: Tensor, rtol: Tensor) -> Tensor:
        value, left, off = torch.zeros_like(b), b, torch.ones_like(rtol)
        size = b.norm(dim=1).clamp(min=torch.finfo(b.dtype).tiny)
        for _ in range(_ROUNDS):
            off = left.norm(dim=1) / size
            if bool((off <= rtol).all()):
                return value
            value = value + self._correct(left, (0.5 * rtol / off.clamp(min=torch.finfo(off.dtype).tiny)).clamp(min=_ROUGH))
            left = b - self.times(value)
        worst = int((off / rtol).argmax())
        warnings.warn(
            f"Noise and floors were solved to a residual of {float(off[worst]):.1e}, not {float(rtol[worst]):.0e}.",
            stacklevel=2,
        )
        return value
