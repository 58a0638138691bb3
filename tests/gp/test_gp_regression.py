import warnings
from dataclasses import replace

import pytest
import torch
from scipy.stats import chi2, kstest

from ctuq.errors import CtuqError, InputError
from ctuq.gp import BlockProjections, ConjugateGradients, Direct, DualDescent, GaussianProcess, Matern32, PrimalDescent
from ctuq.gp.choice import choose, expected_steps
from ctuq.gp.descent import momentum_for, primal_gradient
from ctuq.gp.features import random_features
from ctuq.gp.operator import KernelOperator
from ctuq.gp.regression import product_type
from ctuq.linops.stochastic import sdd

NOISE = 0.09
EXACT = ["cholesky", ConjugateGradients(tolerance=1e-9), BlockProjections(batch=20, tolerance=1e-9)]
MINI_BATCH = [
    DualDescent(steps=2000, batch=20, tolerance=0.03),
    PrimalDescent(steps=1500, batch=30, features=30, tolerance=0.5),
]


@pytest.fixture
def process(kernel):
    return GaussianProcess(kernel, NOISE, mean=0.7)


@pytest.fixture
def truth(kernel, data):
    """Posterior mean and covariance at the new inputs by brute force."""
    x, y, new = data
    gain = torch.linalg.solve(kernel(x, x) + NOISE * torch.eye(60, dtype=torch.float64), kernel(x, new)).T
    return 0.7 + gain @ (y - 0.7), kernel(new, new) - gain @ kernel(x, new)


@pytest.mark.parametrize("solver", EXACT, ids=str)
def test_mean_and_covariance_are_those_of_brute_force(solver, process, data, truth, rng):
    x, y, new = data
    post = process.condition(x, y, solver=solver, rng=rng, dtype=torch.float64)
    torch.testing.assert_close(post.mean(new), truth[0], rtol=0, atol=1e-7)
    torch.testing.assert_close(post.covariance(new), truth[1], rtol=0, atol=1e-7)
    torch.testing.assert_close(post.std(new, batch=3), truth[1].diagonal().sqrt(), rtol=0, atol=1e-6)
    mean, std = post.predict(new)
    torch.testing.assert_close(std, (truth[1].diagonal() + NOISE).sqrt(), rtol=0, atol=1e-6)
    assert torch.equal(mean, post.mean(new))


@pytest.mark.parametrize("noise", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("solver", [ConjugateGradients(rank=25), ConjugateGradients(tolerance=0.5, rank=60)], ids=str)
def test_deviations_by_conjugate_gradients_are_exact_beside_data_of_little_noise(solver, noise, rng):
    kernel = Matern32.of(1.0, [0.6])
    x = torch.sort(torch.rand(250, 1, generator=rng, dtype=torch.float64) * 5, 0).values
    new = torch.cat([x[::25], x[::25] + 1e-3, torch.tensor([[-1.0], [7.0]], dtype=torch.float64)])
    post = GaussianProcess(kernel, noise).condition(x, torch.sin(3 * x[:, 0]), solver=solver, rng=rng)
    values, vectors = torch.linalg.eigh(kernel(x, x) + noise * torch.eye(250, dtype=torch.float64))
    half = (kernel(new, x) @ vectors) / values.sqrt()
    truth = kernel(new, new) - half @ half.T
    torch.testing.assert_close(post.std(new), truth.diagonal().sqrt(), rtol=2e-3, atol=0)
    found = post.covariance(new)
    assert torch.equal(found, found.T)
    scale = truth.diagonal().sqrt()
    torch.testing.assert_close(found / scale / scale[:, None], truth / scale / scale[:, None], rtol=0, atol=4e-3)
    # What the solve leaves makes a covariance larger, never indefinite.
    assert torch.linalg.eigvalsh(found / scale / scale[:, None])[0] > -1e-6


def test_deviations_that_cannot_be_solved_for_are_a_warning_with_their_error(kernel, rng):
    x = 2 * torch.rand(200, 2, generator=rng, dtype=torch.float64)
    post = GaussianProcess(kernel, 1e-6).condition(x, x[:, 0], solver="cholesky", rng=rng)
    hasty = ConjugateGradients(rank=5, max_steps=3).prepare(KernelOperator(kernel, x, noise=1e-6, dtype=torch.float64), rng=rng)
    with pytest.warns(UserWarning, match=r"Up to [0-9]+ % of a variance"):
        found = replace(post, inverse=hasty).std(x[:5])
    assert (found > post.std(x[:5])).all()


@pytest.mark.parametrize("solver", MINI_BATCH, ids=lambda s: s.name)
def test_mini_batches_reach_the_same_mean_within_their_residual(solver, process, data, truth, rng):
    x, y, new = data
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a miss of the tolerance
        post = process.condition(x, y, solver=solver, rng=rng)
    assert (post.mean(new) - truth[0]).abs().max() < solver.tolerance * NOISE**0.5
    assert (post.mean(new) - 0.7).abs().max() > 0.5


def test_momentum_grows_with_the_steps_and_reaches_what_the_usual_one_does_not(kernel, rng):
    assert [momentum_for(steps) for steps in (10, 400, 10_000)] == [0.9, 0.975, 0.998]
    x = 2 * torch.randn(300, 2, generator=rng, dtype=torch.float64)
    K = KernelOperator(kernel, x, noise=1e-2, dtype=torch.float64)
    b = torch.randn(1, 300, generator=rng, dtype=torch.float64)
    ours = DualDescent(steps=800, batch=75, tolerance=torch.inf).prepare(K, rng=rng)(b).residual
    usual = sdd(K.rows, b, batch=75, steps=800, rtol=torch.inf, rng=rng).residual
    assert ours < 0.3 * usual


@pytest.mark.parametrize("solver", [*EXACT, *MINI_BATCH], ids=str)
def test_residuals_are_those_of_brute_force(solver, process, data, kernel, rng):
    x, y, _ = data
    post = process.condition(x, y, solver=solver, rng=rng, dtype=torch.float64)
    left = y - 0.7 - kernel(x, x) @ post.representers - NOISE * post.representers
    assert post.residual == pytest.approx(float(left.norm() / (y - 0.7).norm()), rel=1e-3, abs=1e-13)


@pytest.mark.filterwarnings("ignore:Stochastic gradients left")
@pytest.mark.parametrize(
    "solver, count",
    [*((solver, 1000) for solver in (Direct(), EXACT[1], EXACT[2])), (MINI_BATCH[0], 100), (MINI_BATCH[1], 50)],
    ids=lambda s: str(s)[:6],
)
def test_samples_have_the_covariance_of_conditioned_prior_draws(solver, count, process, data, kernel, truth):
    """Given its features, a draw is Gaussian with a covariance that brute force knows: Mahalanobis distances are chi-square."""
    x, y, new = data
    rng = torch.Generator().manual_seed(3)
    post = process.condition(x, y, solver=solver, rng=rng, dtype=torch.float64)
    paths = post.samples(count, rng=rng, features=60)
    H = kernel(x, x) + NOISE * torch.eye(60, dtype=torch.float64)
    gain = torch.linalg.solve(H, kernel(x, new)).T
    distances = []
    for group, (Phi, _) in zip(paths.split(), paths.prior.sets(), strict=True):
        half = Phi(new) - gain @ Phi(x)
        C = half @ half.T + NOISE * gain @ gain.T
        d = group(new) - truth[0]
        distances.append((d * torch.linalg.solve(C, d.T).T).sum(1))
    assert len(torch.cat(distances)) == len(paths) == count
    assert kstest(torch.cat(distances), chi2(len(new)).cdf).pvalue > 1e-3


def test_samples_approach_the_posterior_as_features_grow(process, data, truth, kernel, rng):
    x, _, new = data
    gain = torch.linalg.solve(kernel(x, x) + NOISE * torch.eye(60, dtype=torch.float64), kernel(x, new)).T
    Phi = random_features(kernel, 2, 40_000, rng=rng)
    half = Phi(new) - gain @ Phi(x)
    error = half @ half.T + NOISE * gain @ gain.T - truth[1]
    assert error.norm() < 0.03 * truth[1].norm()


def test_deviation_from_draws_agrees_with_the_exact_one(process, data, rng):
    x, y, new = data
    post = process.condition(x, y, rng=rng)
    _, exact = post.predict(new)
    _, drawn = post.predict(new, post.samples(2000, rng=rng, features=500))
    torch.testing.assert_close(drawn, exact, rtol=0.1, atol=0)


def test_each_draw_at_inputs_of_its_own_is_that_draw(process, data, rng):
    x, y, new = data
    paths = process.condition(x, y, rng=rng).samples(7, rng=rng, features=50)
    torch.testing.assert_close(paths.each(new.expand(7, -1, -1)), paths(new))
    torch.testing.assert_close(torch.cat([group(new) for group in paths.split()]), paths(new))


def test_primal_gradient_is_unbiased(kernel, data, rng):
    x, _, _ = data
    K = KernelOperator(kernel, x, noise=NOISE, dtype=torch.float64)
    dense = kernel(x, x)
    a, b, shift = torch.randn(3, 2, 60, generator=rng, dtype=torch.float64)
    gradient = primal_gradient(K, b, shift, features=50, rng=rng)
    whole = torch.arange(60)
    draws = torch.stack([torch.stack([gradient(a, part) for part in whole.split(15)]).mean(0) for _ in range(300)])
    truth = (a @ dense - b) @ dense + (NOISE * a - shift) @ dense
    z = (draws.mean(0) - truth) / (draws.std(0) / 300**0.5)
    assert z.abs().max() < 4.5


def test_a_missed_tolerance_is_a_warning_with_the_number(process, data, rng):
    x, y, _ = data
    for solver, name in (
        (ConjugateGradients(1e-6, rank=1, max_steps=1), "Conjugate gradients"),
        (DualDescent(5, 20, 1e-3), "dual"),
    ):
        with pytest.warns(UserWarning, match=f"{name}.* left a residual of [0-9.]+ times the tolerance"):
            process.condition(x, y, solver=solver, rng=rng)


def test_float32_products_are_refined_to_float64_residuals(kernel, data, rng):
    x, _, _ = data
    K = KernelOperator(kernel, x, noise=1e-3, dtype=torch.float32)
    b = torch.randn(2, 60, generator=rng, dtype=torch.float64)
    found = ConjugateGradients(tolerance=1e-6).prepare(K, rng=rng)(b)
    dense = kernel(x, x) + 1e-3 * torch.eye(60, dtype=torch.float64)
    assert found.converged
    assert (b - found.value @ dense).norm(dim=1).max() < 1e-6 * (1e-3 * 60) ** 0.5


def test_products_are_float64_where_the_noise_is_below_the_rounding_of_float32(kernel, data):
    assert product_type(kernel, 1e-2, data[0]) == torch.float32
    assert product_type(kernel, 1e-6, data[0]) == torch.float64


def test_a_factor_in_float32_solves_to_float64_residuals_and_near_exact_deviations(process, data, truth, rng, monkeypatch):
    monkeypatch.setattr("ctuq.gp.exact._SMALL", 0)
    x, y, new = data
    post = process.condition(x, y, solver="cholesky", rng=rng)
    left = y - 0.7 - process.kernel(x, x) @ post.representers - NOISE * post.representers
    assert left.norm() < 1e-3 * (NOISE * len(x)) ** 0.5
    torch.testing.assert_close(post.std(new), truth[1].diagonal().sqrt(), rtol=1e-4, atol=0)
    assert (post.std(new) - truth[1].diagonal().sqrt()).abs().max() > 1e-9
    torch.testing.assert_close(post.covariance(new), truth[1], rtol=0, atol=1e-5)


def test_the_solver_is_chosen_by_size_steps_and_memory(kernel, rng, monkeypatch):
    x = torch.rand(300, 2, generator=rng, dtype=torch.float64)
    for limit, noise, memory, expected in (
        (4000, 0.1, None, "cholesky"),
        (10, 0.1, None, "cg"),
        (10, 1e-9, None, "cholesky"),
        (4000, 0.1, 9, "cg"),
    ):
        monkeypatch.setattr("ctuq.gp.choice._SMALL", limit)
        monkeypatch.setattr("ctuq.gp.choice._COLUMNS", 2)
        monkeypatch.setattr("ctuq.gp.choice._SHARE", 10)
        monkeypatch.setattr("ctuq.gp.choice.available_memory", lambda device, memory=memory: memory)
        K = KernelOperator(kernel, x, noise=noise, dtype=torch.float64)
        name, _, reason = choose(K, "auto", rng=rng)
        assert (name, "300 points" in reason) == (expected, True)
    assert choose(K, "cholesky", rng=rng)[2] == "asked for"


@pytest.mark.parametrize("rank", [40, 15, 5])
def test_expected_steps_are_those_taken(rank, kernel, rng):
    x = 2 * torch.randn(300, 2, generator=rng, dtype=torch.float64)
    K = KernelOperator(kernel, x, noise=1e-2, dtype=torch.float64)
    method = ConjugateGradients(rank=rank)
    sketch = method.sketch(K, rng=rng)
    expected = expected_steps(K, sketch, method.tolerance, rng=rng)
    y = torch.randn(1, 300, generator=rng, dtype=torch.float64)
    taken = method.with_sketch(K, sketch)(y).steps
    assert taken <= expected < 4 * taken


def test_bad_input_is_refused(process, kernel, data, rng):
    x, y, _ = data
    with pytest.raises(InputError, match="no solver 'cgg'; take auto, cholesky, cg, blocks, sgd, sdd"):
        process.condition(x, y, solver="cgg", rng=rng)
    with pytest.raises(CtuqError, match=r"not positive definite .* give more noise"):
        GaussianProcess(kernel, 1e-25).condition(x.repeat(3, 1), y.repeat(3), solver="cholesky", rng=rng)
