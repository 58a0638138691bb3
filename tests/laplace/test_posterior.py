import pickle

import pytest
import scipy.stats
import torch
from linear_models import normal
from torch import nn
from trained_networks import Sums, trained

from ctuq import laplace
from ctuq.errors import InputError, ResourceError
from ctuq.linops import memory

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


@pytest.mark.parametrize("noise", [1e-2, 1e-6])
@pytest.mark.parametrize("n, P", [(300, 450), (420, 300), (60, 18)])
def test_samples_by_conjugate_gradients_are_those_of_the_factor_wherever_asked(n, P, noise):
    """Same draws, so that nothing but the solves differs; away from the data, too, where the effective dimension is nothing."""
    rng = torch.Generator().manual_seed(n)
    net = nn.Sequential(nn.Linear(2, P // 3), nn.Tanh(), nn.Linear(P // 3, 1)).double().eval()
    x, new = normal(rng, n, 2), 3 * normal(rng, 40, 2)
    model = laplace.linearise(net, x, likelihood=laplace.Gaussian(noise), offset="taylor")
    start = laplace.Point(torch.zeros(1, dtype=torch.float64), torch.tensor([noise], dtype=torch.float64))
    y = torch.sin(x.sum(1, keepdim=True))
    fit = laplace.maximise_evidence(
        model, y, laplace.isotropic(model), start=start, max_steps=0, with_sweep=False, method="dense"
    )
    by_factor, by_cg = (
        laplace.posterior(fit, solver=solver).samples(32, new, rng=torch.Generator().manual_seed(3))
        for solver in ("cholesky", "cg")
    )
    std = laplace.posterior(fit, solver="cholesky").std(new)
    assert float(((by_cg - by_factor) / std).abs().max()) < 0.05


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_units_that_the_data_never_light_have_error_bars_where_they_are_lit(solver):
    """Of two ReLU units one is lit for x > 1 only, and the data end at 1: the linear model grows there by a weight unseen."""
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double().eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.ones(2, 1))
        net[0].bias.copy_(torch.tensor([2.0, -1.0]))
        net[2].weight.copy_(torch.ones(1, 2))
    x = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None]
    model = laplace.linearise(net, x, likelihood=laplace.Gaussian(0.01), offset="taylor")
    fit = laplace.maximise_evidence(model, torch.sin(x), with_sweep=False)
    variances = fit.prior.covariance(torch.eye(4, dtype=torch.float64), fit.psi).diagonal()
    new = torch.tensor([[0.5], [1.5], [3.0]], dtype=torch.float64)
    post = laplace.posterior(fit, solver=solver, draws=4000)
    unseen = variances[1] * new[1:, 0].square() + variances[3] * (new[1:, 0] - 1).square()
    assert bool((unseen > 0.01).all())
    assert bool((post.std(new)[1:, 0].square() > 0.9 * unseen).all())
    torch.testing.assert_close(post.std(new), exact(fit, new).diagonal().sqrt()[:, None], rtol=0.05, atol=0)


def test_mean_is_that_of_the_linear_model(fitted, classified):
    fit, new, _ = fitted
    outputs, J = fit.model.at(new)
    torch.testing.assert_close(laplace.posterior(fit).mean(new), outputs + J(fit.mode - fit.model.weights))
    fit, new = classified
    torch.testing.assert_close(laplace.posterior(fit).mean(new), fit.model.at(new)[0])


@pytest.mark.filterwarnings("ignore:J theta_hat misses")
@pytest.mark.parametrize("steps", [0, 30, 300])
@pytest.mark.parametrize("method", ["dense", "em"])
def test_error_bars_of_a_network_that_was_stopped_early_cover_new_data(steps, method):
    rng = torch.Generator().manual_seed(5)
    torch.manual_seed(5)
    x = 4 * torch.rand(480, 1, generator=rng, dtype=torch.float64) - 2
    y = torch.cos(2.5 * x) + 0.15 * normal(rng, 480, 1)
    net = nn.Sequential(nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 1)).double()
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        (net(x[:80]) - y[:80]).square().mean().backward()
        optimiser.step()
    model = laplace.linearise(net.eval(), x[:80])
    post = laplace.posterior(laplace.maximise_evidence(model, y[:80], method=method, with_sweep=False))
    predicted = post.predict(x[80:])
    z = (y[80:] - predicted.mean) / predicted.total_std
    assert 0.9 < float((z.abs() < 1.96).double().mean()) < 0.99
    assert 0.8 < float(z.square().mean().sqrt()) < 1.25
    # The mean that they surround is the one that is reported, everywhere.
    torch.testing.assert_close(post.mean(x[80:]), predicted.mean)


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


@pytest.mark.parametrize("solver", ["cholesky", "cg", "sgd"])
def test_covariances_that_do_not_fit_are_refused_before_any_work(solver, fitted, monkeypatch):
    fit, new, _ = fitted
    post = laplace.posterior(fit, solver=solver, draws=8, batch=15)
    at_new = fit.model.at(new)
    monkeypatch.setattr(type(fit.model), "at", lambda model, inputs: at_new)
    monkeypatch.setattr(memory, "available_memory", lambda device: 100)
    monkeypatch.setattr(type(post), "_covariance", None)
    with pytest.raises(ResourceError, match=r"joint covariance of the 2 outputs of each of 6 data needs .* take std\(\)"):
        post.predict(new)
    with pytest.raises(ResourceError, match=r"covariance of 12 outputs needs .* ask for fewer"):
        post.covariance(torch.arange(12), new)


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


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.attention, self.last = nn.Linear(1, 4), nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x[..., None])
        return self.last((x + self.attention(x, x, x)[0]).flatten(1))


KEPT = {
    "regression": (
        lambda: nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2)),
        lambda: laplace.Gaussian(groups=torch.arange(2)),
    ),
    "normalised": (lambda: nn.Sequential(nn.Linear(2, 6), nn.LayerNorm(6), nn.SiLU(), nn.Linear(6, 3)), laplace.Categorical),
    "attention": (Attends, laplace.Categorical),
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", KEPT)
def test_fits_and_posteriors_say_the_same_after_they_were_pickled(kind, solver, tmp_path):
    torch.manual_seed(1)
    rng = torch.Generator().manual_seed(2)
    make, likelihood = KEPT[kind]
    net, x, new = make().double().eval(), normal(rng, 20, 2), normal(rng, 4, 2)
    y = net(x).detach() + 0.3 * normal(rng, 20, 2) if kind == "regression" else torch.arange(20) % 3
    model = laplace.linearise(net, x, likelihood=likelihood(), offset="taylor")
    fit = laplace.maximise_evidence(model, y, method="dense" if solver == "cholesky" else "em", with_sweep=solver == "cg")
    post = laplace.posterior(fit, solver=solver, batch=10, draws=8)
    torch.save((fit, post), tmp_path / "kept.pt")
    with torch.no_grad():
        net.requires_grad_(False)
        next(net.parameters()).zero_()  # a fit has weights of its own
    fit_again, post_again = torch.load(tmp_path / "kept.pt", weights_only=False)
    assert fit_again.log_evidence == fit.log_evidence and fit_again.named == fit.named
    torch.testing.assert_close(fit_again.mode, fit.mode, rtol=0, atol=0)
    torch.testing.assert_close(pickle.loads(pickle.dumps(fit)).model.jacobian.dense(), model.jacobian.dense(), rtol=0, atol=0)
    for ask in (
        lambda p: p.mean(new),
        lambda p: p.std(new),
        lambda p: p.samples(3, new, rng=torch.Generator().manual_seed(1)),
        lambda p: p.covariance(torch.arange(4), new),
        lambda p: getattr(p.predict(new), "total_std", None) if kind == "regression" else p.predict(new).probabilities,
        lambda p: laplace.posterior(p.fit).std(),
    ):
        torch.testing.assert_close(ask(post_again), ask(post), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_posteriors_of_an_observed_image_can_be_pickled(solver, rng):
    net, x, _ = trained(8)
    model = laplace.linearise(net, x[:1], observe=Sums(), likelihood=laplace.Gaussian(sigma2=0.1), offset="taylor")
    fit = laplace.maximise_evidence(model, normal(rng, 3), laplace.isotropic(model), with_sweep=False)
    post = laplace.posterior(fit, solver=solver, draws=8)
    torch.testing.assert_close(pickle.loads(pickle.dumps(post)).std(), post.std(), rtol=1e-12, atol=1e-14)
