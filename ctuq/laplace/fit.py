"""Hyperparameters of a linearised network by its evidence: one call, by whichever route fits the problem."""

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.laplace.evidence.ascent import Step
from ctuq.laplace.evidence.hyperprior import Hyperprior
from ctuq.laplace.evidence.memory import Forgetful, Memory
from ctuq.laplace.evidence.sweep import Sweep
from ctuq.laplace.predictive import HeldOutScore
from ctuq.laplace.priors.diagonal import Prior, g_prior
from ctuq.laplace.search import EvidenceSearch
from ctuq.laplace.system.problem import Point, Problem
from ctuq.laplace.system.solver_choice import SOLVERS, first_point, fits_densely, problem_of
from ctuq.laplace.tangent.model import LinearModel
from ctuq.laplace.tangent.normalisation import check_prior
from ctuq.linops.estimate import Estimate

_METHODS = ("auto", "dense", "em", "gradient")


@dataclass(frozen=True, eq=False)
class Fit:
    """Hyperparameters at a maximum of the evidence, and how they were found.

    Parameters
    ----------
    model : LinearModel, optional
        None if the problem is no network's.
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

    model: LinearModel | None
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
    starts: int = 4,
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
    starts : int
        Searches of ``dense`` where several variances compete, from those of equal shares, equal ones, and random ones:
        their evidence has several maxima, and the best is kept. One search only where ``start`` is given.
    rng : torch.Generator, optional
        Of seed 0 by default.

    Raises
    ------
    InputError
        For targets or priors that do not fit the model, and unknown methods.
    """
    _check_targets(targets)
    rng = torch.Generator(model.weights.device).manual_seed(0) if rng is None else rng
    used: Prior = g_prior(model, rng=rng) if prior is None else prior
    check_prior(model, used)
    problem = problem_of(model, targets, samples)
    return maximise(
        problem,
        used,
        model=model,
        method=method,
        solver=solver,
        samples=samples,
        score=None if held_out is None else HeldOutScore(model, *held_out),
        with_sweep=with_sweep,
        start=start,
        batch=batch,
        max_steps=max_steps,
        cap=cap,
        starts=starts,
        rng=rng,
    )


def maximise(
    problem: Problem,
    prior: Prior,
    *,
    model: LinearModel | None = None,
    method: str = "auto",
    solver: str = "cg",
    samples: int = 16,
    score: HeldOutScore | None = None,
    with_sweep: bool = False,
    start: Point | None = None,
    batch: int | None = None,
    max_steps: int = 60,
    cap: float = 1e4,
    starts: int = 1,
    rng: torch.Generator | None = None,
    hyperprior: Hyperprior | None = None,
    components: Tensor | None = None,
    memory: Memory | None = None,
) -> Fit:
    """Maximise the evidence of any linear problem; `maximise_evidence` does so for a network's.

    Parameters
    ----------
    problem : Problem
    prior : Prior
    model : LinearModel, optional
        The network's, if the problem is one's.
    score : HeldOutScore, optional
    hyperprior : callable, optional
        ``log p(psi)`` of the prior's hyperparameters, differentiable; what is maximised is the evidence times it, what is
        reported is the evidence.
    components : Tensor, float64, shape (c, m, m), optional
        ``prior.components`` of the features, for the dense route, where they are known without the features' matrix.
    memory : Memory, optional
        Keeps what the search has found at each of its points: one that was killed goes the same way again, without them.
    method, solver, samples, with_sweep, start, batch, max_steps, cap, starts, rng
        As for `maximise_evidence`.
    """
    _check(method, solver, samples)
    rng = torch.Generator(problem.target.device).manual_seed(0) if rng is None else rng
    route, reason = (method, "as asked") if method != "auto" else _automatic(problem, prior)
    begin = first_point(problem, prior, rng=rng) if start is None else start
    search = EvidenceSearch(problem, prior, begin, score, with_sweep, max_steps, rng, hyperprior, memory or Forgetful())
    found = (
        search.dense(1 if start is not None else starts, components)
        if route == "dense"
        else search.sampled(route, (solver, samples, batch), cap)
    )
    at = found.expectation
    _warn_of_no_noise(found.ascent.capped, at.point)
    return Fit(
        model,
        problem,
        prior,
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


def _warn_of_no_noise(capped: tuple[str, ...], point: Point) -> None:
    if any(name.startswith("noise ") for name in capped):
        warnings.warn(
            f"The noise fell to {float(point.sigma2.min()):.1e}, the least that the arithmetic allows: to this model the data "
            "have none, and neither error bars nor evidence are at a maximum; give the likelihood a sigma2.",
            stacklevel=4,
        )


def _check_targets(targets: Tensor) -> None:
    if not isinstance(targets, Tensor):
        raise InputError(f"The targets are a tensor, not {type(targets).__name__}: torch.from_numpy makes one of an array.")


def _check(method: str, solver: str, samples: int) -> None:
    if method not in _METHODS or solver not in SOLVERS:
        raise InputError(f"There is no method {method!r} with solver {solver!r}; choose among {_METHODS} and {SOLVERS}.")
    if samples < 2:
        raise InputError(f"{samples} sample gives no error: take at least 2.")


def _automatic(problem: Problem, prior: Prior) -> tuple[str, str]:
    fits, reason = fits_densely(problem, prior)
    return ("dense" if fits else "em"), reason
