import itertools
import warnings

import numpy as np
import pytest
import torch

from ctuq.errors import CtuqError
from ctuq.linops.basic import Dense
from ctuq.linops.operator import Space
from ctuq.linops.solve import CG, Cholesky
from ctuq.linops.stochastic import automatic_step, sdd, sdd_features, sgd, step_limit

DOUBLE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def kernel(n, lengthscale, noise):
    """An exponential kernel of points on a line: long lengthscales are smooth, short ones nearly the identity."""
    x = torch.rand(n, 1, generator=torch.Generator().manual_seed(4), dtype=DOUBLE)
    return torch.exp(-(x - x.T).abs() / lengthscale) + noise * torch.eye(n, dtype=DOUBLE)


def solution(K, b):
    return torch.linalg.solve(K, b.T).T


def distance(found, truth):
    return float((found - truth).norm() / truth.norm())


def second_moment_growth(K, batch, step, r):
    """Largest modulus of the exact map of second moments of (a, v), over all mini-batches of coordinates."""
    n, batches = len(K), list(itertools.combinations(range(len(K)), batch))
    total = np.zeros((4 * n**2, 4 * n**2))
    for index in batches:
        G = np.zeros((n, n))
        G[list(index)] = step * n / batch * K[list(index)]
        move = np.block([[np.eye(n) - G, r * (np.eye(n) - G)], [-G, r * (np.eye(n) - G)]])
        total += np.kron(move, move) / len(batches)
    return np.abs(np.linalg.eigvals(total)).max()


FIVE = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
MATRICES = {
    "identity": np.eye(5),
    "smooth": np.exp(-FIVE / 5) + 0.1 * np.eye(5),
    "rough": np.exp(-2 * FIVE),
    "uneven": np.diag([1, 1, 1, 1, 20]) + 0.5,
}


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("batch", [1, 2, 4, 5])
@pytest.mark.parametrize("name", MATRICES)
def test_second_moments_decay_up_to_the_step_limit_and_grow_not_far_above(name, batch, momentum):
    K = MATRICES[name]
    noise = 5 * K.diagonal().max() * (5 - batch) / (4 * batch)
    limit = step_limit(np.linalg.eigvalsh(K)[-1], noise, momentum)
    assert second_moment_growth(K, batch, 0.999 * limit, momentum) < 1
    assert second_moment_growth(K, batch, 3 * limit, momentum) > 1


def test_the_step_limit_of_exact_gradients_is_the_known_one_and_scales_with_the_curvature():
    assert step_limit(1.0, 0.0, 0.9) == pytest.approx(2 * 1.9 / 2.8)
    assert step_limit(5.0, 10.0, 0.9) == pytest.approx(step_limit(1.0, 2.0, 0.9) / 5)
    assert step_limit(1.0, 1e-9, 0.9) == pytest.approx(2 * 1.9 / 2.8)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_dual_descent_converges_just_below_the_limit_and_diverges_just_above(factor, momentum):
    K, b = kernel(40, 0.3, 0.1), normal(2, 40)
    largest = float(torch.linalg.eigvalsh(K)[-1])
    step = factor * step_limit(largest, 0.0, momentum)

    def run(steps):
        options = {"step_size": step, "momentum": momentum, "rtol": 1e99, "rng": generator()}
        return distance(sdd(Dense(K).rows, b, batch=40, steps=steps, **options).value, solution(K, b))

    early, late = run(400), run(1200)
    assert (late < 0.5 * early) == (factor < 1)


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("lengthscale", "batch"), [(0.5, 16), (0.02, 16), (1e-5, 4), (1e-5, 64), (0.5, 2)])
def test_the_automatic_step_converges_whatever_the_spectrum_and_the_batch(lengthscale, batch):
    K, b = kernel(64, lengthscale, 0.5), normal(2, 64)
    found = sdd(Dense(K).rows, b, batch=batch, steps=6000, rng=generator(), rtol=1e-2)
    assert found.converged
    assert distance(found.value, solution(K, b)) < 1e-2


def test_the_automatic_step_is_within_the_limit_and_not_timid():
    K = kernel(100, 0.3, 0.1)
    largest = float(torch.linalg.eigvalsh(K)[-1])
    step = automatic_step(lambda index: Dense(K), n=100, batch=100, momentum=0.9, rng=generator())
    assert 0.65 < step / step_limit(largest, 0.0, 0.9) <= 0.7 * (1 + 1e-9)


def test_dual_descent_reaches_any_tolerance_with_a_constant_step():
    K, b = kernel(30, 0.05, 0.5), normal(3, 30)
    found = sdd(Dense(K).rows, b, batch=10, steps=5000, rng=generator(), rtol=1e-8)
    assert found.converged
    torch.testing.assert_close(found.value, solution(K, b), rtol=0, atol=1e-7)
    residual = (b - found.value @ K).norm(dim=1) / b.norm(dim=1)
    torch.testing.assert_close(found.residual, residual, rtol=1e-6, atol=1e-14)


def test_its_noise_vanishes_at_the_solution():
    K, b = kernel(50, 0.05, 0.3), normal(3, 50)
    exact = solution(K, b)
    found = sdd(Dense(K).rows, b, batch=5, steps=200, rng=generator(), start=exact, rtol=1e-10)
    torch.testing.assert_close(found.value, exact, rtol=0, atol=1e-12)


def test_a_missed_tolerance_is_a_warning_with_the_number():
    K, b = kernel(50, 0.5, 0.01), normal(1, 50)
    with pytest.warns(UserWarning, match=r"SDD reached a relative residual of \S+ in 20 steps, not 1.0e-06"):
        found = sdd(Dense(K).rows, b, batch=10, steps=20, rng=generator(), rtol=1e-6)
    assert not found.converged
    assert found.residual > 1e-6


def test_coordinates_may_have_axes_of_their_own_and_need_not_divide_into_batches():
    K, b = kernel(36, 0.05, 0.5), normal(2, 12, 3)
    matrix = K.reshape(12, 3, 36)

    def rows(index, a):
        return torch.einsum("icn,kn->kic", matrix[index], a.flatten(1))

    found = sdd(rows, b, batch=5, steps=4000, rng=generator(), rtol=1e-6)
    torch.testing.assert_close(found.value.flatten(1), solution(K, b.flatten(1)), rtol=0, atol=1e-5)


class Ridge:
    """``1/2 |H x|^2 + 1/2 |x - z|^2``: the low-variance objective of a posterior sample, in whitened weights."""

    def __init__(self, n=120, p=30):
        self.H, self.n = normal(n, p) * torch.arange(1, p + 1) ** -0.5, n
        self.prior, self.noise = normal(3, p, seed=1), normal(3, n, seed=2)
        self.z = self.prior + self.noise @ self.H
        self.matrix = self.H.T @ self.H + torch.eye(p, dtype=DOUBLE)
        self.optimum = solution(self.matrix, self.z)

    def gradient(self, x, index):
        H = self.H[index].to(x)
        return self.n / len(index) * (x @ H.T) @ H + x - self.z.to(x)

    def solve(self, batch, steps, dtype=DOUBLE, **options):
        start = torch.zeros(3, self.H.shape[1], dtype=dtype)
        return sgd(self.gradient, start, n=self.n, batch=batch, steps=steps, rng=generator(), **options)


def test_sgd_comes_as_near_as_it_is_given_steps():
    problem = Ridge()
    errors = [distance(problem.solve(24, steps), problem.optimum) for steps in (300, 3000)]
    assert errors[0] < 5e-2
    assert errors[1] < 1e-2
    assert errors[1] < errors[0] / 3


def test_sgd_with_all_data_in_a_batch_is_exact():
    problem = Ridge()
    torch.testing.assert_close(problem.solve(500, 2000), problem.optimum, rtol=0, atol=1e-9)


def test_sgd_keeps_the_type_and_the_batches_need_not_divide_the_data():
    problem = Ridge()
    found = problem.solve(35, 3000, torch.float32)
    assert found.dtype == torch.float32
    assert distance(found.double(), problem.optimum) < 1e-2


def test_columns_of_sgd_are_problems_of_their_own():
    problem = Ridge()
    together = problem.solve(24, 50, step_size=1e-3)
    problem.z = problem.z[1:2]
    alone = sgd(
        problem.gradient,
        torch.zeros(1, 30, dtype=DOUBLE),
        n=problem.n,
        batch=24,
        steps=50,
        step_size=1e-3,
        rng=generator(),
    )
    torch.testing.assert_close(together[1:2], alone, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("solve", [sgd, sdd])
def test_divergence_is_an_error_with_the_step(solve):
    problem = Ridge()
    with pytest.raises(CtuqError, match=r"diverged with the step 1\.0e\+01"):
        if solve is sgd:
            problem.solve(24, 2000, step_size=10.0)
        else:
            sdd(Dense(problem.matrix).rows, problem.z, batch=10, steps=2000, step_size=10.0, rng=generator())


def test_all_solvers_give_the_same_samples_from_the_same_draws():
    problem = Ridge()
    K = problem.H @ problem.H.T + torch.eye(problem.n, dtype=DOUBLE)
    observed = problem.prior @ problem.H.T - problem.noise
    samples = {"SGD": problem.solve(24, 4000)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, found in {
            "Cholesky": Cholesky()(Dense(K), observed),
            "CG": CG(rtol=1e-6)(Dense(K), observed),
            "SDD": sdd(Dense(K).rows, observed, batch=24, steps=4000, rng=generator(), rtol=1e-4),
        }.items():
            samples[name] = problem.prior - found.value @ problem.H
    for name, tolerance in {"Cholesky": 1e-12, "CG": 1e-5, "SDD": 1e-3, "SGD": 1e-2}.items():
        assert distance(samples[name], problem.optimum) < tolerance, name


def test_the_dual_value_is_the_primal_one():
    noise = 0.4
    K, b = kernel(40, 0.1, 0.0), normal(1, 40)
    a = sdd(Dense(K + noise * torch.eye(40, dtype=DOUBLE)).rows, b, batch=20, steps=5000, rng=generator(), rtol=1e-8).value
    primal = 0.5 * (b - a @ K).square().sum() + 0.5 * noise * (a @ K * a).sum()
    dual = 0.5 * (a @ K * a).sum() + 0.5 * noise * a.square().sum() - (a * b).sum()
    torch.testing.assert_close(primal, -noise * dual, rtol=1e-6, atol=0)


@pytest.mark.parametrize("outputs", [(), (2,)])
def test_descent_over_features_takes_the_steps_of_the_dense_one_and_lifts_the_solution(outputs):
    n = 30 if outputs else 60
    H, scales = normal(n, *outputs, 25), 0.1 + torch.rand(25, generator=generator(), dtype=DOUBLE)
    noise = 1 + torch.rand(n, *outputs, generator=generator(), dtype=DOUBLE)
    flat = H.reshape(-1, 25)
    K, b = (flat * scales) @ flat.T + torch.diag(noise.flatten()), normal(3, n, *outputs)

    def features(index):
        return Dense(H[index].reshape(-1, 25), range=Space((len(index), *outputs), DOUBLE))

    options = {"batch": 16, "steps": 300, "rtol": 1.0}
    found, lifted = sdd_features(features, lambda v: scales * v, noise, b, rng=generator(), **options)
    space = Space((n, *outputs), DOUBLE)
    dense = sdd(Dense(K, space, space).rows, b, rng=generator(), **options)
    torch.testing.assert_close(found.value, dense.value, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.residual, dense.residual, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(lifted, scales * (found.value.flatten(1) @ flat), rtol=0, atol=1e-12)


def test_float32_features_carry_float64_coordinates():
    H, b = normal(60, 25).float(), normal(2, 60)
    noise = torch.full((60,), 2.0)
    found, lifted = sdd_features(lambda index: Dense(H[index]), lambda v: v, noise, b, batch=20, steps=2000, rng=generator())
    assert (found.value.dtype, lifted.dtype) == (DOUBLE, DOUBLE)
    K = (H @ H.T).double() + 2 * torch.eye(60, dtype=DOUBLE)
    assert (found.value - solution(K, b)).norm() < 1e-4 * found.value.norm()
    assert found.residual.max() < 1e-4
