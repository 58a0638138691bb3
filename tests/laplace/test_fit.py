import math
from itertools import pairwise

import pytest
import torch
from linear_models import normal
from torch import nn
from trained_networks import Sums, trained

from ctuq import laplace
from ctuq.errors import InputError
from ctuq.laplace.evidence.dense import ExactExpectation, maximise_dense
from ctuq.laplace.system.problem import Point
from ctuq.laplace.system.solver_choice import assembled, first_point, fits_densely, problem_of


@pytest.fixture(scope="module")
def regression():
    net, x, f = trained()
    y = f + 0.1 * normal(torch.Generator().manual_seed(9), *f.shape)
    return laplace.linearise(net, x[:40], offset="taylor"), x, y


@pytest.fixture(scope="module")
def classes():
    net, x, f = trained(3)
    y = (f + 0.3 * normal(torch.Generator().manual_seed(9), *f.shape)).argmax(1)
    return laplace.linearise(net, x[:40], likelihood=laplace.Categorical()), x, y


PRIORS = {"g": lambda model: None, "isotropic": laplace.isotropic, "layerwise": laplace.layerwise}


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("problem", ["regression", "classes"])
def test_every_route_finds_the_evidence_of_the_dense_one(problem, prior, request, rng):
    model, _, y = request.getfixturevalue(problem)
    fits = {
        method: laplace.maximise_evidence(
            model, y[:40], PRIORS[prior](model), method=method, samples=64, with_sweep=False, rng=rng
        )
        for method in ("dense", "em", "gradient")
    }
    for fit in fits.values():
        assert fit.converged
        assert fit.log_evidence == pytest.approx(fits["dense"].log_evidence, abs=0.5)
        error = max(fit.total_dimension.error, 1e-9)
        # The optimum itself moves with the error of the search's own draws: three times that of the fresh ones.
        assert abs(fit.total_dimension.value - fits["dense"].total_dimension.value) < 12 * max(error, 0.1)
    # Values at one point agree exactly: this model is small.
    fit = fits["em"]
    exact = ExactExpectation(assembled(fit.problem), fit.prior)(fit.point)
    assert exact.log_evidence == pytest.approx(fit.log_evidence, abs=1e-5)


def test_without_a_prior_it_is_the_g_prior_of_one_variance(regression):
    model, _, y = regression
    fit = laplace.maximise_evidence(model, y[:40], with_sweep=False)
    assert list(fit.named) == ["g"]
    assert fit.method == "dense" and "observations" in fit.reason


def test_evidence_of_regression_is_the_normal_density_of_the_targets(regression):
    model, x, y = regression
    weights = torch.linspace(0.5, 2, 40, dtype=torch.float64)
    heavy = laplace.linearise(
        model.network.module, x[:40], likelihood=laplace.Gaussian(weights=weights[:, None]), offset="taylor"
    )
    prior = laplace.isotropic(heavy)
    fit = laplace.maximise_evidence(heavy, y[:40], prior, with_sweep=False)
    J = heavy.jacobian.dense()
    K = J @ prior.covariance(J, fit.psi).T + torch.diag(fit.sigma2 / weights)
    mean = heavy.predicted - heavy.jacobian(heavy.weights)
    density = torch.distributions.MultivariateNormal(mean[:, 0], K).log_prob(y[:40, 0])
    assert fit.log_evidence == pytest.approx(float(density), rel=1e-9)
    centred = (y[:40] - mean)[:, 0]
    mode = prior.covariance((torch.linalg.solve(K, centred) @ J)[None], fit.psi)[0]
    torch.testing.assert_close(fit.mode, mode, rtol=1e-6, atol=1e-8)


def test_laplaces_evidence_of_classes_is_its_formula(classes):
    model, _, y = classes
    prior = laplace.isotropic(model)
    fit = laplace.maximise_evidence(model, y[:40], prior, method="dense", with_sweep=False)
    H, J = model.features.dense(), model.jacobian
    log_det = torch.logdet(torch.eye(H.shape[1], dtype=torch.float64) + fit.psi.exp() * H.T @ H)
    fitted = -nn.functional.cross_entropy(J(fit.mode), y[:40], reduction="sum")
    expected = fitted - 0.5 * fit.mode.square().sum() / fit.psi.exp() - 0.5 * log_det
    assert fit.log_evidence == pytest.approx(float(expected), rel=1e-9)
    assert fit.sigma2.tolist() == [1.0]


def test_noise_of_each_output_is_learned(rng):
    net, x, f = trained(2)
    scales = torch.tensor([0.05, 0.5], dtype=torch.float64)
    y = f + scales * normal(rng, *f.shape)
    model = laplace.linearise(net, x, likelihood=laplace.Gaussian(groups=torch.arange(2)), offset="taylor")
    for method in ("dense", "em"):
        fit = laplace.maximise_evidence(model, y, method=method, with_sweep=False)
        torch.testing.assert_close(fit.sigma2.sqrt(), scales, rtol=0.35, atol=0)


def test_known_noise_is_kept(regression):
    model, x, y = regression
    known = laplace.linearise(model.network.module, x[:40], likelihood=laplace.Gaussian(sigma2=0.04), offset="taylor")
    for method in ("dense", "em"):
        fit = laplace.maximise_evidence(known, y[:40], method=method, with_sweep=False)
        assert fit.sigma2.tolist() == pytest.approx([0.04])


@pytest.mark.parametrize("problem", ["regression", "classes"])
def test_sweep_scores_held_out_data_alike_exactly_and_by_samples(problem, request, rng):
    model, x, y = request.getfixturevalue(problem)
    start = laplace.maximise_evidence(model, y[:40], with_sweep=False).point
    sweeps = []
    for method in ("dense", "em"):
        fit = laplace.maximise_evidence(
            model, y[:40], method=method, held_out=(x[40:], y[40:]), samples=128, start=start, max_steps=1, rng=rng
        )
        assert fit.sweep.scored == "held out"
        sweeps.append(fit.sweep)
    near = [s.log_likelihood[(s.log_factor >= -3) & (s.log_factor <= 3)] for s in sweeps]
    torch.testing.assert_close(near[0], near[1], rtol=0, atol=0.1)
    assert sweeps[1].at_choice.value == pytest.approx(sweeps[0].at_choice.value, abs=4 * sweeps[1].at_choice.error)


def test_sweep_of_regression_leaves_out_and_of_classes_scores_nothing(regression, classes):
    for (model, _, y), scored in ((regression, "left out"), (classes, "nothing")):
        fit = laplace.maximise_evidence(model, y[:40], method="dense")
        assert fit.sweep.scored == scored
        assert fit.sweep.at_choice.value == pytest.approx(fit.log_evidence, abs=2e-3)


@pytest.mark.parametrize("solver", ["sgd", "sdd"])
def test_mini_batches_find_the_evidence_too(solver, rng):
    net, x, f = trained()
    y = f + 0.3 * normal(rng, *f.shape)
    model = laplace.linearise(net, x, offset="taylor", likelihood=laplace.Gaussian(sigma2=0.09))
    exact = laplace.maximise_evidence(model, y, method="dense", with_sweep=False)
    fit = laplace.maximise_evidence(
        model, y, method="em", solver=solver, batch=30, samples=8, with_sweep=False, start=exact.point, max_steps=1, rng=rng
    )
    assert fit.total_dimension.value == pytest.approx(exact.total_dimension.value, rel=0.4)
    assert float((fit.mode - exact.mode).norm()) < 0.2 * float(exact.mode.norm())


def test_an_observed_output_is_fitted_through_what_observes_it(rng):
    net, x, _ = trained(8)
    model = laplace.linearise(net, x[:1], observe=Sums(), likelihood=laplace.Gaussian(sigma2=0.1), offset="taylor")
    prior = laplace.isotropic(model)
    y = normal(rng, 3)
    fits = [laplace.maximise_evidence(model, y, prior, method=m, samples=512, with_sweep=False) for m in ("dense", "em")]
    H = model.features.dense()
    K = H @ H.T * fits[0].psi.exp() + 0.1 * torch.eye(3, dtype=torch.float64)
    density = torch.distributions.MultivariateNormal(model.constant, K).log_prob(y)
    assert fits[0].log_evidence == pytest.approx(float(density), rel=1e-9)
    assert fits[1].log_evidence == pytest.approx(fits[0].log_evidence, abs=0.1)
    with pytest.raises(InputError, match="held out"):
        laplace.maximise_evidence(model, y, prior, held_out=(x[:1], y))


def test_assembled_problem_never_runs_the_network_again(classes):
    model, _, y = classes
    problem = problem_of(model, y[:40])
    dense = assembled(problem)
    v = normal(torch.Generator().manual_seed(0), 2, problem.weights)
    torch.testing.assert_close(dense.features(v), problem.features(v))
    torch.testing.assert_close(dense.labels.jacobian(v), problem.labels.jacobian(v))


def test_what_does_not_fit_densely_goes_by_samples(regression, monkeypatch):
    model, _, y = regression
    monkeypatch.setattr("ctuq.laplace.system.solver_choice.available_memory", lambda device: 2**13)
    problem = problem_of(model, y[:40])
    fits, reason = fits_densely(problem, laplace.isotropic(model))
    assert not fits and "free" in reason
    fit = laplace.maximise_evidence(model, y[:40], samples=4, with_sweep=False, max_steps=2)
    assert fit.method == "em" and fit.reason == reason


def test_pushed_rows_that_do_not_fit_are_formed_in_parts(regression, monkeypatch):
    model, _, y = regression
    monkeypatch.setattr("ctuq.laplace.system.solver_choice.available_memory", lambda device: 2**15)
    problem = problem_of(model, y[:40], samples=16)
    assert problem.batch is not None and problem.batch < 40


def test_mistakes_are_told(regression, classes):
    model, _, y = regression
    with pytest.raises(InputError, match="method"):
        laplace.maximise_evidence(model, y[:40], method="magic")
    with pytest.raises(InputError, match="sample"):
        laplace.maximise_evidence(model, y[:40], samples=1)
    with pytest.raises(InputError, match=r"\(39, 1\)"):
        laplace.maximise_evidence(model, y[:39])
    with pytest.raises(InputError, match="prior"):
        laplace.maximise_evidence(model, y[:40], laplace.layerwise(model.blocks[:1]))
    with pytest.raises(InputError, match="integers"):
        laplace.maximise_evidence(classes[0], classes[2][:40].double())


def test_fit_tells_how_many_samples_an_accuracy_needs(regression):
    model, _, y = regression
    fit = laplace.maximise_evidence(model, y[:40], method="dense", with_sweep=False)
    gamma = fit.total_dimension.value
    assert fit.samples_needed(0.1) == math.ceil(1 / (gamma * 0.01 * 0.25))
    assert isinstance(fit.point, Point)


@pytest.mark.filterwarnings("ignore:.*residual of")
@pytest.mark.parametrize("method", ["dense", "em", "gradient"])
def test_data_without_noise_end_at_the_bound_of_the_arithmetic(method):
    net, x, _ = trained()
    model = laplace.linearise(net.float(), x[:40].float(), offset="taylor")
    y = model.constant + model.jacobian(3 * model.weights)
    fit = laplace.maximise_evidence(model, y, laplace.isotropic(model), method=method)
    assert float(fit.sigma2) < 1e-4 * float(y.var())
    assert fit.capped == (() if method == "dense" else ("noise 0",))
    assert math.isfinite(fit.log_evidence) and fit.sweep is not None
    mean = laplace.posterior(fit).mean()
    assert float((mean - y).norm() / y.norm()) < 1e-2


def test_targets_that_are_no_tensor_are_refused(regression):
    model, _, y = regression
    with pytest.raises(InputError, match="from_numpy"):
        laplace.maximise_evidence(model, y[:40].numpy())


@pytest.mark.parametrize("method", ["dense", "em"])
def test_hyperparameters_of_ones_own_are_kept(method, regression):
    model, _, y = regression
    prior, own = laplace.isotropic(model), laplace.Point(torch.tensor([-0.7]).double(), torch.tensor([0.03]).double())
    fit = laplace.maximise_evidence(model, y[:40], prior, method=method, start=own, max_steps=0, with_sweep=False)
    assert torch.equal(fit.psi, own.psi) and torch.equal(fit.sigma2, own.sigma2) and not fit.converged
    exact = ExactExpectation(assembled(fit.problem), prior)(own)
    assert fit.log_evidence == pytest.approx(exact.log_evidence, abs=1e-5)
    torch.testing.assert_close(fit.mode, exact.mode.weights, rtol=1e-3, atol=1e-3)


def noiseless(n, hidden, function):
    torch.manual_seed(0)
    x = torch.linspace(-2, 2, n, dtype=torch.float64)[:, None]
    net = nn.Sequential(nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, 1)).double().eval()
    model = laplace.linearise(net, x, offset="taylor")
    return model, function(x) if function is not None else net(x).detach()


@pytest.mark.parametrize("method", ["em", "gradient"])
def test_samples_find_the_exact_maximum_of_data_without_noise(method):
    """There are two maxima, of noise 5e-8 and 9e-10, 69 nats apart."""
    model, y = noiseless(60, 6, lambda x: torch.sin(2 * x))
    exact, found = (
        laplace.maximise_evidence(model, y, laplace.isotropic(model), method=m, with_sweep=False) for m in ("dense", method)
    )
    assert not exact.capped and not found.capped
    assert found.log_evidence == pytest.approx(exact.log_evidence, abs=0.5)
    torch.testing.assert_close(found.sigma2, exact.sigma2, rtol=0.2, atol=0)


@pytest.mark.parametrize(
    "method, n, hidden, function, least",
    [
        ("dense", 40, 20, lambda x: torch.sin(2 * x), 250),
        ("dense", 60, 6, None, 700),
        ("em", 40, 20, None, 350),
        ("em", 60, 6, None, 700),
    ],
)
def test_noise_that_falls_to_the_bound_of_the_arithmetic_is_told(method, n, hidden, function, least):
    model, y = noiseless(n, hidden, function)
    with pytest.warns(UserWarning, match=r"noise fell to [0-9.e-]+, the least"):
        fit = laplace.maximise_evidence(model, y, laplace.isotropic(model), method=method, with_sweep=False)
    assert fit.capped == ("noise 0",)
    # There is still a slope: less noise would be better yet.
    assert fit.log_evidence > least
    assert float(fit.sigma2) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("prior", [laplace.g_prior, laplace.layerwise])
@pytest.mark.parametrize("method", ["dense", "em"])
def test_the_unit_of_the_target_changes_nothing_but_the_unit(prior, method, dtype):
    """Network and data in units of 1e-6 or 1e6: energies of its layers are then 1e12 apart."""
    x, found = normal(torch.Generator().manual_seed(1), 30, 2).to(dtype), []
    for unit in (1.0, 1e-6, 1e6):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype).eval()
        with torch.no_grad():
            net[2].weight *= unit
            net[2].bias *= unit
        model = laplace.linearise(net, x, offset="taylor")
        y = unit * (torch.sin(x.sum(1, keepdim=True)) + 0.1 * normal(torch.Generator().manual_seed(2), 30, 1).to(dtype))
        fit = laplace.maximise_evidence(model, y, prior(model), method=method, with_sweep=False)
        std = laplace.posterior(fit).std(x[:3] + 1) / unit
        found.append(torch.cat([std.reshape(-1), fit.sigma2 / unit**2, torch.tensor([fit.log_evidence + 30 * math.log(unit)])]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", [2, 22])
def test_evidence_of_several_variances_is_that_of_the_best_of_many_starts(seed):
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    sizes = [5, 4, 4, 4, 4, 1]
    layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.GELU())]
    net = nn.Sequential(*layers[:-1]).double()
    x = 2 * torch.randn(30, sizes[0], generator=rng, dtype=torch.float64)
    y = torch.sin(x.sum(1, keepdim=True)) + 0.05 * torch.randn(30, 1, generator=rng, dtype=torch.float64)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        (net(x) - y).square().mean().backward()
        optimiser.step()
    model = laplace.linearise(net.eval(), x, offset="taylor")
    prior = laplace.layerwise(model)
    fit = laplace.maximise_evidence(model, y, prior, with_sweep=False)
    begin = first_point(fit.problem, prior, rng=rng)
    exact = ExactExpectation(assembled(fit.problem), prior)
    others = []
    for _ in range(8):
        shift = torch.randn(len(begin.vector), generator=rng, dtype=torch.float64)
        others.append(maximise_dense(exact, begin.moved(begin.vector + 3 * shift), learn_noise=True).expectation.log_evidence)
    assert fit.log_evidence > max(others) - 0.3


def test_targets_with_a_history_of_gradients_are_taken_as_they_are():
    net, x, f = trained()
    model = laplace.linearise(net, x, offset="taylor")
    fits = [laplace.maximise_evidence(model, y, with_sweep=False) for y in (f, f.clone().requires_grad_())]
    assert fits[0].log_evidence == fits[1].log_evidence
    assert not fits[1].mode.requires_grad
