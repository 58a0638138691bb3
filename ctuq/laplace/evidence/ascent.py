"""Ascent of the evidence by fixed points of its slope: MacKay's updates, accelerated, with frozen noise.

A step of EM finds the mode and the effective dimensions at the present hyperparameters and moves each variance by
``log q - log gamma``, each noise variance by ``log r - log (m - gamma)``: zero exactly where the evidence's slope is.
Lengthscales move by the slope over their Fisher information. Since the noise draws are frozen, the map is deterministic and
Anderson's method (a secant step for one hyperparameter) may find its fixed point.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.errors import CtuqError
from ctuq.laplace.evidence.sampled import Expectation
from ctuq.laplace.priors.diagonal import Prior
from ctuq.laplace.system.problem import Point

_FAR, _BOUND, _TRUST, _LENGTH = 6.0, 25.0, 2.0, 4.0
_LEAST_NOISE, _MOST_NOISE = 14.0, 10.0
_NEAR, _MEMORY, _LOST = 0.7, 5, 2.0
_NOTICED = 0.1
_TIED = 3
"""First steps in which several variances keep their ratios."""
_WALLS, _WORTHLESS = 12, 0.5


@dataclass(frozen=True, eq=False)
class Step:
    """One step of the ascent.

    Parameters
    ----------
    point : Point
        Where it started.
    total : float
        Effective dimension there.
    change : float
        Largest change of a log hyperparameter that is asked for.
    gap : float
        Of the effective dimension's two forms.
    steps : int
        Products with the system.
    log_evidence : float, optional
        Where it is exact.
    """

    point: Point
    total: float
    change: float
    gap: float
    steps: int
    log_evidence: float | None


@dataclass(frozen=True, eq=False)
class Ascent:
    """Where an ascent ended.

    Parameters
    ----------
    expectation : Expectation
        At the last point.
    trajectory : tuple of Step
    converged : bool
    capped : tuple of str
        Hyperparameters that ended at a bound.
    """

    expectation: Expectation
    trajectory: tuple[Step, ...]
    converged: bool
    capped: tuple[str, ...]


def mackay(prior: Prior, found: Expectation) -> Tensor:
    """MacKay's update of ``psi`` and ``log sigma2`` as a change, (d + G,); lengthscales by the slope over the information."""
    tiny = torch.finfo(torch.float64).tiny
    change = found.penalty.clamp(min=tiny).log() - found.dimension.clamp(min=tiny).log()
    lengths = ~prior.is_variance
    if lengths.any():
        assert found.information is not None
        information = found.information.diagonal()[lengths].clamp(min=1e-3)
        change[lengths] = (found.slope[: len(change)][lengths] / information).clamp(-1, 1)
    left = torch.maximum(found.counts - found.noise_dimension, 1e-3 * found.counts)
    noise = found.mode.misfit.clamp(min=tiny).log() - left.log()
    return torch.cat([change, noise]).clamp(-_FAR, _FAR)


def scoring(prior: Prior, found: Expectation) -> Tensor:
    """Fisher scoring of ``psi``, the slope over the information matrix; noise variances as `mackay` has them."""
    assert found.information is not None
    change = mackay(prior, found)
    size = len(found.dimension)
    values, vectors = torch.linalg.eigh(found.information)
    # Sampled information may be indefinite: what it does not know well moves little.
    values = values.clamp(min=0.05 * float(values[-1]))
    change[:size] = (vectors @ ((vectors.T @ found.slope[:size]) / values)).clamp(-_TRUST, _TRUST)
    return change


def ascend(
    expectation: Callable[[Point], Expectation],
    prior: Prior,
    start: Point,
    *,
    learn_noise: bool,
    update: Callable[[Prior, Expectation], Tensor] = mackay,
    rtol: float = 1e-3,
    flat: float = 5e-3,
    max_steps: int = 40,
    cap: float = 1e4,
    least_noise: float = _LEAST_NOISE,
) -> Ascent:
    """Repeat updates until the next would move no hyperparameter by more than ``rtol``, or a tenth of its standard error.

    In the first steps several variances keep their ratios, and lengthscales stay. Hyperparameters along which the evidence is
    flat count as converged. Data without noise ask for ever less of it: where the arithmetic cannot solve any more, half the
    step is taken, and noise goes no lower.

    Parameters
    ----------
    expectation : callable
        Exact or sampled.
    prior : Prior
    start : Point
    learn_noise : bool
    update : callable
        `mackay` (EM) or `scoring` (gradient).
    rtol : float
    flat : float
        Slope, nats for a factor e, below which the evidence is flat: layers that it prunes would move for ever.
    max_steps : int
    cap : float
        Largest ratio of a variance to what the first steps found, either way: evidence prunes layers, and never stops to.
    least_noise : float
        How far noise may fall, as the logarithm of a factor: where the prior can explain a noise group without noise, its
        evidence has no maximum.
    """
    search = _Search(prior, start, learn_noise, (math.log(cap), least_noise))
    trajectory: list[Step] = []
    while True:
        try:
            found = expectation(start)
        except CtuqError:
            if not trajectory or search.walls == _WALLS:
                raise
            found = None
        if found is None or (found.gap > _WORTHLESS and trajectory and search.walls < _WALLS):
            start = search.wall(trajectory[-1].point, start)
            continue
        change = search.change(found, update(prior, found), len(trajectory))
        steep = found.slope.abs() > flat
        trajectory.append(Step(start, found.total.value, float(change.abs().max()), found.gap, found.steps, found.log_evidence))
        moving = (change.abs() > search.tolerance(found, rtol)) & steep
        converged = len(trajectory) > search.tied and not bool(moving.any())
        if converged or len(trajectory) >= max_steps:
            return Ascent(found, tuple(trajectory), converged, search.capped(start))
        start = start.moved(search.next(start.vector, change, steep))


class _Search:
    """Bounds, ties and memory of an ascent."""

    def __init__(self, prior: Prior, start: Point, learn_noise: bool, bounds: tuple[float, float]):
        self._prior, self.tied = prior, _TIED if len(start.psi) > 1 else 0
        self._cap, least_noise = bounds
        self._variances = torch.cat([prior.is_variance, torch.zeros(len(start.sigma2), dtype=torch.bool)])
        self._noise = torch.arange(len(start.vector)) >= len(start.psi)
        self._learned = ~self._noise | learn_noise
        self._low, self._high = start.vector - _BOUND, start.vector + _BOUND
        lengths = ~self._variances & ~self._noise
        self._low[lengths], self._high[lengths] = start.vector[lengths] - _LENGTH, start.vector[lengths] + _LENGTH
        self._low[self._noise] = start.vector[self._noise] - least_noise
        self._high[self._noise] = start.vector[self._noise] + _MOST_NOISE
        self._memory: list[tuple[Tensor, Tensor]] = []
        self.walls = 0

    def wall(self, last: Point, failed: Point) -> Point:
        """Half way back from a point that could not be solved; noise will not fall below it."""
        self.walls += 1
        self._memory.clear()
        middle = (last.vector + failed.vector) / 2
        self._low[self._noise] = torch.maximum(self._low, middle)[self._noise]
        return last.moved(middle)

    def change(self, found: Expectation, asked: Tensor, step: int) -> Tensor:
        """What is asked for, less what is fixed, tied, or beyond a bound."""
        change = torch.where(self._learned, asked, 0.0)
        several = self._variances[: len(found.penalty)]
        if step < self.tied:
            change[: len(several)] = torch.where(several, self._together(found, several), 0.0)
            return change
        if step == self.tied and self.tied:
            self._memory.clear()
            centre = found.point.vector[self._variances]
            self._low[self._variances], self._high[self._variances] = centre - self._cap, centre + self._cap
        at = found.point.vector
        outward = ((at >= self._high) & (change > 0)) | ((at <= self._low) & (change < 0))
        return torch.where(outward, 0.0, change)

    @staticmethod
    def _together(found: Expectation, several: Tensor) -> Tensor:
        tiny = torch.finfo(torch.float64).tiny
        ratio = found.penalty[several].sum().clamp(min=tiny).log() - found.dimension[several].sum().clamp(min=tiny).log()
        return ratio.clamp(-_FAR, _FAR)

    def tolerance(self, found: Expectation, rtol: float) -> Tensor:
        """Of each hyperparameter: a tenth of the standard error of its update, if that is more than ``rtol``."""
        prior = found.dimension_error / found.dimension.clamp(min=1e-9)
        noise = found.noise_error / torch.maximum(found.counts - found.noise_dimension, 1e-3 * found.counts)
        return (_NOTICED * torch.cat([prior, noise])).clamp(rtol, _NOTICED)

    def next(self, at: Tensor, change: Tensor, steep: Tensor) -> Tensor:
        """The next vector within the bounds: Anderson's along steep directions where it can be trusted, else plain."""
        size = float((change * steep).norm())
        far = float((change * steep).abs().max()) > _NEAR
        if far or (self._memory and size > _LOST * float((self._memory[-1][1] * steep).norm())):
            self._memory.clear()
        self._memory = [*self._memory[-_MEMORY:], (at, change)]
        step = change
        if len(self._memory) > 1:
            moves = torch.stack([x for x, _ in self._memory]).diff(dim=0)
            turns = torch.stack([f for _, f in self._memory]).diff(dim=0)
            weights = torch.linalg.lstsq(turns.T[steep], change[steep, None], rcond=1e-8, driver="gelsd").solution[:, 0]
            step = torch.where(steep, change - weights @ (moves + turns), change)
            step = step * min(1.0, max(_TRUST, float(change.abs().max())) / max(float(step.abs().max()), 1e-300))
        return torch.minimum(torch.maximum(at + step, self._low), self._high)

    def capped(self, point: Point) -> tuple[str, ...]:
        """Names of the learned hyperparameters at a bound."""
        at = point.vector
        bound = ((at <= self._low) | (at >= self._high)) & self._learned
        return point.named(self._prior.names, bound.tolist())
