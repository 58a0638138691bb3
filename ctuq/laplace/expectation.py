"""What a point of the hyperparameters' space says of itself: mode, effective dimensions and the evidence's slope, by samples.

With u the pulls of posterior samples (covariance ``C = H^T K^-1 H``), u_t that of the mode and ``dSigma_i`` the derivative of
the prior covariance, the slope of the log evidence is

    d log p / d psi_i       = 1/2 (q_i - gamma_i),   q_i = u_t^T dSigma_i u_t,  gamma_i = tr(C dSigma_i) = E u^T dSigma_i u
    d log p / d log sigma2_g = 1/2 (r_g - (m_g - gamma_g))

with r_g the squared residuals of noise group g over its variance. For variances gamma_i is the effective dimension of their
weights. The same slope is that of the expected complete-data log likelihood of EM.
"""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.laplace.mode import Mode, newton_mode, whitened
from ctuq.laplace.priors import Prior
from ctuq.laplace.problem import Point, Problem, System
from ctuq.laplace.sampling import Conditioned, Draws, condition
from ctuq.laplace.sensitivity import pair_products
from ctuq.linops.estimate import Estimate, estimate
from ctuq.linops.memory import available_memory
from ctuq.linops.operator import LinearOperator
from ctuq.linops.precondition import Nystrom, Preconditioner, nystrom
from ctuq.linops.solve import CG, Cholesky

_GAP, _TIGHTER = 0.01, 3
_RANK, _SHARE = 512, 0.2
_SMALL, _SLOW = 256, 24
_BAD = 4.0


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
            return estimate(self.totals)
        return Estimate(float(self.totals), 0.0 if self.samples is None else torch.inf)

    @property
    def slope(self) -> Tensor:
        """Slope of the log evidence in ``psi`` and ``log sigma2``: (d + G,)."""
        noise = self.mode.misfit - (self.counts - self.noise_dimension)
        return torch.cat([self.penalty - self.dimension, noise]) / 2


Sampler = Callable[[System, bool, Tensor | None], Conditioned]
"""``sampler(system, with_mode, start)`` conditions frozen draws."""


class SampledExpectation:
    """Expectations from posterior samples of the same frozen draws at every point, each solve started from the last.

    Parameters
    ----------
    problem : Problem
    prior : Prior
    sampler : Sampler
    mode : Mode, optional
        Where the first search for the mode of labels starts.
    """

    def __init__(self, problem: Problem, prior: Prior, sampler: Sampler, *, mode: Mode | None = None):
        self._problem, self._prior, self._sampler = problem, prior, sampler
        self._solution: Tensor | None = None
        self._mode = mode

    def __call__(self, point: Point) -> Expectation:
        system = System(self._problem, self._prior, point)
        found = self._sampler(system, self._problem.labels is None, self._solution)
        self._solution = found.solution
        mode = find_mode(system, found.mode, self._mode)
        self._mode = mode
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
    # The two forms of the total are independent, see `ctuq.laplace.dimension`.
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


class BlockCG:
    """Sampler by conjugate gradients on all draws at once, with a Nystrom preconditioner that follows the hyperparameters.

    One common factor of the variances over the noise needs no new sketch; it is drawn again when steps have doubled since.
    Where the effective dimension is uncertain by more than 1 % for the solution's residuals, or a sample by more than ``each``,
    the tolerance is divided by ten, three times at most. Systems of at most 256 unknowns are solved by Cholesky.

    Parameters
    ----------
    draws : Draws
    rng : torch.Generator
        For the sketches.
    rtol : float
    max_steps : int
    rank : int
        Most directions of the preconditioner; 0 for none.
    each : float
        Largest error of any linear functional of a sample, in units of its posterior standard deviation. The effective
        dimension forgives errors where the data say nothing, and error bars are large there.
    """

    def __init__(
        self,
        draws: Draws,
        *,
        rng: torch.Generator,
        rtol: float = 1e-3,
        max_steps: int = 1000,
        rank: int = _RANK,
        each: float = torch.inf,
    ):
        self._draws, self._rng, self._rtol, self._max_steps, self._rank = draws, rng, rtol, max_steps, rank
        self._each = each
        self._sketch: tuple[Nystrom, Point] | None = None
        self._steps, self._first = 0, 0

    def with_draws(self, draws: Draws) -> "BlockCG":
        """The sampler of other draws, with the preconditioner that is there already."""
        other = copy.copy(self)
        other._draws = draws
        return other

    def __call__(self, system: System, with_mode: bool, start: Tensor | None) -> Conditioned:
        if self._sketch is not None and self._steps > max(_SLOW, 2 * self._first):
            self._sketch = None
        renewed = self._sketch is None
        rtol = self._rtol
        found = self._solve(system, with_mode, start, rtol)
        self._steps = found.steps
        self._first = found.steps if renewed else self._first
        for _ in range(_TIGHTER):
            if found.gap <= _GAP and found.error <= self._each:
                break
            rtol /= 10
            found = self._solve(system, with_mode, found.solution, rtol)
        if found.gap > _GAP:
            warnings.warn(
                f"Solves to a residual of {float(found.residual.max()):.1e} leave an error of {100 * found.gap:.1f} % in the "
                "effective dimension: use float64 features, or more steps.",
                stacklevel=2,
            )
        elif found.error > _BAD * self._each:
            warnings.warn(
                f"Solves to a residual of {float(found.residual.max()):.1e} leave errors of up to {found.error:.2g} standard "
                "deviations in samples: use float64 features, or the solver cholesky.",
                stacklevel=2,
            )
        return found

    def _solve(self, system: System, with_mode: bool, start: Tensor | None, rtol: float) -> Conditioned:
        if system.gram().domain.size <= _SMALL:
            return condition(system, self._draws, Cholesky(), with_mode=with_mode, start=start)
        solver = CG(rtol, self._max_steps, self.preconditioner(system))
        with warnings.catch_warnings():
            # What a miss is worth is told by the gap; the residual itself is part of the answer.
            warnings.filterwarnings("ignore", "CG reached")
            return condition(system, self._draws, solver, with_mode=with_mode, start=start)

    def preconditioner(self, system: System) -> Preconditioner | None:
        """For ``I + G`` of the system's smaller space; None where that is small, or memory is."""
        gram = system.gram()
        left = available_memory(system.target.device)
        rank = min(self._rank, gram.domain.size // 2)
        if left is not None:
            rank = min(rank, int(_SHARE * left / (24 * gram.domain.size)))
        if rank < 1 or gram.domain.size < _SMALL:
            return None
        if self._sketch is None:
            self._sketch = nystrom(gram, rank, rng=self._rng, noise=1.0), system.point
        sketch, there = self._sketch
        return sketch.scaled(_common_factor(system, there)).with_noise(1.0)


def _common_factor(system: System, there: Point) -> float:
    """How much the prior's variances over the noise have grown, in the geometric mean."""
    variances = system.prior.is_variance
    prior = (system.point.psi - there.psi)[variances].mean()
    noise = (system.point.sigma2.log() - there.sigma2.log()).mean()
    return float((prior - noise).exp())


def _errors(draws: Tensor) -> Tensor:
    """Standard errors of the means of rows."""
    count = draws.shape[1]
    return draws.std(1) / count**0.5 if count > 1 else torch.full_like(draws[:, 0], torch.inf)
