"""A search by samples that is killed at any of its points goes on to the same bits, and solves for none of them twice."""

import pytest
import torch
from killing import at_call, half_written, killed

from ctuq import stages
from ctuq.errors import CtuqError
from ctuq.laplace import search
from ctuq.laplace.evidence.sampled import SampledExpectation
from ctuq.laplace.fit import maximise
from ctuq.laplace.priors.diagonal import DiagonalPrior
from ctuq.laplace.system.cg_sampler import CGSampler
from ctuq.laplace.system.problem import Problem
from ctuq.linops.basic import Dense
from ctuq.stages import KeptStages

ROWS, WEIGHTS = 300, 400
PRIOR = DiagonalPrior(("a", "b"), (slice(0, 150), slice(150, WEIGHTS)))


@pytest.fixture(scope="module")
def problem():
    """Too large for Cholesky, so that solves start from the last ones and have a preconditioner."""
    rng = torch.Generator().manual_seed(4)
    spectrum = torch.logspace(0, -4, WEIGHTS, dtype=torch.float64)
    H = torch.randn(ROWS, WEIGHTS, generator=rng, dtype=torch.float64) * spectrum
    target = H @ torch.randn(WEIGHTS, generator=rng, dtype=torch.float64)
    target += 0.5 * torch.randn(ROWS, generator=rng, dtype=torch.float64)
    return Problem(Dense(H), target, torch.full((1,), torch.nan, dtype=torch.float64), True)


@pytest.fixture(autouse=True)
def everything_is_kept(monkeypatch):
    monkeypatch.setattr(stages, "_WORTH", 0.0)
    monkeypatch.setattr(stages, "_OFTEN", 0.0)


def fitted(problem, folder=None, identity="work"):
    kept = None if folder is None else KeptStages(folder, identity)
    return maximise(problem, PRIOR, method="em", samples=4, rng=torch.Generator().manual_seed(1), memory=kept)


def same(one, other):
    for name in ("psi", "sigma2", "mode", "effective_dimension", "effective_dimension_error"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert (one.log_evidence, one.log_evidence_error) == (other.log_evidence, other.log_evidence_error)
    assert [(s.total, s.change, s.steps) for s in one.trajectory] == [(s.total, s.change, s.steps) for s in other.trajectory]
    assert one.converged == other.converged and one.capped == other.capped


@pytest.fixture(scope="module")
def whole(problem):
    return fitted(problem)


def test_what_is_kept_changes_nothing(problem, whole, tmp_path):
    assert len(whole.trajectory) > 6
    same(fitted(problem, tmp_path), whole)
    same(fitted(problem, tmp_path), whole)


@pytest.mark.parametrize("point", [1, 2, 3, 7, -1, 0])
def test_a_search_that_is_killed_at_any_point_goes_on_to_the_same_bits(problem, whole, tmp_path, monkeypatch, point):
    """Point 0 is that of the fresh draws after the search, -1 the last one of the search."""
    at = point if point > 0 else len(whole.trajectory) + 1 + point

    def work():
        at_call(SampledExpectation, "__call__", at)
        fitted(problem, tmp_path)

    assert killed(work)
    made, original = [], SampledExpectation.__call__
    monkeypatch.setattr(SampledExpectation, "__call__", lambda self, where: made.append(0) or original(self, where))
    same(fitted(problem, tmp_path), whole)
    assert len(made) == len(whole.trajectory) + 1 - (at - 1)


@pytest.mark.parametrize("where", ["while a state is written", "in the value of the evidence", "where a sketch is drawn"])
def test_and_anywhere_else(problem, whole, tmp_path, where):
    def work():
        if where == "while a state is written":
            half_written(stages, 4)
        elif where == "in the value of the evidence":
            at_call(search, "estimated_evidence")
        else:
            at_call(CGSampler, "preconditioner", 3)
        fitted(problem, tmp_path)

    assert killed(work)
    same(fitted(problem, tmp_path), whole)


def test_a_point_that_could_not_be_solved_is_one_of_the_way(problem, tmp_path, monkeypatch):
    original, called = SampledExpectation.__call__, []

    def fails(self, point):
        called.append(0)
        if len(called) == 3:
            raise CtuqError("beyond rounding")
        return original(self, point)

    monkeypatch.setattr(SampledExpectation, "__call__", fails)
    found = fitted(problem)
    called.clear()

    def work():
        at_call(SampledExpectation, "__call__", 6)
        fitted(problem, tmp_path)

    assert killed(work)
    called.extend([0] * 5)
    same(fitted(problem, tmp_path), found)


def test_other_work_is_not_gone_on_with(problem, whole, tmp_path):
    fitted(problem, tmp_path)
    same(fitted(problem, tmp_path, "other work"), whole)


def test_time_of_all_tries_is_told(tmp_path, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(stages.time, "perf_counter", lambda: 10.0 * next(clock))
    for spared in (0.0, 10.0, 20.0):
        kept = KeptStages(tmp_path, "a")
        kept.latest("search")
        kept.renew("search", lambda: 1)
        assert kept.spared == spared
