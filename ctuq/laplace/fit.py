"""Hyperparameters of a linearised network by its evidence: one call, by whichever route fits the problem."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.laplace.evidence.ascent import Ascent, Step, ascend, mackay, scoring
from ctuq.laplace.evidence.dense import ExactExpectation, maximise_exact
from ctuq.laplace.evidence.sampled import Expectation, SampledExpectation
from ctuq.laplace.evidence.sweep import Sweep, estimated_evidence, lowest_factor, sweep
from ctuq.laplace.predictive import HeldOut
from ctuq.laplace.priors.diagonal import Prior, g_prior
from ctuq.laplace.system.block_cg import BlockCG, Sampler
from ctuq.laplace.system.problem import Point, Problem, System
from ctuq.laplace.system.routes import SOLVERS, assembled, first_point, fits_densely, for_solver, problem_of, sampler_of
from ctuq.laplace.system.sampling import Draws
from ctuq.laplace.tangent.model import LinearModel
from ctuq.laplace.tangent.normalisation import check_prior
from ctuq.linops.estimate import Estimate

METHODS = ("auto", "dense", "em", "gradient")


@dataclass(frozen=True, eq=False)
class Fit:
    """Hyperparameters at a maximum of the evidence, and how they were found.

    Parameters
    ----------
    model : LinearModel
    problem : Problem
        The model and its data, whitened.
    prior : Prior
    psi : Tensor, float64, shape (d,)
        Log hyperparameters of the prior.
    sigma2 : Tensor, float64, shape (G,)
        Noise variance of each group, of an observation of weight 1; 1 for classes.
    mode : Tensor, float64, shape (P,)
        Most probable weights of the linear model.
    log_evidence, log_evidence_error : float
        log p(data), nats, and its standard error (0 if exact). For classes it is Laplace's, with the curvature at the network's
        outputs.
    effective_dimension, effective_dimension_error : Tensor, float64, shape (d,)
        gamma of each hyperparameter, for variances the dimension of their weights; from draws that the search did not see.
    total_dimension : Estimate
        Effective dimension of all weights.
    sweep : Sweep, optional
        What a common factor of all variances does to evidence and log likelihood, and the evidence by integration.
    trajectory : tuple of Step
    converged : bool
    capped : tuple of str
        Hyperparameters that ended at a bound of the search.
    method, reason : str
        The route, and why it was taken.
    """

    model: LinearModel
    problem: Problem
    prior: Prior
    psi: Tensor
    sigma2: Tensor
    mode: Tensor
    log_evidence: float
    log_evidence_error: float
    effective_dimension: Tensor
    effective_dimension_error: Tensor
    total_dimension: Estimate
    sweep: Sweep | None
    trajectory: tuple[Step, ...]
    converged: bool
    capped: tuple[str, ...]
    method: str
    reason: str

    @property
    def point(self) -> Point:
        """``psi`` and ``sigma2``."""
        return Point(self.psi, self.sigma2)

    @property
    def named(self) -> dict[str, float]:
        """Hyperparameters of the prior by name, exponentiated."""
        return dict(zip(self.prior.names, self.psi.exp().tolist(), strict=True))

    def samples_needed(self, accuracy: float) -> int:
        """Samples that would give a shared precision to this relative accuracy, at a typical contraction rho of EM of 1/2.

        One sample has a variance of at most gamma, and a fixed point multiplies the error by ``1 / (1 - rho)``:
        ``k >= 1 / (gamma accuracy^2 (1 - rho)^2)``.
        """
        return max(1, math.ceil(4 / (max(self.total_dimension.value, 1e-6) * accuracy**2)))


def maximise_evidence(
    model: LinearModel,
    targets: Tensor,
    prior: Prior | None = None,
    *,
    method: str = "auto",
    solver: str = "cg",
    samples: int = 16,
    held_out: tuple[Tensor, Tensor] | None = None,
    with_sweep: bool = True,
    start: Point | None = None,
    batch: int | None = None,
    max_steps: int = 60,
    cap: float = 1e4,
    rng: torch.Generator | None = None,
) -> Fit:
    """Maximise the evidence of the tangent model over the prior's hyperparameters and the noise.

    Parameters
    ----------
    model : LinearModel
    targets : Tensor
        Of the shape of the model's outputs, or class indices.
    prior : Prior, optional
        The g-prior with one variance if None: normalisation layers leave it alone, and evidence prunes layers of their own.
    method : {"auto", "dense", "em", "gradient"}
        ``dense``: exact evidence by L-BFGS; ``em``: MacKay's updates from posterior samples; ``gradient``: Fisher scoring from
        the same samples. ``auto`` is dense where the features fit in memory and observations or weights number at most 4,096.
    solver : {"cg", "sgd", "sdd"}
        How samples are drawn: block CG; SGD or SDD only where passes over all data are too dear.
    samples : int
        Posterior samples of each step, drawn from the same noise throughout.
    held_out : (inputs, targets), optional
        Data that the fit does not see; their log likelihood is swept. Without them, ``dense`` sweeps the leave-one-out density.
    with_sweep : bool
        Sweep a common factor of the variances: about 25 more solves.
    start : Point, optional
        Hyperparameters to start from; with ``max_steps=0`` they are kept, and everything is computed there.
    batch, max_steps : int
        Data in a mini-batch of SGD or SDD; most steps of the search.
    cap : float
        Largest ratio of a variance to the one that all share in the first steps of ``em`` and ``gradient``.
    rng : torch.Generator, optional
        Of seed 0 by default.

    Raises
    ------
    InputError
        For targets or priors that do not fit the model, and unknown methods.
    """
    _check(targets, method, solver, samples)
    rng = torch.Generator(model.weights.device).manual_seed(0) if rng is None else rng
    used: Prior = g_prior(model, rng=rng) if prior is None else prior
    check_prior(model, used)
    problem = problem_of(model, targets, samples)
    route, reason = (method, "as asked") if method != "auto" else _automatic(problem, used)
    score = None if held_out is None else HeldOut(model, *held_out)
    begin = first_point(problem, used, rng=rng) if start is None else start
    search = _Search(problem, used, begin, score, with_sweep, max_steps, rng)
    found = search.dense() if route == "dense" else search.sampled(route, (solver, samples, batch), cap)
    at = found.expectation
    return Fit(
        model,
        problem,
        used,
        psi=at.point.psi,
        sigma2=at.point.sigma2,
        mode=at.mode.weights,
        log_evidence=found.value.value,
        log_evidence_error=found.value.error,
        effective_dimension=at.dimension,
        effective_dimension_error=at.dimension_error,
        total_dimension=at.total,
        sweep=found.sweep,
        trajectory=found.ascent.trajectory,
        converged=found.ascent.converged,
        capped=found.ascent.capped,
        method=route,
        reason=reason,
    )


def _check(targets: Tensor, method: str, solver: str, samples: int) -> None:
    if not isinstance(targets, Tensor):
        raise InputError(f"The targets are a tensor, not {type(targets).__name__}: torch.from_numpy makes one of an array.")
    if method not in METHODS or solver not in SOLVERS:
        raise InputError(f"There is no method {method!r} with solver {solver!r}; choose among {METHODS} and {SOLVERS}.")
    if samples < 2:
        raise InputError(f"{samples} sample gives no error: take at least 2.")


def _automatic(problem: Problem, prior: Prior) -> tuple[str, str]:
    fits, reason = fits_densely(problem, prior)
    return ("dense" if fits else "em"), reason


@dataclass(frozen=True, eq=False)
class _Found:
    ascent: Ascent
    expectation: Expectation
    value: Estimate
    sweep: Sweep | None


@dataclass(frozen=True, eq=False)
class _Search:
    """One problem on its way to a fit."""

    problem: Problem
    prior: Prior
    start: Point
    score: HeldOut | None
    with_sweep: bool
    max_steps: int
    rng: torch.Generator

    def dense(self) -> _Found:
        """By the exact evidence."""
        expectation = ExactExpectation(assembled(self.problem), self.prior)
        ended = maximise_exact(expectation, self.start, learn_noise=self.problem.learn_noise, max_steps=self.max_steps)
        assert ended.expectation.log_evidence is not None
        score, scored = None, "nothing"
        if self.score is not None:
            score, scored = self.score.exact(expectation), "held out"
        elif self.problem.labels is None:
            score, scored = lambda found: expectation.leave_one_out(found.point), "left out"
        swept = self._sweep(expectation, ended.expectation.point, score, scored) if self.with_sweep else None
        return _Found(ended, ended.expectation, Estimate(ended.expectation.log_evidence, 0.0), swept)

    def sampled(self, route: str, sampling: tuple[str, int, int | None], cap: float) -> _Found:
        """By posterior samples; the end is judged by draws that the search did not see."""
        update = mackay if route == "em" else scoring
        problem = for_solver(self.problem, self.prior, sampling[0])
        ended = ascend(
            SampledExpectation(problem, self.prior, self._sampler(problem, *sampling)),
            self.prior,
            self.start,
            learn_noise=self.problem.learn_noise,
            update=update,
            max_steps=self.max_steps,
            cap=cap,
        )
        point = ended.expectation.point
        fresh = self._sampler(problem, *sampling)
        expectation = SampledExpectation(problem, self.prior, fresh, mode=ended.expectation.mode)
        found, system = expectation(point), System(problem, self.prior, point)
        preconditioner = fresh.preconditioner(system) if isinstance(fresh, BlockCG) else None
        value = estimated_evidence(system, found.mode, rng=self.rng, preconditioner=preconditioner)
        score, scored = (None, "nothing") if self.score is None else (self.score.sampled, "held out")
        return _Found(ended, found, value, self._sweep(expectation, point, score, scored) if self.with_sweep else None)

    def _sampler(self, problem: Problem, solver: str, samples: int, batch: int | None) -> Sampler:
        draws = Draws.of(problem, samples, rng=self.rng)
        return sampler_of(problem, draws, solver, batch=batch, rng=self.rng)

    def _sweep(
        self,
        expectation: Callable[[Point], Expectation],
        point: Point,
        score: Callable[[Expectation], float] | None,
        scored: str,
    ) -> Sweep:
        lowest = lowest_factor(System(self.problem, self.prior, point), rng=self.rng)
        return sweep(expectation, self.prior, point, lowest=lowest, score=score, scored=scored)
