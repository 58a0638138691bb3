"""From a linearised model to the problem its evidence knows, and which route through it the sizes allow."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.laplace.priors.diagonal import Prior
from ctuq.laplace.system.cg_sampler import CGSampler, Sampler
from ctuq.laplace.system.descent import DualSampler, PrimalSampler
from ctuq.laplace.system.problem import Labels, Point, Problem
from ctuq.laplace.system.sampling import Draws
from ctuq.laplace.tangent.features import ObservedFeatures
from ctuq.laplace.tangent.likelihoods import Gaussian
from ctuq.laplace.tangent.metric import Metric
from ctuq.laplace.tangent.model import LinearModel
from ctuq.linops.basic import Dense
from ctuq.linops.memory import available_memory
from ctuq.linops.operator import LinearOperator

SOLVERS = ("cg", "sgd", "sdd")
_DENSE, _SHARE = 4096, 0.25
_BATCH = 128


def problem_of(model: LinearModel, targets: Tensor, samples: int = 16) -> Problem:
    """The whitened problem of a model and its data.

    Parameters
    ----------
    model : LinearModel
    targets : Tensor
    samples : int
        Rows that will be pushed through the data at once, which decides whether that is done part by part.
    """
    likelihood, features = model.likelihood, model.features
    axis = features.axis if isinstance(features, ObservedFeatures) else 0
    groups = model.groups
    count = 1 if groups is None else int(groups.max()) + 1
    device = model.weights.device
    common: dict[str, Any] = {"groups": groups, "rows": model.rows, "axis": axis, "normal": features.gauss_newton}
    common["batch"] = _batch(model, samples)
    if isinstance(likelihood, Gaussian | Metric):
        known = math.nan if likelihood.sigma2 is None else likelihood.sigma2
        sigma2 = torch.full((count,), known, dtype=torch.float64)
        return Problem(
            features, model.target(targets), sigma2, likelihood.learns_noise, log_scale=_log_scale(likelihood), **common
        )
    jacobian = features.observe @ model.jacobian if isinstance(features, ObservedFeatures) else model.jacobian
    labels = Labels(likelihood, jacobian, model.constant, likelihood.targets(model.outputs, targets))
    zero = torch.zeros(features.range.shape, dtype=torch.float64, device=device)
    return Problem(features, zero, torch.ones(1, dtype=torch.float64), False, labels=labels, **common)


def assembled(problem: Problem) -> Problem:
    """The problem with its features as matrices: no product, of all data or of a mini-batch, runs the network again."""

    def dense(operator: LinearOperator) -> Dense:
        return operator if isinstance(operator, Dense) else Dense(operator.dense(), operator.domain, operator.range)

    features = dense(problem.features)
    labels = None if problem.labels is None else replace(problem.labels, jacobian=dense(problem.labels.jacobian))
    return replace(problem, features=features, rows=_Rows(features, problem.axis), labels=labels, batch=None, normal=None)


def first_point(problem: Problem, prior: Prior, *, rng: torch.Generator, draws: int = 8) -> Point:
    """Where a search starts: each variance explains the same share of the target's, and learned noise is a tenth of that.

    With labels, the prior's whitened outputs have variance 1. What each variance explains, ``tr(H_b Sigma_b H_b^T) / m``, is
    measured by pulling a few random vectors back, so that the start does not depend on the scale of a layer's weights.
    """
    psi = prior.start()
    pulled = problem.features.T(problem.features.range.randn(draws, rng=rng)).double()
    squares = prior.root_transpose(pulled, psi).square().mean(0) / problem.observations
    shares = torch.stack([torch.stack([squares[s].sum() for s in slices]).sum() for slices in prior.members]).cpu()
    variance = float(problem.target.square().mean()) if problem.labels is None else 1.0
    if not (float(shares.max()) > 0 and variance > 0):
        raise InputError(
            "Features or targets are all zero, as are those of units that are never active and of classes that are certain: "
            "there is nothing to learn from."
        )
    shares = torch.where(shares > 0, shares, shares.max())
    unknown = problem.sigma2.isnan()
    sigma2 = torch.where(unknown, 0.1 * variance, problem.sigma2)
    start = psi.clone()
    start[prior.is_variance] += math.log(variance / len(shares)) - shares.log()
    return Point(start, sigma2)


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows of assembled features that belong to chosen data."""

    features: Dense
    axis: int

    def __call__(self, index: Tensor) -> Dense:
        chosen = self.features.matrix.reshape(*self.features.range.shape, -1).index_select(self.axis, index)
        space = replace(self.features.range, shape=tuple(chosen.shape[:-1]))
        return Dense(chosen.flatten(0, -2), self.features.domain, space)


def for_solver(problem: Problem, prior: Prior, solver: str) -> Problem:
    """The problem as a solver sees it: mini-batches from the assembled features where these fit in memory."""
    return assembled(problem) if solver in ("sgd", "sdd") and fits_densely(problem, prior)[0] else problem


def sampler_of(problem: Problem, draws: Draws, solver: str, *, batch: int | None, rng: torch.Generator) -> Sampler:
    """The sampler of a name, see `maximise_evidence`."""
    if solver == "cg":
        return CGSampler(draws, rng=rng)
    kind = PrimalSampler if solver == "sgd" else DualSampler
    return kind(draws, rng=rng, batch=min(problem.data, _BATCH if batch is None else batch))


def _dense_bytes(problem: Problem, prior: Prior) -> int:
    """Peak memory of the dense route: features, and the matrices of the smaller space."""
    m, P = problem.observations, problem.weights
    features = m * P * torch.empty((), dtype=problem.features.domain.dtype).element_size()
    features *= 1 if problem.labels is None else 2
    small = min(m, P)
    count = len(prior.coefficients(prior.start())) if m <= P else len(problem.sigma2)
    return features + 8 * (count + 8) * small**2


def fits_densely(problem: Problem, prior: Prior) -> tuple[bool, str]:
    """Whether the dense route is the choice, and why."""
    small, needed = min(problem.observations, problem.weights), _dense_bytes(problem, prior)
    left = available_memory(problem.target.device)
    told = f"{problem.observations} observations of {problem.weights} weights need {needed / 2**30:.2g} GiB densely"
    if small > _DENSE:
        return False, f"{told} and more than {_DENSE} unknowns"
    if left is not None and needed > _SHARE * left:
        return False, f"{told}, and {left / 2**30:.2g} GiB are free"
    return True, told


def _batch(model: LinearModel, samples: int) -> int | None:
    """Data whose products are formed at once, None for all: pushed rows of all data take at most an eighth of the memory."""
    left = available_memory(model.weights.device)
    one = 3 * 8 * (samples + 1) * model.m / model.n
    if left is None or isinstance(model.features, ObservedFeatures) or one * model.n < left / 8:
        return None
    return max(1, int(left / 8 / one))


def _log_scale(likelihood: Gaussian | Metric) -> float:
    """Log density of the data minus that of the whitened data."""
    if isinstance(likelihood, Metric):
        factor = likelihood.factor
        return 0.0 if factor is None else float(factor.diagonal(dim1=-2, dim2=-1).double().log().sum())
    return 0.0 if likelihood.weights is None else 0.5 * float(likelihood.weights.double().log().sum())
