import numpy as np
import pytest
import torch

from ctuq.recon import cgls, sirt
from ctuq.recon.noise import noise_std
from ctuq.tomo import ray_transform


@pytest.fixture
def problem(disc_scan):
    A = ray_transform(disc_scan.grid, disc_scan.geometry)
    return A, torch.from_numpy(disc_scan.projections.copy()), torch.from_numpy(disc_scan.truth.copy())


def weighted_solution(A, y, w):
    root = w.sqrt().reshape(-1).double().numpy()
    solution = np.linalg.lstsq(root[:, None] * A.dense().double().numpy(), root * y.reshape(-1).double().numpy(), rcond=None)
    return torch.from_numpy(solution[0]).float().reshape(A.domain.shape)


def random_weights(A, rng):
    return 0.2 + torch.rand(A.range.shape, generator=rng)


def test_cgls_without_noise_reaches_the_weighted_least_squares_projections(problem, rng, monkeypatch):
    A, y, _ = problem
    w = random_weights(A, rng)
    monkeypatch.setattr("ctuq.recon.iterative._STALLED", 0.0)
    monkeypatch.setattr("ctuq.recon.iterative.noise_std", lambda y, w: torch.zeros(y.shape[:-2]))
    found = cgls(A, y, weights=w, iterations=300)
    torch.testing.assert_close(A(found), A(weighted_solution(A, y, w)), atol=2e-3, rtol=0)


def test_cgls_iterates_are_those_of_conjugate_gradients_on_the_normal_equations(problem, monkeypatch):
    A, y, _ = problem
    monkeypatch.setattr("ctuq.recon.iterative._STALLED", 0.0)
    monkeypatch.setattr("ctuq.recon.iterative.noise_std", lambda y, w: torch.zeros(y.shape[:-2]))
    dense, data = A.dense().double().numpy(), y.double().numpy().reshape(-1)
    krylov = [dense.T @ data]
    for _ in range(3):
        krylov.append(dense.T @ (dense @ krylov[-1]))
        krylov[-1] /= np.linalg.norm(krylov[-1])
    basis = np.linalg.qr(np.stack(krylov, 1))[0]
    expected = basis @ np.linalg.lstsq(dense @ basis, data, rcond=None)[0]
    np.testing.assert_allclose(cgls(A, y, iterations=4).numpy().reshape(-1), expected, atol=1e-5)


def test_cgls_stops_at_the_noise_and_each_image_by_itself(problem, rng):
    A, y, _ = problem
    noise = 0.1 * y.std() * torch.randn(y.shape, generator=rng)
    noisy = y + noise
    alone = cgls(A, noisy)
    together = cgls(A, torch.stack([noisy, y]))
    torch.testing.assert_close(together[0], alone, rtol=1e-4, atol=1e-6)
    residual = (A(alone) - noisy).square().sum()
    assert 0.5 * noise.square().sum() < residual < 1.3 * noise.square().sum()


def test_sirt_converges_to_weighted_least_squares_and_not_below_zero(problem, rng):
    A, y, _ = problem
    w = random_weights(A, rng)
    free = sirt(A, y, weights=w, iterations=800, nonnegative=False)
    torch.testing.assert_close(A(free), A(weighted_solution(A, y, w)), atol=0.03, rtol=0)
    assert sirt(A, y).min() >= 0


@pytest.mark.parametrize("method", [sirt, cgls])
def test_the_disc_is_found(problem, method):
    A, y, truth = problem
    assert (method(A, y) - truth).square().mean().sqrt() < 0.1 * truth.max()


@pytest.mark.parametrize("method", [sirt, cgls])
def test_rays_of_weight_zero_do_not_matter(problem, method):
    A, y, _ = problem
    w = torch.ones_like(y)
    w[:, 20:22] = 0
    spoiled = y.clone()
    spoiled[:, 20:22] = 1e3
    torch.testing.assert_close(method(A, spoiled, weights=w), method(A, torch.where(w > 0, y, 0), weights=w))


@pytest.mark.parametrize("std", [0.01, 0.05])
def test_the_noise_is_read_from_the_sinogram(rng, std):
    x = torch.linspace(-1, 1, 200)
    y = 3 * (1 - x**2).clamp_min(0).sqrt().expand(50, 200)
    w = 0.5 + torch.rand(y.shape, generator=rng)
    noisy = y + std * torch.randn(y.shape, generator=rng)
    assert noise_std(noisy) == pytest.approx(std, rel=0.1)
    assert noise_std(y + std * torch.randn(y.shape, generator=rng) / w.sqrt(), w) == pytest.approx(std, rel=0.1)
