import numpy as np
import pytest
import scipy.optimize
import torch
from linear_models import ONE, TWO, Exact, normal, point, problem

from ctuq.errors import CtuqError
from ctuq.laplace import FilterProcess
from ctuq.laplace.evidence.dense import ExactExpectation, maximise_dense
from ctuq.laplace.system.problem import Problem
from ctuq.laplace.system.solver_choice import first_point
from ctuq.linops.basic import Dense
from ctuq.linops.jacobian.network import WeightBlock

FILTERS = FilterProcess((WeightBlock("a", slice(0, 18), (2, 1, 3, 3)), WeightBlock("b", slice(18, 24), (6, 1, 1, 1))))


@pytest.mark.parametrize("n", [15, 40])
@pytest.mark.parametrize("prior", [TWO, FILTERS])
@pytest.mark.parametrize("grouped", [False, True])
def test_value_and_slope_are_those_of_the_normal_density(n, prior, grouped, rng):
    groups = torch.arange(n) % 2 if grouped else None
    p, matrix = problem(rng, n, groups=groups)
    at = point([0.3, -0.5] + [0.2] * (len(prior.names) - 2), [0.4, 0.7] if grouped else [0.4])
    exact = ExactExpectation(p, prior)
    assert exact.dual == (n == 15)
    found = exact(at)

    def value(vector):
        there = at.moved(vector)
        return Exact.of(p, matrix, prior, there.psi, there.sigma2).evidence

    assert found.log_evidence == pytest.approx(value(at.vector), rel=1e-10)
    steps = 1e-5 * torch.eye(len(at.vector), dtype=torch.float64)
    slope = torch.tensor([(value(at.vector + s) - value(at.vector - s)) / 2e-5 for s in steps]).double()
    torch.testing.assert_close(found.slope, slope, rtol=1e-6, atol=1e-7)
    quick, quick_slope, total = exact.value_and_slope(at)
    assert quick == pytest.approx(found.log_evidence, rel=1e-12)
    torch.testing.assert_close(quick_slope, found.slope, rtol=1e-9, atol=1e-9)
    assert total == pytest.approx(float(found.noise_dimension.sum()), rel=1e-9)


@pytest.mark.parametrize("n", [15, 40])
def test_information_is_fishers(n, rng):
    p, matrix = problem(rng, n)
    at = point([0.3, -0.5, 0.2], [0.4])
    K = Exact.of(p, matrix, FILTERS, at.psi, at.sigma2).K

    def covariance(psi):
        return Exact.of(p, matrix, FILTERS, psi, at.sigma2).K

    steps = 1e-5 * torch.eye(3, dtype=torch.float64)
    changes = [torch.linalg.solve(K, covariance(at.psi + s) - covariance(at.psi - s)) / 2e-5 for s in steps]
    expected = torch.tensor([[0.5 * float((a @ b).trace()) for b in changes] for a in changes])
    torch.testing.assert_close(ExactExpectation(p, FILTERS)(at).information, expected.double(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("n", [15, 40])
def test_leave_one_out_is_a_fit_without_each_observation(n, rng):
    groups = torch.arange(n) % 2
    p, matrix = problem(rng, n, groups=groups, log_scale=3.0)
    at = point([0.3, -0.5], [0.4, 0.7])
    K, t = Exact.of(p, matrix, TWO, at.psi, at.sigma2).K, p.target
    densities = []
    for i in range(n):
        rest = torch.arange(n) != i
        gain = torch.linalg.solve(K[rest][:, rest], K[rest, i])
        variance = K[i, i] - gain @ K[rest, i]
        densities.append(torch.distributions.Normal(gain @ t[rest], variance.sqrt()).log_prob(t[i]))
    expected = float(torch.stack(densities).mean()) + 3.0 / n
    assert ExactExpectation(p, TWO).leave_one_out(at) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [15, 40])
def test_output_covariance_is_exact(n, rng):
    p, matrix = problem(rng, n, groups=torch.arange(n) % 2)
    at = point([0.3, -0.5], [0.4, 0.7])
    S, new = Exact.of(p, matrix, TWO, at.psi, at.sigma2).S, normal(rng, 5, 2, 24)
    torch.testing.assert_close(ExactExpectation(p, TWO).output_covariance(at, new), new @ S @ new.mT, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("prior", [ONE, TWO])
def test_maximum_is_that_of_a_search_without_derivatives(prior, rng):
    p, matrix = problem(rng, 15)
    found = maximise_dense(ExactExpectation(p, prior), first_point(p, prior, rng=rng), learn_noise=True)
    best = found.expectation.point

    def loss(x):
        at = best.moved(torch.from_numpy(np.clip(x, -12, 12)))
        return -Exact.of(p, matrix, prior, at.psi, at.sigma2).evidence

    options = {"maxiter": 4000, "maxfev": 4000, "xatol": 1e-6, "fatol": 1e-9}
    starts = (np.full(len(best.vector), s) for s in (-2.0, 0.0))
    least = min(scipy.optimize.minimize(loss, x, method="Nelder-Mead", options=options).fun for x in starts)
    assert found.converged
    assert found.expectation.log_evidence == pytest.approx(-least, abs=1e-5)


def test_maximum_over_weights_is_a_maximum(rng):
    p, matrix = problem(rng, 40, groups=torch.arange(40) % 2)
    found = maximise_dense(ExactExpectation(p, TWO), first_point(p, TWO, rng=rng), learn_noise=True)
    best = found.expectation.point
    for direction in torch.eye(4, dtype=torch.float64):
        for size in (-0.1, 0.1):
            there = best.moved(best.vector + size * direction)
            assert Exact.of(p, matrix, TWO, there.psi, there.sigma2).evidence < found.expectation.log_evidence


def test_known_noise_is_kept(rng):
    p, _ = problem(rng, sigma2=torch.tensor([0.25], dtype=torch.float64), learn_noise=False)
    found = maximise_dense(ExactExpectation(p, ONE), first_point(p, ONE, rng=rng), learn_noise=False)
    assert float(found.expectation.point.sigma2[0]) == pytest.approx(0.25, rel=1e-12)
    assert abs(float(found.expectation.slope[0])) < 1e-2


def test_noise_too_small_for_float64_is_refused(rng):
    p, matrix = problem(rng, 15)
    twice = Problem(Dense(matrix[:5].repeat(3, 1)), p.target, p.sigma2)
    with pytest.raises(CtuqError, match="positive definite"):
        ExactExpectation(twice, ONE)(point([60.0], [1e-9]))
