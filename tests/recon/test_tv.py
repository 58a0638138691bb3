import pytest
import torch

from ctuq.recon import cgls, fbp, tv
from ctuq.recon.tv import _gradient, _gradient_transpose, _noise_in_image
from ctuq.tomo import ray_transform


@pytest.fixture
def problem(disc_scan):
    A = ray_transform(disc_scan.grid, disc_scan.geometry)
    return A, torch.from_numpy(disc_scan.projections.copy()), torch.from_numpy(disc_scan.truth.copy())


def test_the_gradient_has_its_transpose(rng):
    x, q = torch.randn(3, 7, 5, generator=rng), torch.randn(3, 2, 7, 5, generator=rng)
    torch.testing.assert_close((_gradient(x) * q).sum(), (x * _gradient_transpose(q)).sum())


def test_the_minimiser_meets_its_optimality_conditions(problem, rng):
    """Zero is in the subdifferential: the objective rises along every direction tried, from the point found."""
    A, y, _ = problem
    noisy = y + 0.02 * torch.randn(y.shape, generator=rng)
    w = 0.5 + torch.rand(y.shape, generator=rng)
    penalty = _noise_in_image(A, noisy, w).double()

    def objective(x):
        data = 0.5 * (w * (A(x.float()) - noisy).square()).double().sum()
        return data + penalty * _gradient(x.double()).norm(dim=-3).sum()

    found = tv(A, noisy, weights=w, iterations=2000)
    best = objective(found)
    for scale in [1e-3, 1e-2]:
        for _ in range(20):
            step = torch.randn(found.shape, generator=rng) * scale * found.max()
            assert objective((found + step).clamp_min(0)) > best
    for other in [fbp(A, noisy), cgls(A, noisy), torch.zeros_like(found), 0.99 * found, 1.01 * found]:
        assert objective(other.clamp_min(0)) > best
    assert objective(tv(A, noisy, weights=w)) < best * 1.001


def test_noise_is_flattened_and_the_disc_kept_without_tuning(problem, rng):
    A, y, truth = problem
    for relative in [0.02, 0.1]:
        noisy = y + relative * y.max() * torch.randn(y.shape, generator=rng)
        error = (tv(A, noisy) - truth).square().mean()
        assert error < 0.3 * (fbp(A, noisy) - truth).square().mean()
        assert error < 0.5 * (cgls(A, noisy) - truth).square().mean()


def test_a_larger_strength_is_smoother(problem, rng):
    A, y, _ = problem
    noisy = y + 0.02 * torch.randn(y.shape, generator=rng)
    variation = [float(_gradient(tv(A, noisy, strength=s)).norm(dim=-3).sum()) for s in [0.3, 1.0, 3.0]]
    assert variation == sorted(variation, reverse=True)


def test_attenuation_is_not_negative_unless_asked(problem, rng):
    A, y, _ = problem
    noisy = y + 0.05 * torch.randn(y.shape, generator=rng)
    assert tv(A, noisy).min() >= 0
    assert tv(A, noisy, nonnegative=False).min() < 0


def test_rays_of_weight_zero_do_not_matter(problem):
    A, y, _ = problem
    w = torch.ones_like(y)
    w[:, 20] = 0
    spoiled = y.clone()
    spoiled[:, 20] = 10 * y.max()
    found = tv(A, spoiled, weights=w)
    torch.testing.assert_close(found, tv(A, y, weights=w))
