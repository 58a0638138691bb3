import math

import pytest
import torch

from ctuq.errors import InputError
from ctuq.laplace.predict import (
    GaussianPrediction,
    exact_covariance,
    gaussian_log_likelihoods,
    log_likelihoods,
    monte_carlo,
    probit,
    sample_covariance,
)
from ctuq.laplace.priors.diagonal import DiagonalPrior, FilterProcess
from ctuq.laplace.tangent.likelihoods import Bernoulli, Categorical
from ctuq.linops.jacobian.network import Block

P, D = 22, 3


def priors(rng):
    diagonal = torch.rand(P, generator=rng, dtype=torch.float64)
    diagonal[4] = 0
    blocks = (Block("a", slice(0, 18), (2, 1, 3, 3)), Block("b", slice(18, P), (2, 2, 1, 1)))
    return {
        "diagonal": (DiagonalPrior(("a", "b"), (slice(0, 7), slice(7, P)), diagonal), torch.tensor([0.3, -0.4]).double()),
        "filter": (FilterProcess(blocks), torch.tensor([0.3, -0.4, 0.2]).double()),
    }


@pytest.mark.parametrize("kind", ["diagonal", "filter"])
@pytest.mark.parametrize("m", [9, 40])
def test_exact_covariance_is_that_of_the_conditioned_gaussian(kind, m, rng):
    prior, psi = priors(rng)[kind]
    H = torch.randn(m, P, generator=rng, dtype=torch.float64)
    J = torch.randn(4, D, P, generator=rng, dtype=torch.float64)
    noise = torch.rand(m, generator=rng, dtype=torch.float64) + 0.1
    sigma = prior.covariance(torch.eye(P, dtype=torch.float64), psi)
    gain = sigma @ H.T @ torch.linalg.inv(H @ sigma @ H.T + torch.diag(noise))
    truth = J @ (sigma - gain @ H @ sigma) @ J.mT
    torch.testing.assert_close(exact_covariance(J, H, prior, psi, noise), truth, rtol=1e-9, atol=1e-11)


def test_log_density_is_that_of_the_joint_normal_and_std_its_diagonal(rng):
    half = torch.randn(5, D, D, generator=rng, dtype=torch.float64)
    mean, y = torch.randn(2, 5, D, generator=rng, dtype=torch.float64)
    noise = torch.rand(5, D, generator=rng, dtype=torch.float64)
    prediction = GaussianPrediction(mean, half @ half.mT, noise)
    joint = torch.distributions.MultivariateNormal(mean, half @ half.mT + torch.diag_embed(noise))
    torch.testing.assert_close(prediction.log_density(y), joint.log_prob(y))
    torch.testing.assert_close(prediction.total_std, joint.variance.sqrt())
    torch.testing.assert_close(prediction.std, (joint.variance - noise).sqrt())


def test_samples_have_the_mean_and_covariance_even_where_that_is_singular(rng):
    root = torch.randn(2, D, 1, generator=rng, dtype=torch.float64)
    covariance = root @ root.mT
    mean, k = torch.randn(2, D, generator=rng, dtype=torch.float64), 20000
    draws = GaussianPrediction(mean, covariance, torch.zeros(2, D).double()).samples(k, rng=rng)
    z = (draws.mean(0) - mean) / (covariance.diagonal(dim1=1, dim2=2) / k).sqrt()
    assert float(z.abs().max()) < 4.5
    variances = covariance.diagonal(dim1=1, dim2=2)
    spread = ((covariance**2 + variances[:, :, None] * variances[:, None]) / k).sqrt()
    assert float(((sample_covariance(draws - mean) - covariance) / spread).abs().max()) < 4.5


def test_monte_carlo_is_the_mean_of_the_probabilities(rng):
    samples = torch.randn(6, 5, 4, generator=rng)
    torch.testing.assert_close(monte_carlo(Categorical(), samples), samples.softmax(2).mean(0))
    torch.testing.assert_close(monte_carlo(Bernoulli(), samples), samples.sigmoid().mean(0))
    images = torch.randn(6, 5, 4, 2, 3, generator=rng)
    torch.testing.assert_close(monte_carlo(Categorical(), images), images.softmax(2).mean(0))


def test_probit_is_close_to_the_mean_of_the_logistic_function():
    mean, variance = torch.tensor([[-2.0], [0.0], [0.5], [3.0]]).double(), torch.tensor([[0.3], [4.0], [9.0], [2.0]]).double()
    nodes = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    density = torch.exp(-0.5 * nodes**2) / math.sqrt(2 * math.pi) * (nodes[1] - nodes[0])
    truth = ((mean + variance.sqrt() * nodes).sigmoid() * density).sum(1, keepdim=True)
    torch.testing.assert_close(probit(Bernoulli(), mean, variance), truth, rtol=0, atol=0.02)
    # Scaling by 1 + pi / 2 variance instead, a misprint of the literature, misses by more.
    assert float(((mean / (1 + math.pi / 2 * variance).sqrt()).sigmoid() - truth).abs().max()) > 0.05


def test_probit_without_variance_is_the_network_and_flattens_with_it(rng):
    logits = 3 * torch.randn(5, 4, generator=rng)
    torch.testing.assert_close(probit(Categorical(), logits, torch.zeros(5, 4)), logits.softmax(1))
    assert bool((probit(Categorical(), logits, torch.full((5, 4), 9.0)).max(1).values < logits.softmax(1).max(1).values).all())
    with pytest.raises(InputError, match="negative"):
        probit(Categorical(), logits, torch.full((5, 4), -1e-3))


def test_log_likelihoods_are_those_of_each_draw_and_datum(rng):
    samples = torch.randn(6, 5, 4, generator=rng, dtype=torch.float64)
    classes, ones = torch.randint(0, 4, (5,), generator=rng), torch.randint(0, 2, (5, 4), generator=rng)
    truth = samples.log_softmax(2)[:, torch.arange(5), classes]
    torch.testing.assert_close(log_likelihoods(Categorical(), samples, classes), truth)
    p = samples.sigmoid()
    torch.testing.assert_close(log_likelihoods(Bernoulli(), samples, ones), torch.where(ones == 1, p, 1 - p).log().sum(2))
    y, noise = torch.randn(5, 4, generator=rng, dtype=torch.float64), torch.tensor([0.1, 0.2, 0.3, 0.4])
    normal = torch.distributions.Normal(samples, noise.double().sqrt()).log_prob(y).sum(2)
    torch.testing.assert_close(gaussian_log_likelihoods(samples, y, noise), normal, rtol=1e-6, atol=1e-6)
    with pytest.raises(InputError, match="class indices"):
        log_likelihoods(Categorical(), samples, ones)
