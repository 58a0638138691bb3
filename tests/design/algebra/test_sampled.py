"""Prior samples in place of the exact covariance: what they choose, and by how much their scores are off."""

import pytest
import torch
from brute import matrices

from ctuq.design import EIG, ESE, DenseCovariance
from ctuq.design.algebra.conditioning import GivenViews
from ctuq.design.algebra.covariance import sampled

PICKS = 4


@pytest.fixture
def scored(rows, precision):
    """The problem before any view is measured, from a covariance."""
    return lambda covariance: GivenViews.start(rows, covariance, precision)


@pytest.fixture
def draw(S, rng):
    """Samples of the prior, (k, d)."""
    root = torch.linalg.cholesky(S)
    return lambda k: torch.randn(k, len(S), generator=rng, dtype=torch.float64) @ root.T


def picks(given, criterion):
    """The best of the views that are left, one after the other."""
    for _ in range(PICKS):
        scores = criterion(given).clone()
        scores[list(given.views)] = -torch.inf
        given = given.given(int(scores.argmax()))
    return given.views


def test_many_samples_choose_what_the_exact_covariance_chooses(scored, S, draw):
    for criterion in (EIG, ESE):
        exact, many = (picks(scored(of), criterion) for of in (DenseCovariance(S), sampled(draw, 20_000)))
        assert tuple(many) == tuple(exact)


def test_sampled_information_is_too_low_by_what_the_algebra_says(scored, rows, S, precision, draw):
    n, repeats = 400, 400
    exact = EIG(scored(DenseCovariance(S)))
    errors = torch.stack([EIG(scored(sampled(draw, n))) - exact for _ in range(repeats)])
    expected = []
    for v, A in enumerate(matrices(rows)):
        # With B = D^1/2 A S A^T D^1/2 and P = (I + B)^-1 B, the sampled log det is short by (tr P^2 + (tr P)^2) / 2n.
        root = precision[v].sqrt()[:, None] * A
        B = root @ S @ root.T
        P = torch.linalg.solve(torch.eye(len(B), dtype=torch.float64) + B, B)
        expected.append(-float((P @ P).trace() + P.trace() ** 2) / (4 * n))
    expected = torch.tensor(expected)
    error = errors.std(0) / repeats**0.5
    assert float(((errors.mean(0) - expected) / error).abs().max()) < 4
    assert float((errors.mean(0) / error).max()) < -4


def test_sampled_squared_error_is_unbiased(scored, S, draw):
    exact = ESE(scored(DenseCovariance(S)))
    errors = torch.stack([ESE(scored(sampled(draw, 50))) - exact for _ in range(60)])
    assert float((errors.mean(0) / (errors.std(0) / 60**0.5)).abs().max()) < 4
