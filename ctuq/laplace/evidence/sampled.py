"""What a point of the hyperparameters' space says of itself: mode, effective dimensions and the evidence's slope, by samples.

With u the pulls of posterior samples (covariance ``C = H^T K^-1 H``), u_t that of the mode and ``dSigma_i`` the derivative of
the prior covariance, the slope of the log evidence is

    d log p / d psi_i       = 1/2 (q_i - gamma_i),   q_i = u_t^T dSigma_i u_t,  gamma_i = tr(C dSigma_i) = E u^T dSigma_i u
    d log p / d log sigma2_g = 1/2 (r_g - (m_g - gamma_g))

with r_g the squared residuals of noise group g over its variance. For variances gamma_i is the effective dimension of their
weights. The same slope is that of the expected complete-data log likelihood of EM.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.laplace.priors.diagonal import Prior
from ctuq.laplace.priors.sensitivity import pair_products
from ctuq.laplace.system.cg_sampler import Sampler
from ctuq.laplace.system.mode import Mode, newton_mode, whitened
from ctuq.laplace.system.problem import Point, Problem, System
from ctuq.laplace.system.sampling import Conditioned
from ctuq.linops.estimate import Estimate, estimate_of
from ctuq.linops.operator import LinearOperator


@dataclass(frozen=True, eq=False)
class Expectation:
    """Mode and effective dimensions at a point; tensors are float64, and on the CPU but for samples and the mode's weights.

    Parameters
    ----------
    point : Point
    mode : Mode
    penalty : Tensor, shape (d,)
        ``q_i`` of each hyperparameter of the prior.
    dimension, dimension_error : Tensor, shape (d,)
        ``gamma_i`` and its standard error, 0 where exact.
    noise_dimension, noise_error : Tensor, shape (G,)
        ``gamma_g`` of each noise group and its standard error.
    totals : Tensor, shape (k,)
        Effective dimension of all weights by each sample; one number where exact.
    counts : Tensor, shape (G,)
        Observations of each noise group.
    information : Tensor, shape (d, d), optional
        Fisher information of psi, ``1/2 tr(C dSigma_i C dSigma_j)``.
    log_evidence : float, optional
        Where it is exact.
    samples : Tensor, shape (k, P), optional
        Draws of the posterior minus its mean.
    gap : float
        Relative error of the effective dimension that residuals of the solves explain.
    residual : float
        Largest relative residual of the solves.
    steps : int
        Products with the system.
    """

    point: Point
    mode: Mode
    penalty: Tensor
    dimension: Tensor
    dimension_error: Tensor
    noise_dimension: Tensor
    noise_error: Tensor
    totals: Tensor
    counts: Tensor
    information: Tensor | None = None
    log_evidence: float | None = None
    samples: Tensor | None = None
    gap: float = 0.0
    residual: float = 0.0
    steps: int = 0

    @property
    def total(self) -> Estimate:
        """Effective dimension of all weights."""
        if len(self.totals) > 1:
            return estimate_of(self.totals)
        return Estimate(float(self.totals), 0.0 if self.samples is None else torch.inf)

    @property
    def slope(self) -> Tensor:
        """Slope of the log evidence in ``psi`` and ``log sigma2``: (d + G,)."""
        noise = self.mode.misfit - (self.counts - self.noise_dimension)
        return torch.cat([self.penalty - self.dimension, noise]) / 2


class SampledExpectation:
    """Expectations from posterior samples of the same frozen draws at every point, each solve started from the last.

    Parameters
    ----------
    problem : Problem
    prior : Prior
    sampler : Sampler
    mode : Mode, optional
        Where the first search for the mode of labels starts.

    Attributes
    ----------
    solution : Tensor, optional
        Where the next solve starts.
    mode : Mode, optional
        Of the last point.
    """

    def __init__(self, problem: Problem, prior: Prior, sampler: Sampler, *, mode: Mode | None = None):
        self._problem, self._prior, self._sampler = problem, prior, sampler
        self.solution: Tensor | None = None
        self.mode = mode

    @property
    def device(self) -> torch.device:
        """Of the problem."""
        return self._problem.target.device

    def __call__(self, point: Point) -> Expectation:
        system = System(self._problem, self._prior, point)
        found = self._sampler(system, self._problem.labels is None, self.solution)
        self.solution = found.solution
        mode = find_mode(system, found.mode, self.mode)
        self.mode = mode
        return expectation_of(system, found, mode)


def find_mode(system: System, solved: Mode | None, before: Mode | None, preconditioner: LinearOperator | None = None) -> Mode:
    """The mode that was solved for, or that of the labels, started from the one before; see `newton_mode`."""
    labels = system.problem.labels
    if labels is None:
        assert solved is not None
        return solved
    start = None if before is None else whitened(system, before)
    return newton_mode(system, labels, start=start, preconditioner=preconditioner)


def expectation_of(system: System, found: Conditioned, mode: Mode) -> Expectation:
    """Effective dimensions with their errors from conditioned draws."""
    prior, psi, count = system.prior, system.point.psi, len(found.samples)
    penalty = pair_products(prior, psi, mode.pull[None])[:, 0, 0]
    pairs = pair_products(prior, psi, found.pull)
    draws = pairs.diagonal(dim1=1, dim2=2)
    variances = len(prior.members)
    # |B z|^2 and |x - z|^2 (samples z, prior draws x, in units of the prior) both have the mean gamma; they are independent, so
    # that their mean has half their variance.
    totals = (draws[:variances].sum(0) + found.squares.sum(1)) / 2
    draws = totals[None] if len(draws) == 1 else draws
    squares = totals[:, None] if found.squares.shape[1] == 1 else found.squares
    off = pairs - torch.diag_embed(pairs.diagonal(dim1=1, dim2=2))
    information = torch.einsum("ijl,njl->in", off, off) / (2 * max(count * (count - 1), 1))
    return Expectation(
        system.point,
        mode,
        penalty,
        draws.mean(1),
        _errors(draws),
        squares.mean(0),
        _errors(squares.T),
        totals,
        system.problem.counts,
        information,
        samples=found.samples,
        gap=found.gap,
        residual=float(found.residual.max()),
        steps=found.steps,
    )


def _errors(draws: Tensor) -> Tensor:
    """Standard errors of the means of rows."""
    count = draws.shape[1]
    return draws.std(1) / count**0.5 if count > 1 else torch.full_like(draws[:, 0], torch.inf)
