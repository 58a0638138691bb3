import numpy as np
import pytest
import torch

from ctuq.design.algebra.covariance import low_rank, sampled
from ctuq.errors import InputError

D = 60


def eigenvalues():
    return 0.7 ** torch.arange(D, dtype=torch.float64)


@pytest.fixture
def decaying(rng):
    """A covariance whose eigenvalues fall like 0.7^k."""
    basis = torch.linalg.qr(torch.randn(D, D, generator=rng, dtype=torch.float64))[0]
    return basis @ torch.diag(eigenvalues()) @ basis.T


def test_factor_of_full_rank_is_the_covariance(decaying, rng):
    found = low_rank(lambda x: x @ decaying, D, D, rng=rng, white=0.5)
    S = found.times(torch.eye(D, dtype=torch.float64))
    torch.testing.assert_close(S, decaying + 0.5 * torch.eye(D, dtype=torch.float64), rtol=0, atol=3e-7)


def test_factor_says_what_it_missed_and_puts_it_back(decaying, rng):
    trace, seen = float(decaying.trace()), []
    for _ in range(20):
        found = low_rank(lambda x: x @ decaying, D, 15, rng=rng)
        exact = 1 - float(found.factor.square().sum()) / trace
        seen.append(found.missed / exact)
        assert float(torch.linalg.eigvalsh(decaying - found.factor.T @ found.factor).min()) > -1e-6
        assert float(found.diagonal().sum()) == pytest.approx(trace, rel=2 * exact)
    # Sixteen probes of a remainder in a few directions: a relative error below 1/2 each.
    assert np.mean(seen) == pytest.approx(1, abs=4 * 0.5 / 20**0.5)


def test_nothing_missed_is_said_where_one_direction_dominates(rng):
    spike = torch.zeros(D, D, dtype=torch.float64)
    spike[0, 0], spike[1, 1] = 1e4, 1.0
    assert low_rank(lambda x: x @ spike, D, 10, rng=rng).missed < 1e-12


def test_randomised_factor_is_far_nearer_than_samples(decaying, rng):
    root = torch.linalg.cholesky(decaying + 1e-12 * torch.eye(D, dtype=torch.float64))
    draws = sampled(lambda k: torch.randn(k, D, generator=rng, dtype=torch.float64) @ root.T, 30)
    errors = [
        float((f.factor.T @ f.factor - decaying).norm()) for f in (low_rank(lambda x: x @ decaying, D, 30, rng=rng), draws)
    ]
    assert errors[0] < 1e-2 * errors[1]


def test_samples_are_unbiased(decaying, rng):
    root = torch.linalg.cholesky(decaying + 1e-12 * torch.eye(D, dtype=torch.float64))
    n = 4000
    found = sampled(lambda k: torch.randn(k, D, generator=rng, dtype=torch.float64) @ root.T, n, white=0.25)
    z = (found.diagonal() - 0.25 - decaying.diagonal()) / (decaying.diagonal() * (2 / n) ** 0.5)
    assert float(z.abs().max()) < 4.5


def test_impossible_ranks_are_refused(decaying, rng):
    for rank in (0, D + 1):
        with pytest.raises(InputError, match="rank"):
            low_rank(lambda x: x @ decaying, D, rank, rng=rng)
    with pytest.raises(InputError, match="samples"):
        sampled(lambda k: torch.zeros(k, D), 0)
