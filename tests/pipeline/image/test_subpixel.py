"""Sharp objects of little noise: what pixels cannot draw is in the error bars, in unseen rays and in the budget."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import ctuq
from ctuq.pipeline.subpixel import ray_noise
from ctuq.recon.dip import Data
from ctuq.scores.gaussian import gaussian_scores
from ctuq.tomo.geometry import ParallelBeam, VolumeGrid
from ctuq.tomo.simulate import RelativeNoise, simulate
from ctuq.tomo.subpixel import subpixel_variance
from ctuq.uncertainty.results.unseen_views import predict_views

_SIZE = 32


def _bars(fine):
    """Three bars, 3 to 4 pixels wide, none along the pixels."""
    y, x = np.mgrid[1 - 1 / fine : -1 : -2 / fine, -1 + 1 / fine : 1 : 2 / fine]
    image = np.zeros((fine, fine))
    for turn, cx, cy, value in ((0.3, -0.3, 0.2, 1.0), (1.1, 0.3, 0.1, 0.7), (2.2, 0.0, -0.4, 0.9)):
        u, v = np.cos(turn) * (x - cx) + np.sin(turn) * (y - cy), -np.sin(turn) * (x - cx) + np.cos(turn) * (y - cy)
        image[(np.abs(u) < 0.3) & (np.abs(v) < 3.5 / _SIZE)] = value
    return image


@pytest.fixture(scope="module")
def scans():
    """All views, of which each third is reconstructed."""
    geometry = ParallelBeam(angles=np.arange(90) * np.pi / 90 + 0.01, columns=48, pixel=1.0)
    grid = VolumeGrid((_SIZE, _SIZE), 1.0)
    return simulate(_bars, geometry, grid, RelativeNoise(0.005), rng=np.random.default_rng(0), finer=8, attenuation=0.05)


@pytest.fixture(scope="module")
def result(scans):
    return ctuq.reconstruct(scans.select(np.arange(0, 90, 3)), size=_SIZE, method="tv")


def _z(result):
    return (result.mean - result.truth)[result.truth > 0] / result.std[result.truth > 0]


def test_intervals_hold_bars_of_few_pixels(result):
    """By noise alone they held three quarters of them."""
    z = _z(result)
    assert np.mean(np.abs(z) < 1.96) > 0.9
    assert np.sqrt(np.mean(z**2)) < 1.3


def test_without_it_they_do_not(scans, monkeypatch):
    """So that the test above can fail."""
    monkeypatch.setattr("ctuq.tomo.subpixel.SHARE", 1e-12)
    plain = ctuq.reconstruct(scans.select(np.arange(0, 90, 3)), size=_SIZE, method="tv")
    assert np.mean(np.abs(_z(plain)) < 1.96) < 0.85


def test_unseen_rays_are_foretold_with_it(scans, result):
    others = scans.select(np.setdiff1d(np.arange(90), np.arange(0, 90, 3)))
    A = ctuq.ray_transform(result.grid, others.geometry, backend="matrix")
    told, without = (predict_views(r, A) for r in (result, replace(result, subpixel=0.0)))
    np.testing.assert_array_equal(told[0], without[0])
    scores, less = (gaussian_scores(others.projections - mean, variance) for mean, variance in (told, without))
    assert scores["log_likelihood"] > less["log_likelihood"] + 0.03
    assert 0.7 < scores["rms_z"] < 1.3


def test_a_result_keeps_it(result, tmp_path):
    assert result.subpixel > 0
    result.save(tmp_path / "results.h5")
    assert ctuq.Result.load(tmp_path / "results.h5").subpixel == result.subpixel


def test_the_budget_of_a_region_has_no_more_noise_than_variance(result):
    inside = result.truth > 0.04
    budget = result.region(inside).budget
    assert all(share >= 0 for share in budget.values())


def test_weights_are_those_of_both_and_keep_what_says_nothing():
    geometry, grid = ParallelBeam(angles=np.arange(12) * np.pi / 12, columns=24, pixel=1.0), VolumeGrid((16, 16), 1.0)
    A = ctuq.ray_transform(grid, geometry, backend="matrix")
    image = torch.zeros(16, 16)
    image[5:11, 6:9] = 1
    rng = torch.Generator().manual_seed(0)
    weights = torch.rand(12, 24, generator=rng) + 0.5
    weights[:, 3] = 0
    y = A(image) + 0.01 * torch.randn(12, 24, generator=rng) / weights.clamp(min=0.1).sqrt()
    found = ray_noise(Data(A, y, weights), image)
    assert (found.weights[:, 3] == 0).all() and (found.weights <= weights).all()
    none = torch.from_numpy(subpixel_variance(image.numpy(), A.matrix, geometry) == 0)
    assert none.any() and not none.all()
    torch.testing.assert_close(found.weights[none], weights[none])
    assert found.least == pytest.approx(1e-4, rel=0.3)
    assert found.share(2 * found.least) == pytest.approx(2)


def test_an_empty_scan_stays_as_it_is():
    geometry, grid = ParallelBeam(angles=np.arange(8) * np.pi / 8, columns=12, pixel=1.0), VolumeGrid((8, 8), 1.0)
    A = ctuq.ray_transform(grid, geometry, backend="matrix")
    found = ray_noise(Data(A, torch.zeros(8, 12), torch.ones(8, 12)), torch.zeros(8, 8))
    assert (found.weights == 1).all() and found.share(1.0) == 0
