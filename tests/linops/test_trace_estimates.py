import math

import pytest
import torch
from scipy.stats import binom

from ctuq.errors import CtuqError, InputError
from ctuq.linops import Space
from ctuq.linops.basic import Dense, Diagonal
from ctuq.linops.estimate import diagonal, estimate_of, largest_eigenvalue, log_det, trace
from ctuq.linops.precondition import nystrom

DOUBLE = torch.float64
N = 40
SEEDS = 100


def generator(seed):
    return torch.Generator().manual_seed(1000 + seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def matrix(low, high, n=N):
    basis, _ = torch.linalg.qr(normal(n, n, seed=5))
    K = (basis * torch.logspace(low, high, n, dtype=DOUBLE)) @ basis.T
    return (K + K.T) / 2


def assert_covers(estimates, truth):
    """Intervals of 1.96 errors cover the truth in about 95 of 100 (within the 0.1 % and 99.9 % points), without bias."""
    z = torch.tensor([(e.value - truth) / e.error for e in estimates])
    covered = int((z.abs() <= 1.96).sum())
    low, high = binom.ppf([1e-3, 1 - 1e-3], len(estimates), 0.95)
    assert low <= covered <= high, covered
    assert abs(float(z.mean())) < 3.5 / len(estimates) ** 0.5


@pytest.mark.parametrize("probes", [3, 16])
def test_the_interval_of_the_log_determinant_covers_it_in_95_of_100_seeds(probes):
    K = matrix(-1, 1)
    assert_covers([log_det(Dense(K), rng=generator(s), probes=probes) for s in range(SEEDS)], float(torch.logdet(K)))


def test_the_same_with_probes_from_the_covariance_of_a_preconditioner():
    G, noise = matrix(-4, 4), 0.1
    K = G + noise * torch.eye(N, dtype=DOUBLE)
    P = nystrom(Dense(G), 30, rng=generator(-1)).with_noise(noise)
    estimates = [log_det(Dense(K), rng=generator(s), probes=8, preconditioner=P) for s in range(SEEDS)]
    assert_covers(estimates, float(torch.logdet(K)))
    plain = log_det(Dense(K), rng=generator(0), probes=8)
    assert max(e.error for e in estimates) < plain.error / 5


def test_a_perfect_preconditioner_leaves_no_error():
    G = matrix(-2, 2)
    P = nystrom(Dense(G), rng=generator(0)).with_noise(0.5)
    found = log_det(Dense(G + 0.5 * torch.eye(N, dtype=DOUBLE)), rng=generator(1), probes=2, preconditioner=P)
    assert found.value == pytest.approx(float(torch.logdet(G + 0.5 * torch.eye(N, dtype=DOUBLE))), abs=1e-8)
    assert found.error < 1e-7


def test_the_identity_times_a_number_is_exact_after_a_krylov_space_of_one():
    found = log_det(Dense(3 * torch.eye(N, dtype=DOUBLE)), rng=generator(0), probes=2)
    assert found.value == pytest.approx(N * math.log(3), rel=1e-12)
    assert found.error < 1e-10


def test_as_many_steps_as_unknowns_make_the_quadrature_exact():
    K = matrix(-3, 3, n=6)
    values, vectors = torch.linalg.eigh(K)
    logarithm = (vectors * values.log()) @ vectors.T
    z = Space((6,), DOUBLE).randn(2, rng=generator(3))
    z = z / z.norm(dim=1, keepdim=True)
    found = log_det(Dense(K), rng=generator(3), probes=2)
    assert found.value == pytest.approx(6 * float(((z @ logarithm) * z).sum(1).mean()), rel=1e-8)


def test_rounding_makes_no_false_small_eigenvalues_where_the_preconditioner_is_poor():
    G, noise = matrix(-6, 6, n=100), 1e-4
    K = G + noise * torch.eye(100, dtype=DOUBLE)
    P = nystrom(Dense(G), 3, rng=generator(-1)).with_noise(noise)
    estimates = [log_det(Dense(K), rng=generator(s), probes=4, preconditioner=P) for s in range(5)]
    assert all(abs(e.value - float(torch.logdet(K))) < 3 * e.error for e in estimates)


def test_too_few_steps_widen_the_error_and_warn():
    K = matrix(-3, 3)
    with pytest.warns(UserWarning, match="in its last of 8 steps"):
        found = log_det(Dense(K), rng=generator(0), steps=8, probes=64)
    full = log_det(Dense(K), rng=generator(0), probes=64)
    assert found.error > 2 * full.error
    assert abs(found.value - float(torch.logdet(K))) < 1.96 * found.error


def test_an_operator_that_is_not_positive_definite_has_no_log_determinant():
    K = matrix(0, 1) - 5 * torch.eye(N, dtype=DOUBLE)
    with pytest.raises(CtuqError, match="eigenvalue of -"):
        log_det(Dense(K), rng=generator(0))


@pytest.mark.parametrize("probes", [3, 16])
def test_the_interval_of_the_trace_covers_it_in_95_of_100_seeds(probes):
    A = normal(N, N)
    assert_covers([trace(Dense(A), rng=generator(s), probes=probes) for s in range(SEEDS)], float(A.trace()))


def test_the_diagonal_is_unbiased_within_its_error_and_keeps_the_shape():
    space = Space((8, 5), DOUBLE)
    A = matrix(0, 1)
    value, error = diagonal(Dense(A, space, space), rng=generator(0), probes=400)
    assert value.shape == error.shape == (8, 5)
    z = (value.flatten() - A.diagonal()) / error.flatten()
    assert z.abs().max() < 4
    assert 0.5 < float(z.square().mean()) < 1.8


def test_trace_and_diagonal_of_a_diagonal_operator_are_exact_with_two_probes():
    d = normal(3, 4)
    value, error = diagonal(Diagonal(d), rng=generator(0), probes=2)
    torch.testing.assert_close(value, d)
    assert error.max() < 1e-15
    found = trace(Diagonal(d), rng=generator(0), probes=2)
    assert found.value == pytest.approx(float(d.sum()), rel=1e-12)


@pytest.mark.parametrize("high", [0, 1, 4])
def test_the_largest_eigenvalue_is_met_from_above(high):
    K = matrix(-2, high, n=100)
    for seed in range(5):
        ratio = largest_eigenvalue(Dense(K), rng=generator(seed)) / 10**high
        assert 1 - 1e-9 <= ratio < 1.05


def test_the_largest_eigenvalue_of_a_crowded_spectrum_is_not_missed_by_few_steps():
    K = Diagonal(torch.linspace(0, 1, 300, dtype=DOUBLE))
    found = [largest_eigenvalue(K, rng=generator(seed), steps=8) for seed in range(5)]
    assert 0.99 < min(found) < max(found) < 1.15


def test_few_draws_have_a_wider_error_than_their_spread():
    found = estimate_of(torch.tensor([1.0, 2.0, 6.0]))
    assert found.value == 3.0
    # Student's t with two degrees of freedom: 4.303 instead of 1.96.
    assert found.error == pytest.approx(4.303 / 1.96 * math.sqrt(7 / 3), rel=1e-3)


def test_estimates_depend_on_the_generator_alone():
    K = Dense(matrix(0, 1))
    same = [log_det(K, rng=generator(s), probes=4) for s in (1, 1, 2)]
    assert same[0] == same[1] != same[2]


@pytest.mark.parametrize("function", [trace, diagonal, log_det])
def test_one_probe_and_operators_that_are_not_square_are_refused(function):
    with pytest.raises(InputError, match="at least 2"):
        function(Dense(matrix(0, 1)), rng=generator(0), probes=1)
    with pytest.raises(InputError, match="not square"):
        function(Dense(normal(3, 4)), rng=generator(0), probes=2)
