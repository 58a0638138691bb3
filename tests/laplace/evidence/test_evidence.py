import numpy as np
import pytest
import scipy.optimize
import torch
from scipy.stats import multivariate_normal

from ctuq.errors import CtuqError
from ctuq.laplace import DiagonalPrior, FilterProcess, VariationPrior, log_evidence, maximise_dense
from ctuq.linops.jacobian.network import Block

BLOCKS = (Block("a", slice(0, 18), (2, 1, 3, 3)), Block("b", slice(18, 20), (2, 1, 1, 1)))
TWO = DiagonalPrior(("a", "b"), (slice(0, 18), slice(18, 20)))
ONE = DiagonalPrior(("all",), (slice(0, 20),))


def problem(prior, rng, m=24):
    """Components, target, Gram matrix of a white misfit, and relative noise variances."""
    features = torch.randn(m, 20, generator=rng, dtype=torch.float64)
    rays = torch.randn(m, 30, generator=rng, dtype=torch.float64)
    noise = 0.5 + torch.rand(m, generator=rng, dtype=torch.float64)
    t = features @ torch.randn(20, generator=rng, dtype=torch.float64)
    t = t + 0.2 * rays @ torch.randn(30, generator=rng, dtype=torch.float64)
    t = t + 0.7 * noise.sqrt() * torch.randn(m, generator=rng, dtype=torch.float64)
    return torch.stack(list(prior.components(features))), t, rays @ rays.T, noise


def density(x, components, t, prior, white, noise):
    """log N(t | 0, K) by scipy from the log hyperparameters."""
    a = prior.coefficients(torch.from_numpy(np.asarray(x)[: len(prior.names)])).numpy()
    K = np.tensordot(a, components.numpy(), 1) + np.exp(x[-1]) * np.diag(noise.numpy())
    if white is not None:
        K = K + np.exp(x[-2]) * white.numpy()
    return multivariate_normal.logpdf(t.numpy(), cov=K)


def test_log_evidence_is_the_normal_density(rng):
    root = torch.randn(9, 12, generator=rng, dtype=torch.float64)
    t = torch.randn(9, generator=rng, dtype=torch.float64)
    K = root @ root.T
    value, L, a = log_evidence(K, t)
    assert value == pytest.approx(multivariate_normal.logpdf(t.numpy(), cov=K.numpy()), rel=1e-10)
    torch.testing.assert_close(L @ L.T, K)
    torch.testing.assert_close(K @ a, t)


def test_covariance_that_is_not_positive_definite_is_refused():
    K = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    with pytest.raises(CtuqError, match="not positive definite"):
        log_evidence(K, torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("with_hyperprior", [False, True])
def test_gradient_is_that_of_the_objective(monkeypatch, rng, with_hyperprior):
    prior = FilterProcess(BLOCKS)
    components, t, white, noise = problem(prior, rng)
    variances = torch.rand(7, 10, generator=rng, dtype=torch.float64)
    hyperprior = VariationPrior(prior, variances, torch.randn(10, generator=rng, dtype=torch.float64), [0] * 6 + [1], 0.1)
    caught = {}

    def catch(objective, start, **_):
        caught["objective"], caught["start"] = objective, start
        return scipy.optimize.OptimizeResult(x=start, fun=objective(start)[0], success=True)

    monkeypatch.setattr("ctuq.laplace.evidence.exact.scipy.optimize.minimize", catch)
    maximise_dense(components, t, prior, misfits=[white], noise=noise, log_hyperprior=hyperprior if with_hyperprior else None)
    objective = caught["objective"]
    for _ in range(3):
        x = caught["start"] + torch.randn(len(caught["start"]), generator=rng, dtype=torch.float64).numpy()
        slopes = []
        for i in range(len(x)):
            step = 1e-5 * np.eye(len(x))[i]
            slopes.append((objective(x + step)[0] - objective(x - step)[0]) / 2e-5)
        np.testing.assert_allclose(objective(x)[1], slopes, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prior", [ONE, TWO])
@pytest.mark.parametrize("with_white", [False, True])
def test_maximum_is_that_of_a_search_without_derivatives(prior, with_white, rng):
    components, t, white, noise = problem(prior, rng)
    white = white if with_white else None
    found = maximise_dense(components, t, prior, misfits=[white] if with_white else [], noise=noise)
    count = len(prior.names) + 1 + with_white
    starts = [np.full(count, s) for s in (-2.0, 0.0)]

    def loss(x):
        return -density(np.maximum(x, -12), components, t, prior, white, noise)

    options = {"maxiter": 4000, "maxfev": 4000, "xatol": 1e-6, "fatol": 1e-9}
    best = min((scipy.optimize.minimize(loss, x, method="Nelder-Mead", options=options) for x in starts), key=lambda f: f.fun)
    assert found.converged
    assert found.value == pytest.approx(-best.fun, abs=1e-4)
    at = np.concatenate([found.psi.numpy(), np.log(found.floors), np.log([found.sigma2])])
    assert found.value == pytest.approx(density(at, components, t, prior, white, noise), rel=1e-9)


def whitened(K, t, noise):
    """Eigenvalues of a covariance whitened by the noise, and the target along its eigenvectors."""
    root = noise.rsqrt()
    eigenvalues, vectors = np.linalg.eigh((K * root * root[:, None]).numpy())
    return np.maximum(eigenvalues, 0), vectors.T @ (t * root).numpy()


def test_one_variance_is_found_where_a_grid_says(rng):
    components, t, _, noise = problem(ONE, rng)
    found = maximise_dense(components, t, ONE, noise=noise)
    grid = np.linspace(-3, 3, 121)
    eigenvalues, turned = whitened(components[0], t, noise)
    v = np.exp(grid)[:, None, None] * eigenvalues + np.exp(grid)[None, :, None]
    values = -0.5 * (np.log(2 * np.pi * v) + turned**2 / v).sum(-1) - 0.5 * float(noise.log().sum())
    assert values[40, 60] == pytest.approx(density([grid[40], grid[60]], components, t, ONE, None, noise), rel=1e-9)
    i, j = np.unravel_index(values.argmax(), values.shape)
    assert found.value >= values.max()
    assert float(found.psi[0]) == pytest.approx(grid[i], abs=0.06)
    assert np.log(found.sigma2) == pytest.approx(grid[j], abs=0.06)


def test_noise_of_each_observation_equals_the_whitened_problem(rng):
    components, t, white, noise = problem(TWO, rng)
    root = noise.rsqrt()
    found = maximise_dense(components, t, TWO, misfits=[white], noise=noise)
    whitened = maximise_dense(components * root * root[:, None], t * root, TWO, misfits=[white * root * root[:, None]])
    assert found.value == pytest.approx(whitened.value - 0.5 * float(noise.log().sum()), abs=1e-4)
    assert found.sigma2 == pytest.approx(whitened.sigma2, rel=1e-2)
    torch.testing.assert_close(found.psi, whitened.psi, rtol=0, atol=1e-2)


def test_value_leaves_the_hyperprior_out(rng):
    components, t, _, noise = problem(ONE, rng)
    found = maximise_dense(components, t, ONE, noise=noise, log_hyperprior=lambda psi: -5 * (psi - 1).square().sum())
    free = maximise_dense(components, t, ONE, noise=noise)
    at = [float(found.psi[0]), np.log(found.sigma2)]
    assert found.value == pytest.approx(density(at, components, t, ONE, None, noise), rel=1e-9)
    assert abs(float(found.psi[0]) - 1) < abs(float(free.psi[0]) - 1)


def test_too_few_steps_are_reported(rng):
    components, t, _, noise = problem(TWO, rng)
    assert not maximise_dense(components, t, TWO, noise=noise, steps=1).converged


def test_component_without_features_keeps_a_finite_variance(rng):
    components, t, _, noise = problem(TWO, rng)
    components[1] = 0
    found = maximise_dense(components, t, TWO, noise=noise)
    assert float(found.psi[1].exp()) < 1e30
    alone = maximise_dense(components[:1], t, ONE, noise=noise)
    assert found.value == pytest.approx(alone.value, abs=1e-4)


def test_hyperparameters_are_named(rng):
    components, t, _, noise = problem(TWO, rng)
    found = maximise_dense(components, t, TWO, noise=noise)
    assert found.named(TWO) == pytest.approx({"a": float(found.psi[0].exp()), "b": float(found.psi[1].exp())})
