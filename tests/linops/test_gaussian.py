import numpy as np
import pytest
import scipy.stats
import torch

from ctuq.errors import CtuqError
from ctuq.laplace import Conditioning, DensePosterior, PathwisePosterior
from ctuq.linops.gaussian import stable_cholesky

DRAWS = 2000


@pytest.fixture
def model(rng):
    """Outputs G theta of 12 values seen through 9 noisy rays A, theta of 30 standard normal weights."""
    G = torch.randn(12, 30, generator=rng, dtype=torch.float64)
    A = torch.randn(9, 12, generator=rng, dtype=torch.float64)
    noise = 0.5 + torch.rand(9, generator=rng, dtype=torch.float64)
    return G, A, noise


def exact(model):
    G, A, noise = model
    S = G @ G.T
    return torch.linalg.inv(torch.linalg.inv(S) + A.T @ (A / noise[:, None]))


def dense(model):
    G, A, noise = model
    S = G @ G.T
    return DensePosterior(Conditioning.of(A @ S @ A.T, noise).predict(S @ A.T, S), (3, 4))


def pathwise(model, draws=DRAWS):
    G, A, noise = model
    H = A @ G

    def draw(n, rng):
        theta = torch.randn(n, 30, generator=rng, dtype=torch.float64)
        return theta, theta @ H.T + noise.sqrt() * torch.randn(n, 9, generator=rng, dtype=torch.float64)

    return PathwisePosterior(
        Conditioning.of(H @ H.T, noise), draw, lambda delta: delta @ H, lambda theta: (theta @ G.T).reshape(-1, 3, 4), draws
    )


def test_prediction_is_the_conditional_covariance(model):
    posterior = dense(model)
    torch.testing.assert_close(posterior.covariance, exact(model), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(posterior.std().flatten().square(), exact(model).diagonal())


def test_solve_inverts_each_row(model, rng):
    _, A, noise = model
    given = Conditioning.of(A @ A.T, noise)
    rows = torch.randn(4, 9, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(given.solve(rows) @ given.K, rows)


def test_leaving_a_group_out_is_a_fit_without_it(model, rng):
    G, A, noise = model
    S = A @ G @ G.T @ A.T
    K = S + torch.diag(noise)
    t = torch.randn(9, generator=rng, dtype=torch.float64)
    groups = torch.tensor([0, 0, 0, 3, 3, 7, 0, 7, 7])
    residual, variance = Conditioning.of(S, noise).leave_out(t, groups)
    for group in (0, 3, 7):
        out, rest = (groups == group).nonzero()[:, 0], (groups != group).nonzero()[:, 0]
        gain = K[out][:, rest] @ torch.linalg.inv(K[rest][:, rest])
        torch.testing.assert_close(residual[out], t[out] - gain @ t[rest])
        torch.testing.assert_close(variance[out], (K[out][:, out] - gain @ K[rest][:, out]).diagonal())


@pytest.mark.parametrize("make", [dense, pathwise])
def test_draws_have_the_exact_covariance(make, model, rng):
    S = exact(model).numpy()
    draws = make(model).deviations(DRAWS, rng=rng).double().numpy()
    assert draws.shape == (DRAWS, 3, 4)
    Z = draws.reshape(DRAWS, 12)
    distances = (Z @ np.linalg.inv(S) * Z).sum(1)
    assert scipy.stats.kstest(distances, scipy.stats.chi2(12).cdf).pvalue > 1e-3
    # Of a Wishart matrix: E |Z'Z / n - S|^2 = (|S|^2 + tr(S)^2) / n.
    miss = np.linalg.norm(Z.T @ Z / DRAWS - S) ** 2
    assert 1 / 3 < miss / ((np.linalg.norm(S) ** 2 + np.trace(S) ** 2) / DRAWS) < 3


@pytest.mark.parametrize("make", [dense, pathwise])
def test_draws_repeat_with_the_seed(make, model):
    first, second = (make(model).deviations(40, rng=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_batches_of_draws_differ(model, rng):
    draws = pathwise(model).deviations(64, rng=rng)
    assert not torch.equal(draws[:32], draws[32:])


def test_error_of_a_sampled_deviation(model):
    assert dense(model).error == 0
    posterior = pathwise(model, draws=50)
    assert posterior.error == pytest.approx(0.1)
    stds = [
        posterior.deviations(50, rng=torch.Generator().manual_seed(i)).square().mean(0).sqrt().flatten() for i in range(200)
    ]
    measured = torch.stack(stds).std(0) / exact(model).diagonal().sqrt()
    assert float(measured.mean()) == pytest.approx(0.1, rel=0.1)


def test_semi_definite_covariance_has_a_factor(rng):
    root = torch.randn(8, 3, generator=rng, dtype=torch.float64)
    L = stable_cholesky(root @ root.T)
    torch.testing.assert_close(L @ L.T, root @ root.T)


def test_indefinite_covariance_is_refused():
    with pytest.raises(CtuqError, match="indefinite"):
        stable_cholesky(torch.diag(torch.tensor([1.0, -1e-3], dtype=torch.float64)))
