import numpy as np
import pytest
import torch

from ctuq.recon import cgls, fbp, sirt, tv
from ctuq.recon.tv import _gradient, _gradient_transpose, _noise_in_image
from ctuq.tomo import ray_transform
from ctuq.tomo.rays.volume import volume_transform
from ctuq.tomo.solids import solid_scan


@pytest.fixture
def problem(disc_scan):
    A = ray_transform(disc_scan.grid, disc_scan.geometry)
    return A, torch.from_numpy(disc_scan.projections.copy()), torch.from_numpy(disc_scan.truth.copy())


@pytest.mark.parametrize("shape", [(7, 5), (4, 7, 5), (1, 6, 3)])
def test_the_gradient_has_its_transpose(rng, shape):
    axes = len(shape)
    x, q = torch.randn(3, *shape, generator=rng), torch.randn(3, axes, *shape, generator=rng)
    torch.testing.assert_close((_gradient(x, axes) * q).sum(), (x * _gradient_transpose(q, axes)).sum())
    for axis in range(axes):
        along = _gradient(x, axes)[:, axis].narrow(axis + 1, 0, shape[axis] - 1)
        torch.testing.assert_close(along, x.diff(dim=axis + 1))


@pytest.fixture
def volume():
    """A ball of 0.05 per mm seen by a cone; its scan without noise, and the truth."""
    scan = solid_scan("ball", 12, np.arange(14) * 2 * np.pi / 14, noise=0.0, seed=0, distances=(100.0, 200.0))
    A = volume_transform(scan.grid, scan.geometry)
    return A, torch.from_numpy(scan.projections.copy()), torch.from_numpy(scan.truth.copy())


def test_a_volume_is_flattened_and_kept_without_tuning(volume, rng):
    A, y, truth = volume
    noisy = y + 0.05 * y.max() * torch.randn(y.shape, generator=rng)
    error = (tv(A, noisy) - truth).square().mean()
    assert error < 0.5 * (cgls(A, noisy) - truth).square().mean()
    assert error < 0.5 * (sirt(A, noisy) - truth).square().mean()


def test_a_batch_of_volumes_in_any_unit_is_solved_like_each_alone(volume, rng):
    A, y, _ = volume
    noisy = y + 0.05 * y.max() * torch.randn(y.shape, generator=rng)
    weights = torch.rand(y.shape, generator=rng)
    both = tv(A, torch.stack([noisy, 1e3 * noisy]), weights=weights, iterations=30)
    torch.testing.assert_close(both[0], tv(A, noisy, weights=weights, iterations=30), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(both[1], 1e3 * both[0], rtol=1e-3, atol=1e-2)


def test_the_minimiser_meets_its_optimality_conditions(problem, rng):
    """Zero is in the subdifferential: the objective rises along every direction tried, from the point found."""
    A, y, _ = problem
    noisy = y + 0.02 * torch.randn(y.shape, generator=rng)
    w = 0.5 + torch.rand(y.shape, generator=rng)
    penalty = _noise_in_image(A, noisy, w).double()

    def objective(x):
        data = 0.5 * (w * (A(x.float()) - noisy).square()).double().sum()
        return data + penalty * _gradient(x.double(), 2).norm(dim=-3).sum()

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
    variation = [float(_gradient(tv(A, noisy, strength=s), 2).norm(dim=-3).sum()) for s in [0.3, 1.0, 3.0]]
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


def test_a_view_of_no_weight_is_as_if_it_were_not_there_even_where_its_rays_miss_the_image(problem):
    A, y, _ = problem
    weights = torch.ones_like(y)
    weights[::3] = 0
    kept = np.flatnonzero(np.arange(len(y)) % 3)
    found, alone = tv(A, y, weights=weights), tv(A.subset(kept), y[torch.from_numpy(kept)])
    assert bool(torch.isfinite(found).all())
    torch.testing.assert_close(found, alone, rtol=0, atol=0.1 * float(alone.max()))
