"""The rays of a scan solved at one point of the hyperparameters: what every error bar is made from.

``K = N + b F C F^T b^T``: N, noise and floors, by a factor or iteratively; the network's few directions by Woodbury's formula
(`ctuq.uncertainty.model.posterior` has the symbols).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ctuq.laplace.system.problem import Point, System
from ctuq.linops.gaussian import root_given, stable_cholesky
from ctuq.stages import Stages
from ctuq.uncertainty.model.linear import ImageModel
from ctuq.uncertainty.model.noise import ROUGH, NoiseSolve, for_draws, to_faint
from ctuq.uncertainty.model.route import noise_route

_PASSES, _OF_RESPONSES = 4, 2
"""Rounds of ``K^-1``, whose two terms nearly cancel; two where only what single errors do to the image is asked for: they come
to 1e-8 of an exact factor's response, at 40 x 40 pixels of the walnut's 120 views and 48 x 48 of ta, and two more take a tenth
of a dense scan's time."""


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
    directions : Tensor, float64, shape (m, r)
        ``b F``: rays of the network's directions and of systematic errors, in units of the noise.
    W : Tensor, float64, shape (m, r)
        ``N^-1 b F``: these with noise and floors taken out.
    X : Tensor, float64, shape (r, r)
        ``F^T b^T N^-1 b F``: what the rays tell of the coefficients.
    Z : Tensor, float64, shape (r, r)
        ``(C^-1 + X)^-1``.
    roots : tuple of Tensor
        Cholesky factors L of the coefficients' prior covariance, ``C = L L^T``, and R of ``I + L^T X L``.
    """

    model: ImageModel
    system: System
    noise: NoiseSolve
    directions: Tensor
    W: Tensor
    X: Tensor
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
        L, directions = stable_cholesky(model.prior.mixing(point.psi)), model.features.basis / root
        W = _network_rays(noise, directions, L)
        # L multiplies what is left in W by up to 1e6.
        return cls._mixed(model, system, noise, (directions, W, noise.inner(directions.T @ W, W.T)), L)

    @classmethod
    def _mixed(
        cls, model: ImageModel, system: System, noise: NoiseSolve, rays: tuple[Tensor, Tensor, Tensor], L: Tensor
    ) -> "SolvedRays":
        inner = L.T @ rays[2] @ L
        inner.diagonal().add_(1)
        R = torch.linalg.cholesky(inner)
        root = root_given(L, R)
        return cls(model, system, noise, *rays, root @ root.T, (L, R))

    @cached_property
    def inner(self) -> Tensor:
        """``I + L^T X L``, (r, r), float64."""
        R = self.roots[1]
        return R @ R.T

    def with_errors_over(self, factor: float) -> "SolvedRays":
        """The same where known variances of systematic errors are smaller by a factor; noise and floors stay solved.

        A posterior whose covariance is multiplied by that factor then has them as they were.
        """
        errors = tuple(e if e.variance is None else replace(e, variance=e.variance / factor) for e in self.model.prior.errors)
        if errors == self.model.prior.errors:
            return self
        model = replace(self.model, prior=replace(self.model.prior, errors=errors))
        return self._with(model, self.system.point)

    def floors(self, n: int, *, rng: torch.Generator) -> Tensor:
        """``n`` draws of the floors given the coefficients, and what the rays tell of each draw's floors: (2, n, d), float32.

        The two are independent, and sum to draws of variances v: ``u_0 - V b^T s`` and ``V b^T s``.
        """
        v, (u, _, s) = self.model.misfit(self.system.point.psi), self._drawn(n, rng)
        told = v.times(self.model.features.matrix.transposed(s / self.system.noise_root()))
        return torch.stack([u - told, told]).float()

    def _drawn(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """``u_0`` of the floors, their rays with noise ``y = b u_0 + e``, and ``s = N^-1 y``."""
        v, noise = self.model.misfit(self.system.point.psi), self.system.noise_root()
        u = v.draws(n, rng=rng)
        e = torch.randn(n, len(self.W), generator=rng, dtype=torch.float64, device=rng.device).to(u)
        y = self.model.features.matrix(u) / noise + e
        return u, y, self.noise(y, for_draws(y, u.shape[1]))

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
        return self._made_of(*self._solved((columns / _column(self.system.noise_root())).T, _OF_RESPONSES))

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
        return self._with(model, replace(point, psi=self.model.prior.without_errors(point.psi)))

    def _with(self, model: ImageModel, point: Point) -> "SolvedRays":
        """Of a model with other coefficients, or fewer, whose noise and floors are solved."""
        rank, L = model.prior.rank, stable_cholesky(model.prior.mixing(point.psi))
        rays = self.directions[:, :rank], self.W[:, :rank], self.X[:rank, :rank]
        return self._mixed(model, System(model.problem(), model.prior, point), self.noise, rays, L)

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

    def _solved(self, b: Tensor, rounds: int = _PASSES) -> tuple[Tensor, Tensor]:
        """``s = K^-1 b`` for each row of (k, m), and ``c = C (b F)^T s``, what it makes of the coefficients.

        With ``c = L w`` as the solution of ``N s + b F L w = b``, ``(b F L)^T s = w``: residuals of both are as large as the
        rays at most, where those of K are C times as large. Each round has W's error, a hundredth; an exact factor takes one.
        """
        b, (L, R) = b.double(), self.roots
        s, w, left, off = torch.zeros_like(b), b.new_zeros(len(b), len(L)), b, 0.0
        for round_ in range(1 if self.noise.exact else rounds):
            if round_:
                left = b - self.noise.times(s) - (w @ L.T) @ self.directions.T
                off = w - (s @ self.directions) @ L
            first = self.noise(left, ROUGH)
            step = torch.cholesky_solve(((first @ self.directions) @ L - off).T, R).T
            s, w = s + first - (step @ L.T) @ self.W.T, w + step
        return s, w @ L.T


def _network_rays(noise: NoiseSolve, seen: Tensor, L: Tensor) -> Tensor:
    """``N^-1 b F`` (m, r) of the network's rays b F, as exactly as the prior ``L L^T`` of their coefficients needs.

    W enters by ``L^T F^T b^T W L``, which is added to I. The columns of ``b F L Q`` that are orthogonal to one another are each
    solved `to_faint`: most to 1e-2, the faintest not at all.
    """
    if noise.exact:
        return noise(seen.T).T
    Q = torch.linalg.eigh(L.T @ (seen.T @ seen) @ L)[1].flip(1)
    columns = (L @ Q).T @ seen.T
    solved = Q @ noise(columns, to_faint(columns))
    return torch.linalg.solve_triangular(L.T, solved, upper=True).T


def _column(root: Tensor) -> Tensor:
    return root[:, None] if root.ndim else root
