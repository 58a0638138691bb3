import pytest
import scipy.stats
import torch
from linear_models import ONE, TWO, Exact, normal, point, problem

from ctuq.laplace.system.problem import System
from ctuq.laplace.system.sampling import Draws, condition
from ctuq.linops.solve import CG, Cholesky

GROUPS = torch.arange(30) % 3


def optimum(exact, prior, at, draws, groups):
    """The minimiser of the randomised loss in weight space, by its normal equations."""
    noise = at.sigma2[0].expand(len(exact.t)) if groups is None else at.sigma2[groups]
    Sigma = prior.covariance(torch.eye(24, dtype=torch.float64), at.psi)
    prior_draw = prior.root(draws.prior, at.psi)
    e = noise.sqrt() * draws.noise
    precision = exact.H.T @ (exact.H / noise[:, None]) + torch.linalg.inv(Sigma)
    right = (e / noise) @ exact.H + prior_draw @ torch.linalg.inv(Sigma)
    return torch.linalg.solve(precision, right.T).T


@pytest.mark.parametrize("n", [15, 30])
@pytest.mark.parametrize("solver", [Cholesky(), CG(rtol=1e-13)])
@pytest.mark.parametrize("grouped", [False, True])
def test_all_forms_of_a_sample_are_one_for_the_same_noise(n, solver, grouped, rng):
    groups = GROUPS[:n] if grouped else None
    p, matrix = problem(rng, n, groups=groups)
    at = point([0.3, -0.5], [0.2, 0.5, 1.1] if grouped else [0.3])
    system = System(p, TWO, at)
    assert system.is_dual == (n == 15)
    exact = Exact.of(p, matrix, TWO, at.psi, at.sigma2)
    draws = Draws(normal(rng, 4, 24), normal(rng, 4, n), None)
    found = condition(system, draws, solver)
    expected = optimum(exact, TWO, at, draws, groups)
    torch.testing.assert_close(found.samples, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.mode.weights, exact.mode, rtol=1e-10, atol=1e-10)
    fitted = (expected @ matrix.T).square() / (at.sigma2[groups] if grouped else at.sigma2)
    torch.testing.assert_close(found.squares, p.by_group(fitted), rtol=1e-9, atol=1e-9)
    Sigma = TWO.covariance(torch.eye(24, dtype=torch.float64), at.psi)
    pulled = torch.linalg.solve(Sigma, (expected - TWO.root(draws.prior, at.psi)).T).T
    torch.testing.assert_close(found.pull, pulled, rtol=1e-9, atol=1e-9)
    assert found.gap < 1e-9


def test_mini_batches_give_the_sample_of_all_data(rng):
    p, matrix = problem(rng, 30, 2, groups=torch.arange(60).reshape(30, 2) % 3, batch=8)
    at = point([0.3, -0.5], [0.2, 0.5, 1.1])
    draws = Draws.of(p, 5, rng=rng)
    assert draws.noise is None
    found = condition(System(p, TWO, at), draws, Cholesky())
    exact = Exact.of(p, matrix, TWO, at.psi, at.sigma2)
    precision = torch.linalg.inv(exact.S)
    right = torch.tensordot(at.sigma2.rsqrt(), draws.pulled, 1) + TWO.precision(TWO.root(draws.prior, at.psi), at.psi)
    torch.testing.assert_close(found.samples, torch.linalg.solve(precision, right.T).T, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.mode.weights, exact.mode, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("n", "batch"), [(15, None), (40, None), (40, 7)])
def test_samples_have_the_exact_covariance(n, batch, rng):
    groups = torch.arange(n) % 2
    p, matrix = problem(rng, n, groups=groups, batch=batch)
    at = point([0.3], [0.2, 0.6])
    draws = Draws.of(p, 3000, rng=rng)
    found = condition(System(p, ONE, at), draws, Cholesky(), with_mode=False)
    S = Exact.of(p, matrix, ONE, at.psi, at.sigma2).S
    distances = (found.samples * torch.linalg.solve(S, found.samples.T).T).sum(1)
    assert scipy.stats.kstest(distances.numpy(), "chi2", args=(24,)).pvalue > 1e-3
    # Wishart: a quadratic form of the summed squares along any direction is chi-square with as many degrees as draws.
    directions = normal(rng, 24, 24)
    sums = (found.samples @ directions.T).square().sum(0) / ((directions @ S) * directions).sum(1)
    tails = scipy.stats.chi2.cdf(sums.numpy(), 3000)
    assert (abs(tails - 0.5) < 0.5 - 1e-4).all()
    assert abs(float(distances.sum()) / (24 * 3000) - 1) < 4 * (2 / (24 * 3000)) ** 0.5


def test_one_solve_starts_where_the_last_one_ended(rng):
    p, _ = problem(rng, 15)
    draws = Draws.of(p, 4, rng=rng)
    first = condition(System(p, ONE, point([0.0], [0.3])), draws, CG(rtol=1e-8))
    near = System(p, ONE, point([0.01], [0.3]))
    assert condition(near, draws, CG(rtol=1e-3), start=first.solution).steps < condition(near, draws, CG(rtol=1e-3)).steps
    assert condition(System(p, ONE, point([0.0], [0.3])), draws, CG(rtol=1e-7), start=first.solution).steps == 0


def test_gap_tells_a_solve_that_is_not_exact(rng):
    p, _ = problem(rng, 15)
    draws = Draws.of(p, 4, rng=rng)
    with pytest.warns(UserWarning, match="CG"):
        assert condition(System(p, ONE, point([2.0], [0.01])), draws, CG(max_steps=3)).gap > 0.01


def test_draws_differ_from_the_stream_that_initialised_a_network():
    p, _ = problem(torch.Generator().manual_seed(1), 15)
    first = torch.randn(4, 24, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    draws = Draws.of(p, 4, rng=torch.Generator().manual_seed(7))
    assert not torch.isclose(draws.prior, first).any()
    assert torch.equal(draws.prior, Draws.of(p, 4, rng=torch.Generator().manual_seed(7)).prior)
