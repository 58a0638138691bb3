"""The search for the evidence's maximum over one problem: exactly from several starts, or by posterior samples."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ctuq.errors import CtuqError
from ctuq.laplace.evidence.ascent import Ascent, ascend, mackay, scoring
from ctuq.laplace.evidence.dense import ExactExpectation, maximise_dense
from ctuq.laplace.evidence.hyperprior import Hyperprior, value_and_slope, with_hyperprior
from ctuq.laplace.evidence.memory import Forgetful, Memory
from ctuq.laplace.evidence.resumed import Resumed
from ctuq.laplace.evidence.sampled import Expectation, SampledExpectation
from ctuq.laplace.evidence.sweep import Sweep, estimated_evidence, lowest_factor, sweep
from ctuq.laplace.predictive import HeldOutScore
from ctuq.laplace.priors.diagonal import Prior
from ctuq.laplace.system.cg_sampler import CGSampler, Sampler
from ctuq.laplace.system.problem import Point, Problem, System
from ctuq.laplace.system.sampling import Draws
from ctuq.laplace.system.solver_choice import assembled, for_solver, sampler_of
from ctuq.linops.estimate import Estimate

_SPREAD, _NOISE_SPREAD = 3.0, 1.5
"""Standard deviations of the logarithms that other starts are drawn with."""
_NOISELESS, _BEYOND, _RELIABLE = 1e-4, 5.0, 0.01
_LEAST_NOISE = {torch.float64: 25.0, torch.float32: 14.0}
"""How far learned noise may fall, as the logarithm of a factor, before samples are noise themselves."""


@dataclass(frozen=True, eq=False)
class Found:
    """Where a search ended: the ascent, the expectation there, the evidence's value, and its sweep if it was asked for."""

    ascent: Ascent
    expectation: Expectation
    value: Estimate
    sweep: Sweep | None
    judge: Callable[[Point], Expectation] | None = None


def _value(found: Expectation) -> float:
    assert found.log_evidence is not None
    return found.log_evidence


@dataclass(frozen=True, eq=False)
class EvidenceSearch:
    """One problem on its way to a fit."""

    problem: Problem
    prior: Prior
    start: Point
    score: HeldOutScore | None
    with_sweep: bool
    max_steps: int
    rng: torch.Generator
    hyperprior: Hyperprior | None = None
    memory: Memory = field(default_factory=Forgetful)

    def dense(self, starts: int, components: Tensor | None = None) -> Found:
        """By the exact evidence, from several starts where several variances compete."""
        problem = assembled(self.problem) if components is None else self.problem
        expectation = ExactExpectation(problem, self.prior, components=components)
        ended = self._maximum(expectation, self.start)
        for start in self._others(starts - 1):
            try:
                again = self._maximum(expectation, start)
            except CtuqError:
                continue
            ended = max(ended, again, key=self._height)
        score, scored = None, "nothing"
        if self.score is not None:
            score, scored = self.score.exact(expectation), "held out"
        elif self.problem.labels is None:
            score, scored = lambda found: expectation.leave_one_out(found.point), "left out"
        swept = self._sweep(expectation, ended.expectation.point, score, scored) if self.with_sweep else None
        return Found(ended, ended.expectation, Estimate(_value(ended.expectation), 0.0), swept)

    def _maximum(self, expectation: ExactExpectation, start: Point) -> Ascent:
        return maximise_dense(
            expectation,
            start,
            learn_noise=self.problem.learn_noise,
            max_steps=self.max_steps,
            hyperprior=self.hyperprior,
            keep=lambda point, evaluate: self.memory.once(f"evidence at {point.digest}", evaluate),
        )

    def _height(self, found: Ascent) -> float:
        """What is maximised, at the end of a search."""
        return _value(found.expectation) + value_and_slope(self.hyperprior, found.expectation.point.psi)[0]

    def _others(self, count: int) -> Iterator[Point]:
        """Starts with differently shared variances, where there are several: equal ones, then random ones."""
        if len(self.prior.members) < 2 or not self.max_steps or count < 1:
            return
        psi, own = self.start.psi, self.prior.is_variance
        yield Point(torch.where(own, self.prior.start() + (psi - self.prior.start())[own].mean(), psi), self.start.sigma2)
        for _ in range(count - 1):
            draw = torch.randn(len(self.start.vector), generator=self.rng, device=self.rng.device, dtype=torch.float64).cpu()
            spread = torch.full_like(draw, _NOISE_SPREAD * self.problem.learn_noise)
            spread[: len(self.start.psi)] = _SPREAD * self.prior.is_variance
            yield self.start.moved(self.start.vector + spread * draw)

    def sampled(self, route: str, sampling: tuple[str, int, int | None], cap: float) -> Found:
        """By posterior samples; the end is judged by draws that the search did not see.

        Where it ends almost without noise, the evidence may have a higher maximum at still less of it: a second search from
        there is kept if it is better.
        """
        found = self._ascended(route, sampling, cap, self.start)
        at = found.expectation.point
        if self.problem.learn_noise and self.max_steps and float((at.sigma2 / self.start.sigma2).min()) < _NOISELESS:
            shift = torch.cat([_BEYOND * self.prior.is_variance, torch.full_like(at.sigma2, -_BEYOND)])
            try:
                again = self._ascended(route, sampling, cap, at.moved(at.vector + shift))
            except CtuqError:
                again = found
            reliable = again.expectation.gap <= max(found.expectation.gap, _RELIABLE)
            found = again if reliable and again.value.value > found.value.value else found
        if not self.with_sweep:
            return found
        score, scored = (None, "nothing") if self.score is None else (self.score.sampled, "held out")
        assert found.judge is not None
        return replace(found, sweep=self._sweep(found.judge, found.expectation.point, score, scored))

    def _ascended(self, route: str, sampling: tuple[str, int, int | None], cap: float, start: Point) -> Found:
        problem = for_solver(self.problem, self.prior, sampling[0])
        with warnings.catch_warnings():
            # What solves on the way are worth does not matter; those at the end are done anew.
            warnings.filterwarnings("ignore", "Solves to a residual")
            ended = ascend(
                with_hyperprior(self._searching(problem, sampling, start), self.hyperprior),
                self.prior,
                start,
                learn_noise=self.problem.learn_noise,
                update=mackay if route == "em" else scoring,
                max_steps=self.max_steps,
                cap=cap,
                least_noise=_LEAST_NOISE[problem.features.domain.dtype],
            )
        point = ended.expectation.point
        fresh = self._sampler(problem, *sampling)
        expectation = SampledExpectation(problem, self.prior, fresh, mode=ended.expectation.mode)
        found, system = expectation(point), System(problem, self.prior, point)

        def value() -> tuple[float, float]:
            preconditioner = fresh.preconditioner(system) if isinstance(fresh, CGSampler) else None
            value = estimated_evidence(system, found.mode, rng=self.rng, preconditioner=preconditioner)
            return value.value, value.error

        height = Estimate(*self.memory.once(f"evidence by samples at {point.digest}", value, rng=self.rng))
        return Found(ended, found, height, None, expectation)

    def _searching(
        self, problem: Problem, sampling: tuple[str, int, int | None], start: Point
    ) -> Callable[[Point], Expectation]:
        """Expectations of a search, by conjugate gradients those that were kept of it."""
        sampler = self._sampler(problem, *sampling)
        found = SampledExpectation(problem, self.prior, sampler)
        if not isinstance(sampler, CGSampler):
            return found
        return Resumed(found, sampler, rng=self.rng, memory=self.memory, name=f"search from {start.digest}")

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
