import math

import numpy as np
import pytest
import torch
from linear_models import ONE, TWO, Exact, point, problem

from ctuq.laplace.evidence.dense import ExactExpectation
from ctuq.laplace.evidence.sampled import SampledExpectation
from ctuq.laplace.evidence.sweep import estimated_evidence, lowest_factor, sweep
from ctuq.laplace.system.cg_sampler import CGSampler
from ctuq.laplace.system.problem import Point, System
from ctuq.laplace.system.sampling import Draws


@pytest.mark.parametrize("n", [15, 40])
@pytest.mark.parametrize("prior", [ONE, TWO])
def test_integral_of_the_dimension_is_the_exact_evidence(n, prior, rng):
    p, matrix = problem(rng, n, groups=torch.arange(n) % 2)
    at = point([0.3, -0.5][: len(prior.names)], [0.4, 0.7])
    lowest = lowest_factor(System(p, prior, at), rng=rng)
    found = sweep(ExactExpectation(p, prior), prior, at, lowest=lowest)
    for log_factor, value in zip(found.log_factor, found.log_evidence, strict=True):
        exact = Exact.of(p, matrix, prior, at.psi + log_factor, at.sigma2).evidence
        assert float(value) == pytest.approx(exact, abs=2e-3, rel=1e-9)
    assert found.at_choice.error == 0
    assert found.at_choice.value == pytest.approx(Exact.of(p, matrix, prior, at.psi, at.sigma2).evidence, abs=5e-4)


def test_integral_of_sampled_dimensions_is_within_its_error(rng):
    p, matrix = problem(rng, 40)
    at = point([0.3], [0.4])
    exact = Exact.of(p, matrix, ONE, at.psi, at.sigma2).evidence
    lowest = lowest_factor(System(p, ONE, at), rng=rng)
    scores = []
    for seed in range(30):
        draws = Draws.of(p, 16, rng=torch.Generator().manual_seed(seed))
        found = sweep(SampledExpectation(p, ONE, CGSampler(draws, rng=rng)), ONE, at, lowest=lowest).at_choice
        scores.append((found.value - exact) / found.error)
    assert abs(np.mean(scores)) < 4 / 30**0.5
    assert 0.5 < np.std(scores) < 1.5


def test_lowest_factor_leaves_a_thousandth(rng):
    p, _ = problem(rng, 40)
    system = System(p, ONE, point([0.3], [0.4]))
    largest = float(torch.linalg.eigvalsh(system.primal_gram().dense())[-1])
    assert lowest_factor(system, rng=rng) == pytest.approx(math.log(1e-3 / largest), abs=0.1)
    assert lowest_factor(System(p, ONE, point([-40.0], [0.4])), rng=rng) == 0


def test_sweep_that_starts_at_nothing_has_no_determinant(rng):
    p, matrix = problem(rng, 40)
    at = point([-40.0], [0.4])
    found = sweep(ExactExpectation(p, ONE), ONE, at, lowest=0.0)
    assert found.at_choice.value == pytest.approx(Exact.of(p, matrix, ONE, at.psi, at.sigma2).evidence, abs=1e-6)


def test_scores_are_swept_with_everything_else(rng):
    p, _ = problem(rng, 40)
    exact, at = ExactExpectation(p, TWO), point([-3.0, -3.5], [0.3])
    found = sweep(exact, TWO, at, lowest=-8.0, score=lambda e: exact.leave_one_out(e.point), scored="left out")
    expected = [exact.leave_one_out(Point(at.psi + x, at.sigma2)) for x in found.log_factor]
    torch.testing.assert_close(found.log_likelihood, torch.tensor(expected, dtype=torch.float64))
    assert found.best_log_factor == float(found.log_factor[int(np.argmax(expected))])
    assert found.scored == "left out"


def test_lanczos_value_is_within_its_error_and_a_preconditioner_lowers_that(rng):
    p, matrix = problem(rng, 260, P=270, spread=0.1, noise=0.3)
    prior = type(ONE)(("all",), (slice(0, 270),))
    at = point([0.0], [1.0])
    system, mode = System(p, prior, at), ExactExpectation(p, prior)(at).mode
    preconditioner = CGSampler(Draws.of(p, 2, rng=rng), rng=rng).preconditioner(system)
    exact = Exact.of(p, matrix, prior, at.psi, at.sigma2).evidence
    errors = []
    for given in (None, preconditioner):
        found = [estimated_evidence(system, mode, rng=rng, preconditioner=given, probes=8) for _ in range(6)]
        scores = np.array([(f.value - exact) / f.error for f in found])
        assert abs(scores.mean()) < 4 / 6**0.5
        assert abs(scores).max() < 4
        errors.append(np.mean([f.error for f in found]))
    assert errors[1] < 0.5 * errors[0]


def test_small_systems_have_an_exact_value(rng):
    p, matrix = problem(rng, 40)
    at = point([0.3], [0.4])
    found = estimated_evidence(System(p, ONE, at), ExactExpectation(p, ONE)(at).mode, rng=rng)
    assert found.error == 0
    assert found.value == pytest.approx(Exact.of(p, matrix, ONE, at.psi, at.sigma2).evidence, rel=1e-9)
