"""The exact evidence of a problem that fits in memory, over observations or over weights, whichever are fewer.

Over observations the prior's fixed components ``K_c = H D_c H^T`` are computed once; over weights the Gram matrices
``H_g^T H_g`` of each noise group are. Neither needs the features again but for the mode.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctuq.errors import CtuqError
from ctuq.laplace.evidence.ascent import Ascent, Step
from ctuq.laplace.evidence.hyperprior import Hyperprior, value_and_slope
from ctuq.laplace.evidence.sampled import Expectation, find_mode
from ctuq.laplace.priors.diagonal import Prior
from ctuq.laplace.priors.sensitivity import derivative_traces, derivatives, pair_products
from ctuq.laplace.system.mode import Mode, mode_of_dual, mode_of_whitened
from ctuq.laplace.system.problem import Point, Problem, System
from ctuq.linops.basic import Dense, Symmetric
from ctuq.linops.gaussian import explained
from ctuq.linops.gram import gram
from ctuq.linops.operator import LinearOperator

Evaluation = tuple[float, Tensor, float]
Keep = Callable[[Point, Callable[[], Evaluation]], Evaluation]
"""``keep(point, evaluate)``: what was kept of a point, else what ``evaluate`` returns."""

_WALL, _LEFT, _FLAT = 30.0, 0.1, 0.01
_SPAN, _RISE, _LENGTH = 25.0, 15.0, 4.0
"""How far the search goes in the logarithm: variances down and up, lengthscales up and down."""


class ExactExpectation:
    """Expectations without sampling, and the exact log evidence.

    For labels the log evidence is Laplace's, ``log p(y | mode) - 1/2 mode^T Sigma^-1 mode - 1/2 log det(I + B B^T)``, with the
    curvature at the network's outputs throughout; for Gaussian noise that is the evidence itself.

    Parameters
    ----------
    problem : Problem
    prior : Prior
    components : Tensor, float64, shape (c, m, m), optional
        ``prior.components`` of the features, where these are known without their matrix.

    Attributes
    ----------
    dual : bool
        Whether it works over observations.
    """

    def __init__(self, problem: Problem, prior: Prior, *, components: Tensor | None = None):
        self._problem, self._prior = problem, prior
        self._device = problem.target.device
        self.dual = components is not None or problem.is_dual
        self._groups = None if problem.groups is None else problem.groups.reshape(-1)
        if components is not None:
            self._components = components
        elif self.dual:
            self._components = torch.stack(list(prior.components(self.matrix)))
        else:
            matrix = self.matrix
            parts = [matrix] if self._groups is None else [matrix[self._groups == g] for g in range(len(problem.sigma2))]
            self._grams = torch.stack([gram(part.T) for part in parts])
        self._mode: Mode | None = None

    @cached_property
    def matrix(self) -> Tensor:
        """The features (m, P), assembled when they are first asked for: who gives their components may never ask."""
        features = self._problem.features
        return features.matrix if isinstance(features, Dense) else features.dense()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the prior's hyperparameters."""
        return self._prior.names

    @property
    def lengthscales(self) -> Tensor:
        """Boolean: which of them are not variances."""
        return ~self._prior.is_variance

    def __call__(self, point: Point, *, information: bool | None = None) -> Expectation:
        """The expectation at a point, with the Fisher information if asked, by default where the prior has lengthscales.

        Raises
        ------
        CtuqError
            If the evidence covariance is not positive definite to rounding.
        """
        if information is None:
            information = not bool(self._prior.is_variance.all())
        system = System(self._problem, self._prior, point)
        parts = self._parts(system, information)
        solved = None
        if parts.solution is not None:
            solved = (mode_of_dual if self.dual else mode_of_whitened)(system, parts.solution)
        mode = self._mode = find_mode(system, solved, self._mode, parts.preconditioner)
        penalty = parts.penalty
        if penalty is None:
            penalty = pair_products(self._prior, point.psi, mode.pull[None])[:, 0, 0]
        return Expectation(
            point,
            mode,
            penalty,
            parts.dimension,
            torch.zeros_like(parts.dimension),
            parts.noise_dimension,
            torch.zeros_like(parts.noise_dimension),
            parts.dimension[self._prior.is_variance].sum()[None],
            self._problem.counts,
            parts.information,
            mode.log_likelihood - 0.5 * mode.penalty - 0.5 * parts.log_det,
        )

    def value_and_slope(self, point: Point) -> Evaluation:
        """Log evidence, its slope (d + G,), and the effective dimension; without the mode's weights where it can."""
        if not self.dual or self._problem.labels is not None:
            found = self(point, information=False)
            assert found.log_evidence is not None
            return found.log_evidence, found.slope, found.total.value
        system = System(self._problem, self._prior, point)
        parts = self._parts(system, False)
        assert parts.solution is not None and parts.penalty is not None
        misfit = system.misfit(parts.solution)
        penalty = float((parts.solution * (system.target - parts.solution)).sum())
        value = system.log_density(misfit) - 0.5 * penalty - 0.5 * parts.log_det
        noise = misfit - (self._problem.counts - parts.noise_dimension)
        total = float(parts.dimension[self._prior.is_variance].sum())
        return value, torch.cat([parts.penalty - parts.dimension, noise]) / 2, total

    def leave_one_out(self, point: Point) -> float:
        """Mean log density of each observation given all others, nats, in closed form; Gaussian noise only.

        ``t_i`` minus its prediction is ``[K^-1 t]_i / [K^-1]_ii``, of variance ``1 / [K^-1]_ii``.
        """
        system = System(self._problem, self._prior, point)
        parts = self._parts(system, False)
        assert parts.solution is not None
        if self.dual:
            delta = parts.solution.reshape(-1)
        else:
            delta = (system.target - system.push(system.root(parts.solution[None]))[0]).reshape(-1)
        left = self._residual_share(point)
        noise = -2 * self._noise_weights(point).log()
        density = -0.5 * (delta.square() / left - left.log() + noise + math.log(2 * math.pi))
        return float(density.mean()) + self._problem.log_scale / self._problem.observations

    def _residual_share(self, point: Point) -> Tensor:
        """Diagonal of ``(I + B B^T)^-1``, (m,): one minus the leverages."""
        if self.dual:
            return torch.cholesky_inverse(self.factor(point)).diagonal()
        B = self._prior.root_transpose(self._noise_weights(point)[:, None] * self.matrix.double(), point.psi)
        return 1 - explained(self.factor(point), B.T)

    def _weight_gram(self, point: Point) -> Tensor:
        """``C = H^T D^-1 H`` over weights, (P, P)."""
        return torch.tensordot(1 / point.sigma2.to(self._grams), self._grams, 1)

    def factor(self, point: Point) -> Tensor:
        """Cholesky factor of ``I + B B^T`` or ``I + B^T B``, float64."""
        if self.dual:
            K = self.covariance(point)
        else:
            half = self._prior.root_transpose(self._weight_gram(point), point.psi)
            K = self._prior.root_transpose(half.T, point.psi)
        K.diagonal().add_(1)
        return _factor(K)

    def output_covariance(self, point: Point, new: Tensor) -> Tensor:
        """Posterior covariance of the outputs of each new datum, float64 (n, d, d), from dense Jacobians ``new`` (n, d, P).

        As of `ctuq.laplace.posterior.Posterior` at one point; a sweep asks at many, each with another factor and all with the
        same matrices, and takes triangular solves alone.
        """
        n, d, P = new.shape
        J = new.reshape(n * d, P).double()
        factor = self.factor(point)
        if not self.dual:
            half = torch.linalg.solve_triangular(factor, self._prior.root_transpose(J, point.psi).T, upper=False)
            half = half.T.reshape(n, d, -1)
            return half @ half.mT
        own = self._prior.covariance(J, point.psi)
        cross = self._noise_weights(point)[:, None] * (self.matrix @ own.T.to(self.matrix)).double()
        half = torch.linalg.solve_triangular(factor, cross, upper=False).T.reshape(n, d, -1)
        return J.reshape(n, d, P) @ own.reshape(n, d, P).mT - half @ half.mT

    def covariance(self, point: Point) -> Tensor:
        """``B B^T`` over observations (m, m), where these are the fewer."""
        weights = self._noise_weights(point)
        a = self._prior.coefficients(point.psi).to(self._components)
        return torch.tensordot(a, self._components, 1) * weights * weights[:, None]

    def _noise_weights(self, point: Point) -> Tensor:
        root = point.sigma2.rsqrt().to(self._device)
        return root.expand(self._problem.observations) if self._groups is None else root[self._groups]

    def _parts(self, system: System, information: bool) -> "_Parts":
        return (self._over_observations if self.dual else self._over_weights)(system, information)

    def _over_observations(self, system: System, information: bool) -> "_Parts":
        shape, weights = system.target.shape, self._noise_weights(system.point)
        factor = self.factor(system.point)
        inverse = torch.cholesky_inverse(factor)
        slopes = torch.autograd.functional.jacobian(self._prior.coefficients, system.point.psi)
        assert isinstance(slopes, Tensor)
        slopes = slopes.to(self._components)
        solution = penalty = fisher = None
        if self._problem.labels is None:
            delta = torch.cholesky_solve(system.target.reshape(-1, 1), factor)[:, 0]
            solution, delta = delta.reshape(shape), delta * weights
            penalty = ((self._components @ delta @ delta) @ slopes).cpu()
        weighted = inverse * weights * weights[:, None]
        dimension = (torch.tensordot(self._components, weighted, 2) @ slopes).cpu()
        noise = self._problem.by_group(1 - inverse.diagonal().reshape(shape)).cpu()
        if information:
            fisher = _half_traces([weighted @ torch.tensordot(s, self._components, 1) for s in slopes.T])
        return _Parts(dimension, noise, 2 * float(factor.diagonal().log().sum()), fisher, solution, penalty)

    def _over_weights(self, system: System, information: bool) -> "_Parts":
        psi, sigma2 = system.point.psi, system.point.sigma2
        factor = self.factor(system.point)
        inverse = torch.cholesky_inverse(factor)
        solution = fisher = None
        if self._problem.labels is None:
            solution = torch.cholesky_solve(system.pulled_target().T, factor)[:, 0]
        # H^T K^-1 H = R^-T (I - inverse) R^-1: of a variance that is all that its trace with dSigma needs.
        gained = 1 - inverse.diagonal()
        dimension = torch.stack([torch.cat([gained[s] for s in slices]).sum() for slices in self._prior.members])
        noise = gained.sum()[None].cpu()
        if len(sigma2) > 1:
            posterior = self._prior.root(self._prior.root(inverse, psi).T, psi)
            noise = torch.stack([(part * posterior).sum() for part in self._grams]).cpu() / sigma2
        dimension = dimension.cpu()
        if information or not self._prior.is_variance.all():
            C = self._weight_gram(system.point)
            eye = torch.eye(len(C), dtype=torch.float64, device=C.device)
            pull = torch.linalg.solve(eye + C @ self._prior.covariance(eye, psi), C)
            fisher = _half_traces(list(derivatives(self._prior, psi, pull))) if information else None
            dimension = derivative_traces(self._prior, psi, pull)
        space = replace(self._problem.features.domain, dtype=torch.float64)
        nearly = Symmetric(lambda v: v @ inverse, space)
        return _Parts(dimension, noise, 2 * float(factor.diagonal().log().sum()), fisher, solution, None, nearly)


@dataclass(frozen=True, eq=False)
class _Parts:
    dimension: Tensor
    noise_dimension: Tensor
    log_det: float
    information: Tensor | None
    solution: Tensor | None
    penalty: Tensor | None
    preconditioner: LinearOperator | None = None


def _factor(matrix: Tensor) -> Tensor:
    factor, fault = torch.linalg.cholesky_ex(matrix)
    if fault:
        raise CtuqError(
            f"The evidence's matrix of {len(matrix)} unknowns is not positive definite at minor {int(fault)}: the noise is too "
            "small for float64, or the features are not finite."
        )
    return factor


def _half_traces(changes: list[Tensor]) -> Tensor:
    """``1/2 tr(M_i M_j)`` of all pairs."""
    return torch.stack([torch.stack([(a * b.T).sum() for b in changes]) for a in changes]).cpu() / 2


def _minimised(objective: Callable, x: np.ndarray, **settings: Any) -> Any:
    # Imported here: it takes a tenth of a second, and whoever imports the pipeline waits for it.
    from scipy.optimize import minimize

    return minimize(objective, x, **settings)


def maximise_dense(
    expectation: ExactExpectation,
    start: Point,
    *,
    learn_noise: bool,
    max_steps: int = 60,
    hyperprior: Hyperprior | None = None,
    keep: Keep = lambda point, evaluate: evaluate(),
) -> Ascent:
    """Maximise the exact evidence by L-BFGS on the logarithms of all hyperparameters.

    Data without noise ask for ever less of it. Where the arithmetic fails the search meets a smooth wall around its best point;
    if it ends beside one with a slope left, the noise counts as capped.

    Parameters
    ----------
    expectation : ExactExpectation
    start : Point
    learn_noise : bool
    max_steps : int
        Most iterations; reaching them is reported by ``converged``. With 0 the start is kept.
    hyperprior : Hyperprior, optional
        Multiplies the evidence; the trajectory and the expectation at the end are the evidence's own.
    keep : callable, optional
        Keeps evaluations: a search that is begun again takes the same way without making them again.
    """
    if not max_steps:
        return Ascent(expectation(start), (), False, ())
    trajectory: list[Step] = []
    best, failed = SimpleNamespace(fun=np.inf, x=None), False
    lengths = np.append(expectation.lengthscales.numpy(), np.zeros(len(start.sigma2), dtype=bool))
    free = np.append(np.ones(len(start.psi), dtype=bool), np.full(len(start.sigma2), learn_noise))
    fixed = start.vector.cpu().numpy()
    low, high = fixed - np.where(lengths, _LENGTH, _SPAN), fixed + np.where(lengths, _LENGTH, _RISE)

    def at(x: np.ndarray) -> Point:
        vector = fixed.copy()
        vector[free] = x
        return start.moved(torch.from_numpy(vector).to(start.psi))

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal failed
        point = at(x)
        try:
            value, slope, total = keep(point, lambda: expectation.value_and_slope(point))
        except CtuqError:
            if best.x is None:
                raise
            failed, away = True, x - best.x
            return best.fun + 1 + _WALL * float(away @ away), 2 * _WALL * away
        height, lean = value_and_slope(hyperprior, point.psi)
        if -(value + height) < best.fun:
            best.fun, best.x = -(value + height), x.copy()
        slope[: len(lean)] += lean.to(slope)
        slope = slope.cpu().numpy()[free]
        trajectory.append(Step(point, total, float(abs(slope).max()), 0.0, 1, value))
        return -(value + height), -slope

    bounds = list(zip(low[free], high[free], strict=True))
    options = {"maxiter": max_steps, "ftol": 1e-10, "gtol": 1e-3}

    def search(x: np.ndarray) -> Any:
        return _minimised(objective, x, jac=True, method="L-BFGS-B", bounds=bounds, options=options)

    ended, before = search(fixed[free]), np.inf
    while failed and before - best.fun > _LEFT:
        failed, before = False, best.fun
        ended = search(best.x)
    x = best.x if failed else ended.x
    point = at(x)
    vector = point.vector.cpu().numpy()
    bound = ((vector <= low) | (vector >= high)) & free
    # A line search that rounding ends at the maximum calls itself a failure.
    converged = bool(ended.success) or float(np.abs(ended.jac)[~bound[free]].max(initial=0.0)) < _FLAT
    if failed:
        converged = float(np.abs(objective(x)[1])[~bound[free]].max(initial=0.0)) < _LEFT
        bound |= free & (np.arange(len(free)) >= len(start.psi)) & (not converged)
    names = point.named(expectation.names, bound.tolist())
    return Ascent(expectation(point), tuple(trajectory), converged, names)
