import pytest
import torch
from linear_models import ONE, TWO, point, problem

from ctuq.laplace import FilterProcess
from ctuq.laplace.evidence.dense import ExactExpectation
from ctuq.laplace.evidence.sampled import SampledExpectation
from ctuq.laplace.system.cg_sampler import CGSampler
from ctuq.laplace.system.problem import System
from ctuq.laplace.system.sampling import Draws
from ctuq.linops.jacobian.network import WeightBlock

FILTERS = FilterProcess((WeightBlock("a", slice(0, 18), (2, 1, 3, 3)), WeightBlock("b", slice(18, 24), (6, 1, 1, 1))))


def sampled(p, prior, at, rng, count=3000, **options):
    return SampledExpectation(p, prior, CGSampler(Draws.of(p, count, rng=rng), rng=rng, **options))(at)


@pytest.mark.parametrize(("n", "batch"), [(15, None), (40, None), (40, 9)])
@pytest.mark.parametrize("prior", [ONE, TWO, FILTERS])
def test_samples_estimate_the_exact_expectation_within_their_errors(n, batch, prior, rng):
    p, _ = problem(rng, n, groups=torch.arange(n) % 2, batch=batch)
    at = point([0.3, -0.5, 0.2][: len(prior.names)], [0.4, 0.7])
    exact, found = ExactExpectation(p, prior)(at, information=True), sampled(p, prior, at, rng)
    torch.testing.assert_close(found.penalty, exact.penalty, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.mode.weights, exact.mode.weights, rtol=1e-9, atol=1e-9)
    assert ((found.dimension - exact.dimension).abs() < 4 * found.dimension_error).all()
    assert ((found.noise_dimension - exact.noise_dimension).abs() < 4 * found.noise_error).all()
    assert abs(found.total.value - exact.total.value) < 4 * found.total.error
    torch.testing.assert_close(found.information, exact.information, rtol=0.1, atol=0.05)


def test_one_variance_and_one_noise_share_the_better_estimate(rng):
    p, _ = problem(rng, 40)
    found = sampled(p, ONE, point([0.3], [0.4]), rng, count=20)
    assert float(found.dimension[0]) == pytest.approx(found.total.value)
    assert float(found.noise_dimension[0]) == pytest.approx(found.total.value)


def test_the_total_of_a_sample_has_half_the_variance_of_either_estimate_of_it(rng):
    """``|B z|^2`` and ``|x - z|^2`` are independent of variance ``2 sum s^2`` each, ``s`` the eigenvalues of ``I - S``."""
    p, _ = problem(rng, 40)
    at, count = point([0.3, -0.5], [0.6]), 6000
    A = torch.eye(24, dtype=torch.float64) + System(p, TWO, at).primal_gram().dense()
    s = 1 - 1 / torch.linalg.eigvalsh(A)
    totals = sampled(p, TWO, at, rng, count).totals
    square = float(s.square().sum())
    assert abs(float(totals.mean() - s.sum())) < 4 * (square / count) ** 0.5
    assert float(totals.var()) == pytest.approx(square, rel=0.1)


@pytest.fixture
def large(rng):
    """More unknowns than are solved densely, over a steep spectrum."""
    p, _ = problem(rng, 300, P=300, spread=0.15, noise=0.05)
    prior = type(ONE)(("all",), (slice(0, 300),))
    return p, prior


def test_tolerance_tightens_until_the_dimension_is_certain(large, rng):
    p, prior = large
    at = point([0.0], [1e-3])
    draws = Draws.of(p, 8, rng=rng)
    loose = CGSampler(draws, rng=rng, rtol=0.1, rank=0)
    found = SampledExpectation(p, prior, loose)(at)
    assert found.gap <= 0.01
    exact = SampledExpectation(p, prior, CGSampler(draws, rng=rng, rtol=1e-12))(at)
    assert found.total.value == pytest.approx(exact.total.value, rel=0.01)
    assert found.residual < 0.1


def test_dimension_that_stays_uncertain_is_told(large, rng):
    p, prior = large
    with pytest.warns(UserWarning, match="effective dimension"):
        SampledExpectation(p, prior, CGSampler(Draws.of(p, 4, rng=rng), rng=rng, max_steps=2, rank=0))(point([0.0], [1e-3]))


def test_preconditioner_follows_the_hyperparameters(large, rng):
    p, prior = large
    sampler = CGSampler(Draws.of(p, 4, rng=rng), rng=rng)
    near, far = point([0.0], [1e-4]), point([1.0], [3e-4])
    sampler.preconditioner(System(p, prior, near))
    followed = sampler.preconditioner(System(p, prior, far))
    K = System(p, prior, far).dual_gram().dense() + torch.eye(300, dtype=torch.float64)
    spectrum = torch.linalg.eigvals(followed.dense() @ K).real
    assert float(spectrum.max() / spectrum.min()) < 50
    assert float(torch.linalg.cond(K)) > 1e4
