"""Some rays of a scan given all others: what they should measure, and what they tell of the image.

With ``N^-1`` and ``W = N^-1 b F`` of all rays, those of the others alone follow for left-out rays h without another factor
(`LeftOut`):

    S = ((N^-1)_hh)^-1                   of noise and floors, h given the others
    Z_f = (C^-1 + X - W_h^T S W_h)^-1    of the coefficients, given the others
    T = S + S W_h Z_f W_h^T S            of the rays h given the others, noise included

T is also the inverse of ``(K^-1)_hh``. But of a prior whose rays are 10^4 times the noise, ``K^-1`` is a difference of numbers
10^8 times as large, and a solve to 1e-6 left T off by 76 %; these sums lose nothing.

That is a solve and a row of a dense matrix for each left-out ray. Where these are very many, the others are solved by
themselves (`Beside`): as many solves as there are directions, and one for each ray whose variance is asked for.
"""

import warnings
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ctuq.linops.basic import Symmetric
from ctuq.linops.gaussian import stable_cholesky
from ctuq.linops.operator import Space
from ctuq.linops.solve import CG
from ctuq.stages import Stages
from ctuq.tomo.rays.rows import RayRows
from ctuq.uncertainty.model.noise import BATCH, UNITS, NoiseSolve, least_noise, to_faint
from ctuq.uncertainty.model.solved import SolvedRays

_RTOL, _STEPS = 1e-5, 100
_SHARE = 1e-3
"""What the square of a solve's relative residual may be of the least eigenvalue of what is solved for."""
_ENOUGH = 0.03
"""Residual, in units of the noise, of what rays make of others: enters their variance, which is 1 at least, by its square."""


class GivenOthers(ABC):
    """Rays given all others by their whole covariance T, in units of the noise, and with it; methods as of `Unseen`."""

    @cached_property
    def _covariance(self) -> Tensor:
        return self._made()

    @abstractmethod
    def _made(self) -> Tensor:
        """T, (k, k), float64."""

    @property
    @abstractmethod
    def _weighted(self) -> Tensor:
        """``K^-1 t`` of all rays at these, (k,), float64."""

    @abstractmethod
    def images_of(self, q: Tensor) -> Tensor:
        """The covariance of the image and the left-out rays, given the others, times each row of ``q`` (n, k): (n, *shape)."""

    @abstractmethod
    def systematic(self) -> tuple[Tensor, Tensor] | None:
        """What the image holds of systematic errors by the others, and these errors' rays."""

    @abstractmethod
    def own(self) -> Tensor:
        """As `Unseen.own`."""

    def covariance(self) -> Tensor:
        """T, (k, k): of the left-out rays given the others, in units of the noise, and with it."""
        return self._covariance.clone()

    def variances(self, index: Tensor) -> Tensor:
        """Of some of the left-out rays given the others, in units of the noise, and with it."""
        return self._covariance.diagonal()[index]

    def joint(self, index: Tensor) -> Tensor:
        """As `covariance`, of some of them."""
        return self._covariance[index][:, index]

    def innovations(self, index: Tensor) -> Tensor:
        """What some of them measured less what is expected of them, in units of the noise."""
        return (self._covariance @ self._weighted)[index]

    def correction(self, residual: Tensor, image_scale: float, noise_scale: float) -> Tensor:
        """Conditional mean of the image's error given the left-out rays' residuals in units of their noise, float64.

        With the image's covariance P given the others scaled by a, and the noise by b, it is
        ``a P b_h^T q`` with ``q = (a (T - I) + b I)^-1 r``.
        """
        total = image_scale * self._covariance
        total.diagonal().add_(noise_scale - image_scale)
        return image_scale * self.images_of(torch.linalg.solve(total, residual)[None])[0]


@dataclass(frozen=True, eq=False)
class LeftOut(GivenOthers):
    """Rays given all others, by the network's linear model.

    Parameters
    ----------
    given : SolvedRays
        All rays, solved.
    rows : Tensor of int, shape (k,)
        Those that are left out.
    S : Tensor, float64, shape (k, k)
    seen : Tensor, float64, shape (k, r)
        ``S W_h``.
    root : Tensor, float64, shape (r, r)
        Cholesky factor R_f of ``I + L^T (X - W_h^T S W_h) L``, by which ``Z_f = (L R_f^-T) (L R_f^-T)^T``.
    """

    given: SolvedRays
    rows: Tensor
    S: Tensor
    seen: Tensor
    root: Tensor

    @classmethod
    def of(cls, given: SolvedRays, rows: Tensor) -> "LeftOut":
        """Leave these rays out of a solved scan; one solve of noise and floors for each."""
        S, W = torch.linalg.inv(_block(given.noise, rows, len(given.W))), given.W[rows]
        taken = W @ given.roots[0]
        return cls(given, rows, S, S @ W, stable_cholesky(given.inner - taken.T @ S @ taken))

    def _made(self) -> Tensor:
        return self.S + self._half.T @ self._half

    @cached_property
    def _half(self) -> Tensor:
        """``R_f^-1 L^T W_h^T S``, (r, k)."""
        return torch.linalg.solve_triangular(self.root, (self.seen @ self.given.roots[0]).T, upper=False)

    def _coefficients(self, q: Tensor) -> Tensor:
        """``q S W_h Z_f`` of rows (n, k)."""
        return torch.linalg.solve_triangular(self.root.T, self._half @ q.T, upper=True).T @ self.given.roots[0].T

    @property
    def _weighted(self) -> Tensor:
        return self.given.weighted[self.rows]

    def systematic(self) -> tuple[Tensor, Tensor] | None:
        return _systematic(self.given, self.errors(), self.rows)

    def own(self) -> Tensor:
        return _own(self.given, self.rows)

    def errors(self) -> Tensor:
        """Mean of the systematic errors given the others, (e,), float64."""
        return self.given.errors()[0] - self._coefficients(self._weighted[None])[0, self.given.model.factor.rank :]

    def images_of(self, q: Tensor) -> Tensor:
        given, model, c = self.given, self.given.model, self._coefficients(q)
        h = _embedded(q @ self.S + c @ self.seen.T, self.rows, len(given.W))
        pulled = model.features.matrix.transposed(given.noise(h - c @ given.directions.T) / given.system.noise_root())
        return model.images(c) + model.misfit(given.system.point.psi).times(pulled).reshape(-1, *model.image.shape)


@dataclass(frozen=True, eq=False)
class Beside:
    """Rays given all others, which are solved by themselves; methods as of `LeftOut`. T as a whole would be too large here.

    Parameters
    ----------
    every : SolvedRays
        All rays.
    index : Tensor of int, shape (k,)
        Those that are left out.
    given : SolvedRays
        The others.
    """

    every: SolvedRays
    index: Tensor
    given: SolvedRays

    @classmethod
    def of(cls, every: SolvedRays, rows: Tensor, *, noise_by: str, stages: Stages | None = None) -> "Beside":
        """Leave these rays of a solved scan out."""
        model = every.model
        others = torch.ones(len(model.target), dtype=torch.bool, device=rows.device)
        others[rows] = False
        part, point = model.part(others.nonzero()[:, 0]), every.system.point
        return cls(every, rows, SolvedRays.on(part, point, noise_by=noise_by, stages=stages))

    def variances(self, index: Tensor) -> Tensor:
        """Of some of the left-out rays given the others, in units of the noise, and with it."""
        return self.joint(index).diagonal()

    def joint(self, index: Tensor) -> Tensor:
        """Covariance of some of the left-out rays given the others, in units of the noise, and with it, (k, k)."""
        given, rays, n = self.given, self._rows(index), len(index)
        root, matrix, v = given.system.noise_root(), given.model.features.matrix, given.model.misfit(given.system.point.psi)
        own, others = [], []
        for start in range(0, n, BATCH):
            spread = v.times(rays.dense(start, min(start + BATCH, n))) / self._root
            own.append(rays(spread) / self._root)
            others.append(matrix(spread) / root)
        seen, b = self.every.model.features.basis[self.index[index]] / self._root, torch.cat(others)
        x = given.noise(b, to_faint(b, _ENOUGH))
        free = seen - b @ given.W
        found = torch.cat(own) - given.noise.inner(b @ x.T, x) + free @ given.Z @ free.T
        return (found + found.T) / 2 + torch.eye(n).to(found)

    def innovations(self, index: Tensor) -> Tensor:
        """What some of them measured less what is expected of them, in units of the noise."""
        expected = self._rows(index)(self.given.mean().reshape(1, -1))[0] + self._errors(index) @ self.given.errors()[0]
        return (self.every.model.target[self.index[index]] - expected) / self._root

    def correction(self, residual: Tensor, image_scale: float, noise_scale: float) -> Tensor:
        """As `LeftOut.correction`; where that asks for less noise than can be solved for, with what float32 resolves."""
        ratio = noise_scale / image_scale
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "(Noise and floors were solved|CG reached)")
            with suppress(UserWarning):
                return self._corrected(residual, ratio)
        model = self.every.model
        left, v = model.features.matrix.rows(self.index), model.misfit(self.every.system.point.psi)
        resolved = least_noise(left, v) / float(self._root) ** 2
        warnings.warn(
            f"The held-out rays correct the image as if their noise had {max(1.0, resolved / ratio):.1g} times its variance: "
            "beside what the network misses no less can be solved for.",
            stacklevel=2,
        )
        return self._corrected(residual, max(ratio, resolved))

    def _corrected(self, residual: Tensor, ratio: float) -> Tensor:
        """The mean given zeros of the others, and these residuals with noise of so many times the variance.

        With ``b'`` the rays in units of that noise and ``N' = I + b' V b'^T``, the coefficients c solve
        ``(C^-1 + (b' F)^T N'^-1 b' F) c = (b' F)^T N'^-1 y``. The same matrix of all rays alike is known, and so near that
        conjugate gradients take a few steps, each a solve: at 67,760 rays of HTC ta, of which 5,320 are left out, three.
        """
        every, model, (L, R) = self.every, self.every.model, self.every.roots
        root = every.system.noise_root().expand(len(every.W)).clone()
        root[self.index] *= ratio**0.5
        v, matrix = model.misfit(every.system.point.psi), model.features.matrix
        noise, seen = NoiseSolve(matrix, root, v, "cg", Stages()), model.features.basis / root[:, None]
        y = torch.zeros(1, len(root), dtype=torch.float64, device=root.device)
        y[0, self.index] = residual.double() / ratio**0.5
        space = Space((len(L),), torch.float64, root.device)
        near = Symmetric(lambda z: torch.cholesky_solve(z.T, R).T, space)
        whole = Symmetric(lambda z: z + (noise((z @ L.T) @ seen.T) @ seen) @ L, space)
        c = CG(_RTOL, _STEPS, near)(whole, (noise(y) @ seen) @ L).value @ L.T
        pulled = matrix.transposed(noise(y - c @ seen.T) / root)
        return model.images(c)[0] + v.times(pulled).reshape(model.image.shape)

    def systematic(self) -> tuple[Tensor, Tensor] | None:
        """As `LeftOut.systematic`."""
        return _systematic(self.every, self.errors(), self.index)

    def own(self) -> Tensor:
        """As `Unseen.own`."""
        return _own(self.every, self.index)

    def errors(self) -> Tensor:
        """As `LeftOut.errors`."""
        return self.given.errors()[0]

    def _rows(self, index: Tensor) -> RayRows:
        """Some of the left-out rays, whitened."""
        return self.every.model.features.matrix.rows(self.index[index])

    def _errors(self, index: Tensor) -> Tensor:
        """What systematic errors add to them, whitened, (k, e)."""
        model = self.every.model
        return model.features.basis[self.index[index], model.factor.rank :]

    @property
    def _root(self) -> Tensor:
        return self.given.system.point.sigma2[0].to(self.given.W).sqrt()


def _systematic(every: SolvedRays, errors: Tensor, rows: Tensor) -> tuple[Tensor, Tensor] | None:
    if not len(errors):
        return None
    rays = every.model.features.basis[rows, every.model.factor.rank :]
    return every.absorbed(errors), rays @ every.model.left_of(errors)


def _own(every: SolvedRays, rows: Tensor) -> Tensor:
    """Standard deviations, in units of the noise, that errors which no other ray has put into these rays: (k, q), float64."""
    prior, seen = every.model.prior, every.directions[:, every.model.factor.rank :]
    others = torch.ones(len(seen), dtype=torch.bool, device=seen.device)
    others[rows] = False
    alone = (seen[others] == 0).all(0) & (seen[rows] != 0).any(0)
    sizes = torch.tensor([error.size for error in prior.errors], dtype=torch.int64)
    root = prior.error_variances(every.system.point.psi).sqrt().repeat_interleave(sizes).to(seen)
    return (seen[rows] * root)[:, alone]


def _block(noise: NoiseSolve, rows: Tensor, size: int) -> Tensor:
    """``(N^-1)_hh``, with an error that is small beside its least eigenvalue, as its inverse is wanted."""
    unit = torch.eye(len(rows), dtype=torch.float64, device=rows.device)
    block = unit
    for rtol in UNITS:
        parts = [noise(_embedded(part, rows, size), rtol) for part in unit.split(BATCH)]
        if noise.exact:
            block = torch.cat([x[:, rows] for x in parts])
            return (block + block.T) / 2
        x = torch.cat(parts)
        block = noise.inner(x[:, rows], x)
        block = (block + block.T) / 2
        # N is I at least: what is left of two units enters by its product at most.
        if rtol**2 <= _SHARE * float(torch.linalg.eigvalsh(block)[0]):
            break
    return block


def _embedded(values: Tensor, rows: Tensor, size: int) -> Tensor:
    out = torch.zeros(len(values), size, dtype=torch.float64, device=values.device)
    out[:, rows] = values
    return out
