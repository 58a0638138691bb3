import pytest
import scipy.stats
import torch
from linear_models import normal
from trained_networks import Sums, trained

from ctuq import laplace
from ctuq.errors import InputError

SOLVERS = ["cholesky", "cg", "sgd", "sdd"]


@pytest.fixture(scope="module")
def fitted():
    net, x, f = trained(2)
    y = f + 0.3 * normal(torch.Generator().manual_seed(9), *f.shape)
    model = laplace.linearise(net, x[:30], offset="taylor", likelihood=laplace.Gaussian(groups=torch.arange(2)))
    return laplace.maximise_evidence(model, y[:30], with_sweep=False), x[40:46], y[40:46]


@pytest.fixture(scope="module")
def classified():
    net, x, f = trained(3)
    model = laplace.linearise(net, x[:30], likelihood=laplace.Categorical())
    return laplace.maximise_evidence(model, f[:30].argmax(1), with_sweep=False), x[40:46]


def exact(fit, inputs):
    """Dense posterior covariance of the flat outputs at the inputs."""
    H, J = fit.model.features.dense(), fit.model.at(inputs)[1].dense()
    noise = fit.sigma2.expand(len(H)) if fit.problem.groups is None else fit.sigma2[fit.problem.groups.reshape(-1)]
    Sigma = fit.prior.covariance(torch.eye(H.shape[1], dtype=torch.float64), fit.psi)
    K = H @ Sigma @ H.T + torch.diag(noise)
    S = Sigma - Sigma @ H.T @ torch.linalg.solve(K, H @ Sigma)
    return J @ S @ J.T


@pytest.mark.parametrize("solver", SOLVERS)
def test_error_bars_are_exact_or_within_their_error(solver, fitted):
    fit, new, _ = fitted
    post = laplace.posterior(fit, solver=solver, batch=15, draws=400)
    expected = exact(fit, new).diagonal().sqrt().reshape(6, 2)
    std = post.std(new)
    if solver == "cholesky":
        assert post.exact and post.error == 0
        torch.testing.assert_close(std, expected, rtol=1e-7, atol=1e-9)
    else:
        # The stochastic solvers add what their tolerance of 5 % allows.
        slack = 4 * post.error + (0.1 if solver != "cg" else 0)
        assert float((std / expected - 1).abs().max()) < slack
        assert 0 < post.residual < 0.1


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
@pytest.mark.parametrize("fixture", ["fitted", "classified"])
def test_covariance_of_chosen_outputs_is_exact(solver, fixture, request):
    fit, new = request.getfixturevalue(fixture)[:2]
    rows = torch.tensor([0, 3, 7])
    found = laplace.posterior(fit, solver=solver).covariance(rows, new)
    torch.testing.assert_close(found, exact(fit, new)[rows][:, rows], rtol=1e-5, atol=1e-9)


def test_covariance_by_samples_is_within_their_error(fitted):
    fit, new, _ = fitted
    rows, post = torch.tensor([0, 3]), laplace.posterior(fit, solver="sgd", batch=15, draws=400)
    expected = exact(fit, new)[rows][:, rows]
    assert float((post.covariance(rows, new) - expected).abs().max()) < 0.4 * float(expected.max())


def test_samples_follow_the_exact_posterior(fitted, rng):
    fit, new, _ = fitted
    draws = laplace.posterior(fit, solver="cg").samples(1500, new, rng=rng)
    assert draws.shape == (1500, 6, 2)
    mean = laplace.posterior(fit).mean(new)
    S = exact(fit, new)
    centred = (draws - mean).flatten(1)
    distances = (centred * torch.linalg.solve(S, centred.T).T).sum(1)
    assert scipy.stats.kstest(distances.numpy(), "chi2", args=(12,)).pvalue > 1e-3
    assert float(centred.mean(0).abs().max() / S.diagonal().sqrt().max()) < 4 / 1500**0.5


def test_mean_is_that_of_the_linear_model(fitted, classified):
    fit, new, _ = fitted
    outputs, J = fit.model.at(new)
    torch.testing.assert_close(laplace.posterior(fit).mean(new), outputs + J(fit.mode - fit.model.weights))
    fit, new = classified
    torch.testing.assert_close(laplace.posterior(fit).mean(new), fit.model.at(new)[0])


def test_regression_predicts_with_the_noise_of_each_output(fitted):
    fit, new, y = fitted
    post = laplace.posterior(fit)
    predicted = post.predict(new)
    torch.testing.assert_close(predicted.noise[0], fit.sigma2)
    S = exact(fit, new).reshape(6, 2, 6, 2)
    own = torch.stack([S[i, :, i] for i in range(6)])
    torch.testing.assert_close(predicted.covariance, own, rtol=1e-6, atol=1e-9)
    normal_density = torch.distributions.MultivariateNormal(post.mean(new), own + torch.diag(fit.sigma2))
    torch.testing.assert_close(predicted.log_density(y), normal_density.log_prob(y))


def test_classes_are_averaged_over_the_posterior(classified):
    fit, new = classified
    post = laplace.posterior(fit, draws=4000)
    averaged, probit = post.predict(new), post.predict(new, method="probit")
    ones = torch.ones(6, dtype=torch.float64)
    for found in (averaged.probabilities, probit.probabilities):
        torch.testing.assert_close(found.sum(1), ones)
    S = exact(fit, new)
    root = torch.linalg.cholesky(S + 1e-10 * torch.eye(18, dtype=torch.float64))
    draws = (normal(torch.Generator().manual_seed(2), 20000, 18) @ root.T).reshape(-1, 6, 3) + post.mean(new)
    torch.testing.assert_close(averaged.probabilities, draws.softmax(2).mean(0), rtol=0, atol=0.03)
    with pytest.raises(InputError, match="probit"):
        post.predict(new, method="laplace")


def test_without_inputs_the_models_own_are_meant(fitted):
    fit = fitted[0]
    post = laplace.posterior(fit)
    torch.testing.assert_close(post.std(), post.std(fit.model.inputs))
    assert post.samples(3, rng=torch.Generator()).shape == (3, 30, 2)


def test_posterior_of_an_observed_image(rng):
    net, x, _ = trained(8)
    model = laplace.linearise(net, x[:1], observe=Sums(), likelihood=laplace.Gaussian(sigma2=0.1), offset="taylor")
    fit = laplace.maximise_evidence(model, normal(rng, 3), laplace.isotropic(model), with_sweep=False)
    post = laplace.posterior(fit)
    torch.testing.assert_close(post.std(), exact(fit, None).diagonal().sqrt(), rtol=1e-7, atol=1e-9)
    assert post.mean().shape == (8,)


def test_auto_says_what_it_chose(fitted):
    post = laplace.posterior(fitted[0])
    assert post.solver == "cholesky" and "observations" in post.reason
    with pytest.raises(InputError, match="choose among"):
        laplace.posterior(fitted[0], solver="magic")
    with pytest.raises(InputError, match="draws"):
        laplace.posterior(fitted[0], draws=1)
