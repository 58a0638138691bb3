import math

import pytest
import torch

import ctuq.gp.operator as module
from ctuq.errors import InputError
from ctuq.gp import RBF, GaussianProcess, Matern32, Pathwise, Tanimoto, maximise_exact, maximise_on_subsets, maximise_pathwise
from ctuq.gp.hyperparameters import exact_evidence
from ctuq.gp.pathwise import pathwise_slope

NOISE = 0.1


def value(kernel, psi, log_noise, x, y):
    K = kernel.at(psi)(x, x) + log_noise.exp() * torch.eye(len(x), dtype=torch.float64)
    L = torch.linalg.cholesky(K)
    a = torch.cholesky_solve(y[:, None], L)[:, 0]
    return -L.diagonal().log().sum() - y @ a / 2 - len(x) / 2 * math.log(2 * math.pi)


@pytest.fixture
def drawn(kernel):
    """200 noisy values of a draw from the process itself."""
    rng = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(200, 2, generator=rng, dtype=torch.float64)
    L = torch.linalg.cholesky(kernel(x, x) + NOISE * torch.eye(200, dtype=torch.float64))
    return x, L @ torch.randn(200, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize(
    "kernel", [Matern32.of(1.3, [0.8, 1.4]), RBF.of(0.5, [0.6, 3.0]), Tanimoto.of(2.0)], ids=lambda k: type(k).__name__
)
def test_evidence_and_its_slope_are_those_of_autograd(kernel, data, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 13 * 60)
    x, y, _ = data
    if isinstance(kernel, Tanimoto):
        x = x.repeat(1, 4).gt(0.3).double() + torch.eye(60, 8, dtype=torch.float64)
    psi, noise = kernel.psi.requires_grad_(), torch.tensor(math.log(NOISE), dtype=torch.float64, requires_grad=True)
    truth = value(kernel, psi, noise, x, y)
    slope = torch.cat([torch.atleast_1d(g) for g in torch.autograd.grad(truth, (psi, noise))])
    found, gradient = exact_evidence(kernel, NOISE, x, y)
    assert found == pytest.approx(float(truth.detach()), abs=1e-9)
    torch.testing.assert_close(gradient, slope, rtol=1e-8, atol=1e-8)


def test_the_maximiser_is_stationary_and_better_than_the_truth(kernel, drawn):
    x, y = drawn
    found = maximise_exact(Matern32.of(1.0, [1.0, 1.0]), 0.3, x, y)
    assert found.converged
    assert exact_evidence(found.kernel, found.sigma2, x, y)[1].abs().max() < 0.1
    assert found.log_evidence > exact_evidence(kernel, NOISE, x, y)[0]
    assert found.log_evidence == pytest.approx(exact_evidence(found.kernel, found.sigma2, x, y)[0])
    assert -min(found.trajectory) == pytest.approx(found.log_evidence)


def test_hyperparameters_that_drew_the_data_come_back(kernel, drawn):
    found = maximise_exact(Matern32.of(1.0, [1.0, 1.0]), 0.3, *drawn)
    assert found.sigma2 == pytest.approx(NOISE, rel=0.35)
    torch.testing.assert_close(found.kernel.psi, kernel.psi, rtol=0, atol=0.6)


def test_noise_stays_above_its_floor_where_there_is_none():
    x = torch.linspace(0, 3, 40, dtype=torch.float64)[:, None]
    y = torch.sin(x[:, 0])
    found = maximise_exact(RBF.of(1.0, [1.0]), 0.1, x, y, least_noise=1e-3)
    assert found.sigma2 == pytest.approx(1e-3 * float(y.square().mean()), rel=1e-6)


def test_subsets_average_the_logarithms(drawn, rng):
    x, y = drawn
    start = Matern32.of(1.0, [1.0, 1.0])
    state = rng.get_state()
    both = maximise_on_subsets(start, 0.3, x, y, rows=80, repeats=2, rng=rng)
    rng.set_state(state)
    ones = [maximise_on_subsets(start, 0.3, x, y, rows=80, rng=rng) for _ in range(2)]
    torch.testing.assert_close(both.kernel.psi, (ones[0].kernel.psi + ones[1].kernel.psi) / 2)
    assert both.sigma2 == pytest.approx(math.sqrt(ones[0].sigma2 * ones[1].sigma2))
    assert ones[0].sigma2 != ones[1].sigma2


def test_pathwise_slopes_are_unbiased(kernel, data, rng):
    x, y, _ = data
    H = kernel(x, x) + NOISE * torch.eye(60, dtype=torch.float64)
    a, L = torch.linalg.solve(H, y), torch.linalg.cholesky(H)
    xi = torch.randn(3000, 60, generator=rng, dtype=torch.float64) @ L.T
    z = torch.linalg.solve(H, xi.T).T
    slopes = torch.stack([pathwise_slope(kernel, NOISE, x, a, part) for part in z.split(50)])
    truth = exact_evidence(kernel, NOISE, x, y)[1]
    assert ((slopes.mean(0) - truth) / (slopes.std(0) / 60**0.5)).abs().max() < 4
    assert (slopes.std(0) > 0).all()


def test_pathwise_gradients_end_near_the_exact_maximum(drawn, rng):
    x, y = drawn
    start = Matern32.of(2.0, [0.5, 2.5])
    best = maximise_exact(start, 0.3, x, y)
    found = maximise_pathwise(start, 0.3, x, y, settings=Pathwise(probes=32, steps=60, features=1000), rng=rng)
    reached = exact_evidence(found.kernel, found.sigma2, x, y)[0]
    assert best.log_evidence - reached < 0.1 * (best.log_evidence - exact_evidence(start, 0.3, x, y)[0])
    assert best.log_evidence - reached < 1.0
    assert found.log_evidence is None


def test_the_process_takes_what_was_learned(drawn, rng):
    found = maximise_exact(Matern32.of(1.0, [1.0, 1.0]), 0.3, *drawn)
    post = GaussianProcess(found.kernel, found.sigma2).condition(*drawn, rng=rng)
    assert float((post.mean(drawn[0]) - drawn[1]).square().mean()) < found.sigma2


def test_data_that_do_not_fit_are_refused(kernel, data, rng):
    x, y, _ = data
    for call in (lambda: maximise_exact(kernel, 0.1, x, y[:3]), lambda: maximise_pathwise(kernel, 0.1, x, y[:3], rng=rng)):
        with pytest.raises(InputError, match="do not fit 60 inputs"):
            call()
