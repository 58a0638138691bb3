"""Variances of what pixels cannot draw, against objects that are drawn eight times finer."""

import numpy as np
import pytest

from ctuq.tomo.geometry import FanBeam, ParallelBeam, VolumeGrid
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.rays.entries import build_matrix
from ctuq.tomo.subpixel import noise_beside, subpixel_variance

_SIZE, _FINER = 32, 8
_ANGLES = np.arange(36) * np.pi / 36 + 0.013
_BEAMS = {
    "parallel": ParallelBeam(angles=_ANGLES, columns=48, pixel=1.0),
    "fan": FanBeam(angles=2 * _ANGLES, columns=64, pixel=1.5, source_to_axis=70.0, source_to_detector=130.0),
}


def _missed(fine_image, geometry):
    """How far the rays of an object are from those of its pixels' means, these means, and the lengths."""
    n = len(fine_image) // _FINER
    mean = fine_image.reshape(n, _FINER, n, _FINER).mean((1, 3))
    rays = build_matrix(VolumeGrid(fine_image.shape, 1 / _FINER), geometry) @ fine_image.ravel().astype(np.float32)
    matrix = build_matrix(VolumeGrid((n, n), 1.0), geometry)
    return rays.astype(np.float64) - matrix @ mean.ravel(), mean, matrix


@pytest.mark.parametrize("beam", _BEAMS)
@pytest.mark.parametrize("phantom", ["shepp-logan", "rectangles", "ellipses", "glyph"])
def test_it_is_the_mean_square_of_what_pixels_miss(beam, phantom):
    fine = np.asarray(PHANTOMS[phantom](_SIZE * _FINER, np.random.default_rng(1)), float)
    missed, mean, matrix = _missed(fine, _BEAMS[beam])
    told = subpixel_variance(mean, matrix, _BEAMS[beam]).ravel()
    assert 0.4 < np.mean(missed**2) / np.mean(told) < (4.5 if phantom == "rectangles" else 2.5)
    assert np.corrcoef(np.abs(missed), np.sqrt(told))[0, 1] > 0.45


@pytest.mark.parametrize("turn", [0.0, 0.4, np.pi / 4, 1.2])
def test_rays_along_an_edge_have_it_and_rays_across_hardly(turn):
    """Also where the edge is oblique, so that the sign of the mixed difference matters."""
    y, x = np.mgrid[_SIZE / 2 - 0.5 : -_SIZE / 2 : -1, -_SIZE / 2 + 0.5 : _SIZE / 2]
    # A soft bar along (cos turn, sin turn), from end to end of the image.
    image = 1 / (1 + np.exp((np.abs(-np.sin(turn) * x + np.cos(turn) * y) - 4.2) / 0.5))
    views = {}
    for name, along in (("along", turn), ("across", turn + np.pi / 2)):
        # At angle 0 rays run along y.
        geometry = ParallelBeam(angles=np.array([along - np.pi / 2]), columns=48, pixel=1.0)
        matrix = build_matrix(VolumeGrid(image.shape, 1.0), geometry)
        directions = geometry.vectors()[0, :2]
        assert abs(abs(directions @ [np.cos(along), np.sin(along)]) - 1) < 1e-9
        views[name] = subpixel_variance(image, matrix, geometry).max()
    assert views["along"] > 8 * views["across"]


def test_it_is_none_where_an_image_is_flat_or_a_ramp_and_follows_its_square():
    geometry = _BEAMS["fan"]
    matrix = build_matrix(VolumeGrid((_SIZE, _SIZE), 1.0), geometry)
    ramp = np.add.outer(0.3 * np.arange(_SIZE), 0.1 * np.arange(_SIZE))
    inside = np.zeros((_SIZE, _SIZE))
    inside[1:-1, 1:-1] = 1
    # Beyond the image its edge goes on: a ramp bends there, and nowhere else.
    through = (matrix @ (1 - inside).ravel() == 0).reshape(geometry.shape)
    assert not through.any() or subpixel_variance(ramp, matrix, geometry)[through].max() < 1e-20
    assert subpixel_variance(np.full((_SIZE, _SIZE), 0.7), matrix, geometry).max() < 1e-20
    disc = np.random.default_rng(0).random((_SIZE, _SIZE))
    np.testing.assert_allclose(
        subpixel_variance(3 * disc, matrix, geometry), 9 * subpixel_variance(disc, matrix, geometry), rtol=1e-9
    )


def test_in_other_units_it_is_the_same():
    """Twice the lengths, half the attenuation: the same line integrals."""
    image = np.random.default_rng(0).random((_SIZE, _SIZE))
    small = ParallelBeam(angles=_ANGLES, columns=48, pixel=1.0)
    large = ParallelBeam(angles=_ANGLES, columns=48, pixel=2.0)
    one = subpixel_variance(image, build_matrix(VolumeGrid(image.shape, 1.0), small), small)
    two = subpixel_variance(image / 2, build_matrix(VolumeGrid(image.shape, 2.0), large), large)
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-8)


def test_noise_is_told_beside_it():
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.2, 3.0, (40, 60)) * (rng.random((40, 60)) > 0.05)
    beside = np.where(rng.random((40, 60)) < 0.4, rng.exponential(4.0, (40, 60)), 0.0)
    residual = rng.standard_normal((40, 60)) * np.sqrt(0.09 / np.maximum(weights, 1e-3) + beside)
    assert noise_beside(residual, weights, beside) == pytest.approx(0.09, rel=0.1)


@pytest.mark.parametrize("seed", range(6))
def test_rays_that_are_taken_for_alike_leave_the_noise_as_it_is(seed):
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.1, 3.0, 3000) * (rng.random(3000) > 0.05)
    beside = np.where(rng.random(3000) < 0.6, np.exp(rng.normal(-3, 4, 3000)), 0.0)
    residual = rng.standard_normal(3000) * np.sqrt(np.exp(rng.normal(-4, 2)) / np.maximum(weights, 1e-3) + beside)
    used = weights > 0
    logs = np.log(np.mean(weights[used] * residual[used] ** 2)) - np.linspace(0, 20, 400)
    variances = np.exp(logs[:, None]) / weights[used] + beside[used]
    best = np.exp(logs[np.argmin((np.log(variances) + residual[used] ** 2 / variances).sum(1))])
    assert noise_beside(residual, weights, beside) == pytest.approx(max(best, 1e-4 * beside[used].max()), rel=1e-9)


@pytest.mark.parametrize("residual", [0.0, 1e-30])
def test_without_noise_it_is_bounded_by_the_structure(residual):
    beside = np.array([[0.0, 1.0, 3.0]])
    assert noise_beside(np.full((1, 3), residual), np.ones((1, 3)), beside) == pytest.approx(3e-4)


def test_nothing_measured_and_nothing_there_is_no_noise():
    assert noise_beside(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3))) == 0.0
