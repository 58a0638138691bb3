"""Samplers that see a mini-batch at a time, for data whose passes are too dear: stochastic gradients, primal and dual.

In units of prior and noise a sample is the minimiser of a randomised loss over the data j = 1, ..., n,

    L_c(z) = 1/2 sum_j |B_j z - c e_j|^2 + 1/2 |z - x - (1 - c) B^T e|^2,

the same for each fraction c of the noise that is kept with the data. Only the data's part is subsampled. At the optimum the
variance of its gradient is least for ``c = sum_j w_j h_j / sum_j w_j`` with ``w_j = |B_j|^2`` and h_j the leverage of datum j;
moving all noise into the regulariser (c = 0) is better than leaving it (c = 1) where that mean leverage, close to
``gamma / m``, is below 1/2.
"""

import math

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.laplace.system.mode import Mode
from ctuq.laplace.system.problem import System
from ctuq.laplace.system.sampling import Conditioned, Draws, conditioned_by, explained_error
from ctuq.linops.solve import Solution, reported
from ctuq.linops.stochastic import sdd_features, sgd

_MUCH = 0.5
_LEAST_STEPS = 1000
_RTOL = 0.05
"""Relative residual to expect; a miss is a warning with the number."""
_TOGETHER = 2**18
"""Numbers that are worked on at once: rows of few weights together, thirty times faster than one by one; of many, alone."""


def kept_fraction(dimension: float, observations: int) -> float:
    """Which of the two plain losses has the less noisy gradient: 0 (all noise in the regulariser) or 1 (with the data)."""
    return 1.0 if dimension > _MUCH * observations else 0.0


class SampleLoss:
    """``L_c`` for all draws at once, and the mode's loss after them.

    Parameters
    ----------
    system : System
    draws : Draws
    kept : float
        c; more than 0 needs draws whose noise is kept.
    with_mode : bool
    """

    def __init__(self, system: System, draws: Draws, *, kept: float = 0.0, with_mode: bool = True):
        self._system, self._x = system, draws.prior
        self._last: tuple[Tensor, System] | None = None
        self._pulls = [((1 - kept) * factor, pulled) for factor, pulled in draws.pulls(system)]
        wanted = [kept * draws.noise.double()] if kept and draws.noise is not None else []
        if with_mode:
            wanted = [*(wanted or [system.target.expand(len(draws), *system.target.shape) * 0]), system.target[None]]
        self._wanted = torch.cat(wanted) if wanted else None
        self.start = torch.cat([self._x, torch.zeros_like(self._x[:1])]) if with_mode else self._x

    def gradient(self, z: Tensor, index: Tensor) -> Tensor:
        """Unbiased estimate from the data ``index`` at z (k, P), in the type of z; few vectors are made beside the result."""
        n = self._system.problem.data
        index = torch.arange(n, device=index.device) if len(index) == n else index
        part, scale = self._part(index), n / len(index)
        residual = part.push(self._system.root(z))
        if self._wanted is not None:
            residual = residual - self._wanted.index_select(self._system.problem.axis + 1, index)
        out = part.pull(scale * residual, dtype=z.dtype)
        together = max(1, _TOGETHER // out.shape[1])
        for first in range(0, len(out), together):
            every, drawn = slice(first, first + together), slice(first, min(first + together, len(self._x)))
            for factor, pulled in self._pulls:
                out[drawn].sub_(pulled[drawn], alpha=factor)
            out[every].copy_(self._system.root_transpose(out[every])).add_(z[every])
            out[drawn].sub_(self._x[drawn])
        return out

    def _part(self, index: Tensor) -> System:
        """The system of a mini-batch; linearising it is dear, and a step's size asks for the same one many times."""
        if len(index) == self._system.problem.data:
            return self._system
        if self._last is None or not torch.equal(self._last[0], index):
            self._last = index, self._system.part(index)
        return self._last[1]


class PrimalSampler:
    """Sampler by stochastic gradients on the loss with the less noise, each step shared by all draws.

    Parameters
    ----------
    draws : Draws
    rng : torch.Generator
        For the mini-batches.
    batch : int
        Data in a mini-batch.
    epochs : int
        Passes over the data; more where these are fewer than 1,000 steps.
    rtol : float
        Relative residual to expect; a miss is a warning with the number.
    """

    def __init__(self, draws: Draws, *, rng: torch.Generator, batch: int, epochs: int = 20, rtol: float = _RTOL):
        self._draws, self._rng, self._batch, self._epochs, self._rtol = draws, rng, batch, epochs, rtol
        self.kept = 0.0

    def __call__(self, system: System, with_mode: bool, start: Tensor | None) -> Conditioned:
        loss = SampleLoss(system, self._draws, kept=self.kept, with_mode=with_mode)
        n = system.problem.data
        steps = _steps(self._epochs, n, self._batch)
        z = sgd(
            loss.gradient,
            (loss.start if start is None else start).to(system.problem.features.domain.dtype),
            n=n,
            batch=self._batch,
            steps=steps,
            rng=self._rng,
        )
        found = judged(system, self._draws, z, steps, self._rtol)
        if self._draws.noise is not None:
            self.kept = kept_fraction(float(found.squares.sum(1).mean()), system.problem.observations)
        return found


def judged(system: System, draws: Draws, z: Tensor, steps: int, rtol: float) -> Conditioned:
    """What approximate solutions z (k, P), or with the mode's one more, are worth; a residual above ``rtol`` is a warning."""
    b = draws.centre(system, dtype=z.dtype)
    if len(z) > len(draws):
        b = torch.cat([b, system.pulled_target().to(z)])
    sizes = b.norm(dim=1)
    left = b.sub_(z).sub_(system.normal(z))
    residual = (left.norm(dim=1) / sizes.clamp(min=torch.finfo(z.dtype).tiny)).double()
    return conditioned_by(system, draws, reported("SGD", Solution(z, residual, steps, True), rtol), left[: len(draws)])


class DualSampler:
    """Sampler by stochastic dual descent over mini-batches of observations.

    Parameters
    ----------
    draws : Draws
        With their noise.
    rng : torch.Generator
    batch : int
        Data in a mini-batch.
    epochs : int
        Passes over the data; more where these are fewer than 1,000 steps.
    """

    def __init__(self, draws: Draws, *, rng: torch.Generator, batch: int, epochs: int = 200):
        self._draws, self._rng, self._batch, self._epochs = draws, rng, batch, epochs

    def __call__(self, system: System, with_mode: bool, start: Tensor | None) -> Conditioned:
        """Condition the draws.

        Raises
        ------
        InputError
            If the problem has no ``rows``, or its data do not lie along the leading axis.
        """
        problem, draws = system.problem, self._draws
        if problem.rows is None or problem.axis or draws.noise is None:
            raise InputError("Stochastic dual descent needs rows along the leading axis and draws that keep their noise.")
        prior, root = system.root(draws.prior.double()), system.noise_root()
        b = root * (draws.noise.double() - system.push(prior))
        if with_mode:
            b = torch.cat([b, problem.target[None]])
        steps = _steps(self._epochs, problem.data, self._batch)
        noise = root.square().expand(problem.target.shape)
        found, lifted = sdd_features(
            problem.rows, system.covariance, noise, b, batch=self._batch, steps=steps, rtol=_RTOL, rng=self._rng
        )
        pull = system.prior.precision(lifted, system.point.psi)
        samples = prior + lifted[: len(draws)]
        delta, fitted = root * found.value[: len(draws)], system.push(samples)
        left = draws.noise.double() - delta - fitted
        mode = _lifted_mode(system, lifted[-1], pull[-1], found) if with_mode else None
        squares = problem.by_group(fitted.square()).cpu()
        gap = explained_error(squares, 2 * (delta * left).sum(), left, None)
        return Conditioned(samples, pull[: len(draws)], squares, mode, found.value, found.residual, gap, self._epochs)


def _steps(epochs: int, n: int, batch: int) -> int:
    return max(_LEAST_STEPS, epochs * math.ceil(n / batch))


def _lifted_mode(system: System, weights: Tensor, pull: Tensor, found: Solution) -> Mode:
    misfit = system.squares(weights[None], residual=True)[0]
    density = system.log_density(misfit)
    return Mode(weights, pull, float(weights @ pull), misfit, density, float(found.residual[-1]), found.steps)
