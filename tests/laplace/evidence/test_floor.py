import math

import numpy as np
import pytest
import torch

from ctuq.laplace.evidence.exact import expected_floor
from ctuq.linops.gaussian import log_evidence

LOWEST = 1e-8


def problem(floor, rng, m=40):
    """Noise covariance of variance 0.01, Gram matrix of a misfit, and a target of both."""
    rays = torch.randn(m, 30, generator=rng, dtype=torch.float64)
    K = 0.01 * torch.eye(m, dtype=torch.float64)
    t = math.sqrt(floor) * rays @ torch.randn(30, generator=rng, dtype=torch.float64)
    return K, rays @ rays.T, t + 0.1 * torch.randn(m, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("floor", [0.0, 1e-4, 0.3])
def test_floor_is_the_posterior_mean_under_a_log_uniform_prior(floor, rng):
    K, white, t = problem(floor, rng)
    logs = np.linspace(math.log(LOWEST), math.log(100), 800)
    values = np.array([log_evidence(K + math.exp(x) * white, t)[0] for x in logs])
    weights = np.exp(values - values.max())
    exact = float(weights @ np.exp(logs) / weights.sum())
    # The floors are tried in steps of a factor of 3: where the data show the floor, its mean is known to half a step.
    assert exact / math.sqrt(3) < expected_floor(K, white, t, LOWEST) < exact * math.sqrt(3)


def test_floor_that_the_data_show_is_found(rng):
    assert expected_floor(*problem(0.3, rng), LOWEST) == pytest.approx(0.3, rel=0.5)


def test_floor_that_the_data_do_not_show_is_between_rounding_and_noise(rng):
    assert LOWEST < expected_floor(*problem(0.0, rng), LOWEST) < 0.01
