import math

import numpy as np
import pytest
import scipy.integrate
import torch

from ctuq.laplace import DiagonalPrior, FilterProcess, VariationPrior
from ctuq.laplace.priors.variation import mean_absolute
from ctuq.linops.jacobian.network import WeightBlock

TWO = DiagonalPrior(("a", "b"), (slice(0, 3), slice(3, 5)))
FILTERS = FilterProcess((WeightBlock("a", slice(0, 18), (2, 1, 3, 3)), WeightBlock("b", slice(18, 20), (2, 1, 1, 1))))


def variation(prior, owners, rng, strength=0.2):
    variances = torch.rand(len(owners), 12, generator=rng, dtype=torch.float64)
    return VariationPrior(prior, variances, torch.randn(12, generator=rng, dtype=torch.float64), owners, strength)


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (0.3, 0.7), (-2.0, 0.5), (1.0, 1e-3)])
def test_mean_absolute_is_the_integral(mean, sd):
    def weighted(z):
        return abs(mean + sd * z) * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)

    kink = min(max(-mean / sd, -10), 10)
    exact = sum(scipy.integrate.quad(weighted, a, b)[0] for a, b in ((-10, kink), (kink, 10)))
    value = mean_absolute(torch.tensor(mean, dtype=torch.float64), torch.tensor(sd, dtype=torch.float64))
    assert float(value) == pytest.approx(exact, rel=1e-8)


def test_mean_absolute_is_the_mean_of_draws(rng):
    mean, sd = torch.tensor([0.4, -1.0], dtype=torch.float64), torch.tensor([1.0, 0.3], dtype=torch.float64)
    draws = (mean + sd * torch.randn(100_000, 2, generator=rng, dtype=torch.float64)).abs()
    error = draws.std(0) / math.sqrt(len(draws))
    assert bool(((draws.mean(0) - mean_absolute(mean, sd)).abs() < 4 * error).all())


def test_mean_absolute_without_variance_is_the_absolute_mean():
    assert float(mean_absolute(torch.tensor(-1.5), torch.tensor(0.0))) == 1.5


@pytest.mark.parametrize(("prior", "owners"), [(TWO, [0, 1]), (FILTERS, [0] * 6 + [1])])
def test_gradient_of_the_log_prior(prior, owners, rng):
    hyper = variation(prior, owners, rng)
    psi = 0.5 * torch.randn(len(prior.names), generator=rng, dtype=torch.float64)
    assert torch.autograd.gradcheck(hyper, (psi.requires_grad_(True),))


def test_expected_variation_rises_with_every_variance(rng):
    hyper = variation(TWO, [0, 1], rng)
    kappas = torch.stack([hyper.expected_variation(torch.full((2,), v, dtype=torch.float64)) for v in range(-8, 6)])
    assert bool((kappas.diff(dim=0) > 0).all())
    torch.testing.assert_close(kappas[0], hyper.means.abs().sum().expand(2), rtol=1e-3, atol=0)


def test_density_over_one_variance_integrates_to_the_tail_of_the_exponential(rng):
    prior = DiagonalPrior(("all",), (slice(0, 5),))
    hyper = variation(prior, [0], rng)
    psi = np.linspace(-30, 12, 841)
    density = [math.exp(hyper(torch.tensor([v], dtype=torch.float64)).item()) for v in psi]
    least = 0.2 * float(hyper.means.abs().sum())
    assert scipy.integrate.trapezoid(density, psi) == pytest.approx(math.exp(-least), rel=1e-3)


def test_differences_that_cannot_vary_leave_value_and_gradient_finite(rng):
    hyper = variation(TWO, [0, 1], rng)
    hyper.variances[0, :4] = 0
    psi = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    value = hyper(psi)
    (gradient,) = torch.autograd.grad(value, psi)
    assert bool(value.isfinite()) and bool(gradient.isfinite().all())
