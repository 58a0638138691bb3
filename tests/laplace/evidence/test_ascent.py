import numpy as np
import pytest
import scipy.optimize
import torch
from linear_models import ONE, TWO, Exact, normal, point, problem

from ctuq.laplace import FilterProcess
from ctuq.laplace.evidence.ascent import ascend, mackay, scoring
from ctuq.laplace.evidence.dense import ExactExpectation, maximise_dense
from ctuq.laplace.evidence.sampled import SampledExpectation
from ctuq.laplace.priors.diagonal import DiagonalPrior
from ctuq.laplace.system.cg_sampler import CGSampler
from ctuq.laplace.system.problem import Point, System
from ctuq.laplace.system.sampling import Draws
from ctuq.laplace.system.solver_choice import first_point
from ctuq.linops.jacobian.network import WeightBlock

FILTERS = FilterProcess((WeightBlock("a", slice(0, 18), (2, 1, 3, 3)), WeightBlock("b", slice(18, 24), (6, 1, 1, 1))))
STRICT = {"rtol": 1e-11, "flat": 0.0, "max_steps": 200}


@pytest.mark.parametrize("n", [15, 40])
@pytest.mark.parametrize("start", [-14.0, -2.0, 5.0])
def test_fixed_point_is_the_golden_section_maximiser(n, start, rng):
    p, matrix = problem(rng, n, sigma2=torch.tensor([0.25], dtype=torch.float64), learn_noise=False)
    ended = ascend(ExactExpectation(p, ONE), ONE, point([start], [0.25]), learn_noise=False, **STRICT)
    best = scipy.optimize.minimize_scalar(
        lambda x: -Exact.of(p, matrix, ONE, [x], [0.25]).evidence, bracket=(-6, 4), method="golden", tol=1e-8
    )
    assert ended.converged and not ended.capped
    assert float(ended.expectation.point.psi[0]) == pytest.approx(best.x, abs=1e-3)
    assert abs(float(ended.expectation.slope[0])) < 1e-8


@pytest.mark.parametrize("update", [mackay, scoring])
@pytest.mark.parametrize("prior", [ONE, TWO, FILTERS])
@pytest.mark.parametrize("groups", [1, 2])
def test_slope_of_every_hyperparameter_vanishes_at_the_fixed_point(update, prior, groups, rng):
    p, _ = problem(rng, 40, groups=torch.arange(40) % groups)
    exact = ExactExpectation(p, prior)
    start = first_point(p, prior, rng=rng)
    ended = ascend(
        lambda at: exact(at, information=True), prior, start, learn_noise=True, update=update, **{**STRICT, "rtol": 1e-9}
    )
    names = (*prior.names, *(f"noise {g}" for g in range(groups)))
    free = torch.tensor([name not in ended.capped for name in names])
    assert free.sum() > len(free) - 2
    assert float(ended.expectation.slope[free].abs().max()) < 1e-7
    best = maximise_dense(exact, start, learn_noise=True)
    assert ended.expectation.log_evidence >= best.expectation.log_evidence - 1e-3


def test_joint_fixed_point_of_one_variance_and_the_noise_is_exact(rng):
    p, _ = problem(rng, 40)
    ended = ascend(ExactExpectation(p, ONE), ONE, first_point(p, ONE, rng=rng), learn_noise=True, **{**STRICT, "rtol": 1e-13})
    assert float(ended.expectation.slope.abs().max()) < 1e-10


def test_acceleration_saves_steps(rng):
    p, _ = problem(rng, 40, noise=2.0)
    exact, start = ExactExpectation(p, ONE), first_point(p, ONE, rng=rng)
    ended = ascend(exact, ONE, start, learn_noise=True, rtol=1e-8, flat=0.0)
    plain, at = 0, start
    while plain < 200:
        plain += 1
        change = mackay(ONE, exact(at))
        if float(change.abs().max()) <= 1e-8:
            break
        at = at.moved(at.vector + change)
    assert ended.converged
    assert len(ended.trajectory) < 0.7 * plain


def test_frozen_noise_spreads_the_variance_as_the_estimators_variance_says():
    rng = torch.Generator().manual_seed(5)
    p, _ = problem(rng, 60, sigma2=torch.tensor([0.25], dtype=torch.float64), learn_noise=False)
    exact = ExactExpectation(p, ONE)
    start = first_point(p, ONE, rng=rng)
    best = ascend(exact, ONE, start, learn_noise=False, **STRICT).expectation
    found = []
    for seed in range(50):
        draws = Draws.of(p, 4, rng=torch.Generator().manual_seed(seed))
        sampled = SampledExpectation(p, ONE, CGSampler(draws, rng=rng))
        found.append(float(ascend(sampled, ONE, start, learn_noise=False, rtol=1e-6, flat=0.0).expectation.point.psi[0]))
    there = Point(best.point.psi + 1e-4, best.point.sigma2)
    contraction = 1 + float(mackay(ONE, exact(there))[0]) / 1e-4
    eigenvalues = torch.linalg.eigvalsh(System(p, ONE, best.point).primal_gram().dense()).clamp(min=0)
    s = eigenvalues / (1 + eigenvalues)
    # Mean of both forms of the dimension: half the variance of one.
    expected = float((s**2).sum() / 4) ** 0.5 / float(s.sum()) / (1 - contraction)
    assert np.std(np.array(found) - float(best.point.psi[0])) == pytest.approx(expected, rel=0.3)


@pytest.mark.parametrize("prior", [ONE, TWO])
@pytest.mark.parametrize("update", [mackay, scoring])
def test_sixteen_samples_lose_less_than_a_nat(prior, update, rng):
    p, _ = problem(rng, 120)
    start = first_point(p, prior, rng=rng)
    exact = ExactExpectation(p, prior)
    best = maximise_dense(exact, start, learn_noise=True).expectation.log_evidence
    sampled = SampledExpectation(p, prior, CGSampler(Draws.of(p, 16, rng=rng), rng=rng))
    ended = ascend(sampled, prior, start, learn_noise=True, update=update)
    assert ended.converged
    assert best - 1 < exact(ended.expectation.point).log_evidence <= best + 1e-6


def test_variances_move_together_at_first_and_stay_within_the_cap(rng):
    p, matrix = problem(rng, 40)
    prior = DiagonalPrior(("used", "useless"), (slice(0, 12), slice(12, 24)))
    p.target.copy_(matrix[:, :12] @ normal(rng, 12) + 0.5 * normal(rng, 40))
    ended = ascend(ExactExpectation(p, prior), prior, point([0.0, 1.0], [0.3]), learn_noise=True, cap=3.0, flat=0.0)
    ratios = [float(s.point.psi[1] - s.point.psi[0]) for s in ended.trajectory]
    assert ratios[:4] == pytest.approx([1.0] * 4)
    centre = ended.trajectory[3].point.psi
    assert ((ended.expectation.point.psi - centre).abs() <= np.log(3.0) + 1e-9).all()
    assert "useless" in ended.capped


def test_layers_that_evidence_prunes_do_not_hold_up_the_end(rng):
    p, _ = problem(rng, 40)
    prior = DiagonalPrior(("used", "useless"), (slice(0, 23), slice(23, 24)))
    exact = ExactExpectation(p, prior)
    ended = ascend(exact, prior, first_point(p, prior, rng=rng), learn_noise=True, cap=1e30)
    assert ended.converged
    best = maximise_dense(exact, ended.expectation.point, learn_noise=True).expectation.log_evidence
    assert ended.expectation.log_evidence > best - 0.05


def test_noise_that_has_no_maximum_ends_at_its_bound(rng):
    p, matrix = problem(rng, 15, groups=(torch.arange(15) == 14).long())
    exact = ExactExpectation(p, ONE)
    start = first_point(p, ONE, rng=rng)
    alone = exact(start.moved(start.vector + torch.tensor([0.0, 0.0, 40.0])))
    p.target[14] = matrix[14] @ alone.mode.weights
    ended = ascend(exact, ONE, start, learn_noise=True, max_steps=100, flat=0.0)
    assert ended.capped == ("noise 1",)


def test_too_few_steps_are_reported(rng):
    p, _ = problem(rng, 40)
    ended = ascend(ExactExpectation(p, ONE), ONE, first_point(p, ONE, rng=rng), learn_noise=True, max_steps=2)
    assert not ended.converged
    assert len(ended.trajectory) == 2
