import math

import pytest
import torch

from ctuq.errors import InputError
from ctuq.laplace.predictive import (
    GaussianPrediction,
    log_likelihoods,
    monte_carlo,
    probit,
    sample_covariance,
)
from ctuq.laplace.tangent.likelihoods import Bernoulli, Categorical

D = 3


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
    with pytest.raises(InputError, match="class indices"):
        log_likelihoods(Categorical(), samples, ones)
