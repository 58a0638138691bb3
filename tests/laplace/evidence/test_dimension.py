import pytest
import torch
from linear_models import TWO, point, problem

from ctuq.laplace.evidence import dimension
from ctuq.laplace.system.problem import System
from ctuq.laplace.system.sampling import Draws, condition
from ctuq.linops.solve import Cholesky

DRAWS = 6000


@pytest.fixture(scope="module")
def sampled():
    rng = torch.Generator().manual_seed(3)
    p, _ = problem(rng, 40)
    system = System(p, TWO, point([0.3, -0.5], [0.6]))
    draws = Draws.of(p, DRAWS, rng=rng)
    found = condition(system, draws, Cholesky(), with_mode=False)
    z = TWO.precision(found.samples, system.point.psi)
    z = system.root_transpose(z)
    A = torch.eye(24, dtype=torch.float64) + system.primal_gram().dense()
    G = torch.eye(24, dtype=torch.float64) - torch.linalg.inv(A)
    return system, z, draws.prior, draws.centre(system), system.push(found.samples), G


def agrees(values, mean, variance):
    """Mean within 4 standard errors, variance within 10 %."""
    assert abs(float(values.mean()) - mean) < 4 * (variance / DRAWS) ** 0.5
    assert float(values.var()) == pytest.approx(variance, rel=0.1)


def test_forms_have_their_mean_and_variance(sampled):
    _, z, x, centre, fitted, G = sampled
    s = torch.linalg.eigvalsh(G)
    gamma = float(s.sum())
    agrees(dimension.prediction_form(fitted), gamma, 2 * float((s**2).sum()))
    agrees(dimension.difference_form(z, x), gamma, 2 * float((s**2).sum()))
    agrees(dimension.prior_form(z, x), gamma, float((s * (1 + s)).sum()))
    agrees(dimension.weight_form(z), gamma, 2 * float(((1 - s) ** 2).sum()))
    torch.testing.assert_close(dimension.residual_form(z, centre), dimension.prediction_form(fitted), rtol=1e-9, atol=1e-9)


def test_mean_of_the_two_independent_forms_has_half_the_variance(sampled):
    _, z, x, _, fitted, G = sampled
    s = torch.linalg.eigvalsh(G)
    agrees((dimension.prediction_form(fitted) + dimension.difference_form(z, x)) / 2, float(s.sum()), float((s**2).sum()))


def test_of_a_block_the_difference_form_has_less_variance_than_the_prior_form(sampled):
    _, z, x, _, _, G = sampled
    for block in (slice(0, 10), slice(10, 24)):
        part = G[block, block]
        gamma, square = float(part.trace()), float(part.square().sum())
        agrees(dimension.difference_form(z[:, block], x[:, block]), gamma, 2 * square)
        agrees(dimension.prior_form(z[:, block], x[:, block]), gamma, gamma + square)
        assert 2 * square < gamma + square


def test_samples_needed_give_the_accuracy(sampled):
    assert dimension.samples_needed(100, 0.1) == 1
    assert dimension.samples_needed(10, 0.1) == 10
    assert dimension.samples_needed(10, 0.1, contraction=0.5) == 40
    _, z, x, _, fitted, G = sampled
    gamma = float(G.trace())
    k = dimension.samples_needed(gamma, 0.1)
    means = ((dimension.prediction_form(fitted) + dimension.difference_form(z, x)) / 2)[: DRAWS // k * k].reshape(-1, k).mean(1)
    assert float((means / gamma - 1).square().mean().sqrt()) <= 0.1


def test_draws_differ_from_the_stream_that_initialised_a_network():
    p, _ = problem(torch.Generator().manual_seed(1), 15)
    first = torch.randn(4, 24, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    draws = Draws.of(p, 4, rng=torch.Generator().manual_seed(7))
    assert not torch.isclose(draws.prior, first).any()
    assert torch.equal(draws.prior, Draws.of(p, 4, rng=torch.Generator().manual_seed(7)).prior)
