import pytest
import torch
from linear_models import TWO, normal

from ctuq.laplace import FilterProcess
from ctuq.laplace.priors.sensitivity import derivative_traces, derivatives, pair_products
from ctuq.linops.jacobian.network import WeightBlock

FILTERS = FilterProcess((WeightBlock("a", slice(0, 18), (2, 1, 3, 3)), WeightBlock("b", slice(18, 24), (6, 1, 1, 1))))


@pytest.mark.parametrize("prior", [TWO, FILTERS])
def test_derivatives_are_those_of_the_covariance(prior, rng):
    psi = 0.4 * normal(rng, len(prior.names))
    U = normal(rng, 3, 24)
    images = torch.stack(list(derivatives(prior, psi, U)))
    for i, image in enumerate(images):
        step = 1e-5 * torch.eye(len(psi), dtype=torch.float64)[i]
        slope = (prior.covariance(U, psi + step) - prior.covariance(U, psi - step)) / 2e-5
        torch.testing.assert_close(image, slope, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(pair_products(prior, psi, U), torch.einsum("jp,ilp->ijl", U, images))
    M = normal(rng, 24, 24)
    traces = torch.stack([(M @ D).trace() for D in derivatives(prior, psi, torch.eye(24, dtype=torch.float64))])
    torch.testing.assert_close(derivative_traces(prior, psi, M), traces)


def test_lengthscales_are_exact_to_ten_digits(rng):
    psi = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    kernel = torch.func.jacfwd(lambda x: FILTERS.kernel(x, 0))(psi)[..., 2]
    U = normal(rng, 3, 24)
    expected = torch.zeros_like(U)
    expected[:, :18] = (U[:, :18].reshape(3, 2, 9) @ kernel).reshape(3, 18)
    torch.testing.assert_close(list(derivatives(FILTERS, psi, U))[2], expected, rtol=1e-10, atol=1e-11)
