"""Rays that leave the grid: what lies outside is taken out, for every method."""

import numpy as np
import pytest
import torch
from discs import disc

from ctuq.recon import CLASSICAL
from ctuq.recon.fbp import fbp
from ctuq.recon.outside import outside_rays
from ctuq.recon.redundancy import ray_weights
from ctuq.tomo.axis import with_axis_column
from ctuq.tomo.geometry import FanBeam, ParallelBeam, VolumeGrid
from ctuq.tomo.rays.backends import ray_transform

ANGLES = np.linspace(0, np.pi, 40, endpoint=False)
LEVEL = 0.05


def _sinogram(geometry, radius):
    return torch.from_numpy(disc(geometry, radius, level=LEVEL).projections.copy())


def _inside(image, share=0.85):
    n = image.shape[-1]
    x = (np.arange(n) + 0.5) / n * 2 - 1
    return image.numpy()[np.hypot(x[:, None], x) < share]


@pytest.mark.parametrize("method", ["sirt", "cgls"])
def test_a_small_field_of_a_whole_object_is_quantitative(method):
    geometry = ParallelBeam(angles=ANGLES, columns=64, pixel=0.4)
    y = _sinogram(geometry, 10.0)
    A, ones = ray_transform(VolumeGrid((24, 24), 0.3), geometry), torch.ones_like(y)
    raw = _inside(CLASSICAL[method](A, y, weights=ones))
    mended = _inside(CLASSICAL[method](A, y - outside_rays(A, y, weights=ones, reach=10.4), weights=ones))
    assert mended.mean() == pytest.approx(LEVEL, rel=0.02) and mended.std() < 0.15 * LEVEL
    assert abs(raw.mean() - LEVEL) > 0.3 * LEVEL


def test_nothing_outside_is_nothing_to_take_out():
    geometry = ParallelBeam(angles=ANGLES, columns=64, pixel=0.4)
    y = _sinogram(geometry, 5.0)
    A = ray_transform(VolumeGrid((32, 32), 0.5), geometry)
    assert outside_rays(A, y, weights=torch.ones_like(y), reach=8.0).abs().max() < 0.02 * y.max()


@pytest.mark.parametrize("method", ["fbp", "sirt"])
def test_a_region_of_interest_scan_loses_its_bright_rim(method):
    geometry = ParallelBeam(angles=ANGLES, columns=40, pixel=0.2)
    y = _sinogram(geometry, 8.0)
    A, ones = ray_transform(VolumeGrid((32, 32), 0.25), geometry), torch.ones_like(y)
    used = y if method == "fbp" else y - outside_rays(A, y, weights=ones, reach=8.0)
    image = CLASSICAL[method](A, used, weights=ones)
    assert _inside(image).mean() == pytest.approx(LEVEL, rel=0.25)
    assert _inside(image, 0.98).max() < 1.8 * LEVEL


def test_an_object_that_ends_at_the_edge_is_not_continued_by_fbp():
    geometry = ParallelBeam(angles=ANGLES, columns=64, pixel=0.25)
    A = ray_transform(VolumeGrid((32, 32), 0.5), geometry)
    assert _inside(fbp(A, _sinogram(geometry, 7.9))).mean() == pytest.approx(LEVEL, rel=0.01)


@pytest.mark.parametrize("column", [31.9, 33.0, 45.0, 60.0])
@pytest.mark.parametrize("kind", ["parallel", "fan"])
def test_a_full_turn_with_the_axis_anywhere_on_the_detector_is_quantitative_to_the_rim(kind, column):
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    if kind == "parallel":
        geometry = ParallelBeam(angles=angles, columns=64, pixel=0.25)
    else:
        geometry = FanBeam(angles=angles, columns=64, pixel=0.5, source_to_axis=48.0, source_to_detector=96.0)
    geometry = with_axis_column(geometry, column)
    radius = geometry.measured_field / 2 - 0.3
    grid = VolumeGrid((40, 40), 2 * radius / 40)
    image = fbp(ray_transform(grid, geometry), _sinogram(geometry, radius))
    assert _inside(image, 0.9).mean() == pytest.approx(LEVEL, rel=0.01) and _inside(image, 0.9).std() < 0.03 * LEVEL


def test_lines_that_are_measured_twice_share_their_weight():
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    for column in (33.0, 50.0):
        geometry = with_axis_column(ParallelBeam(angles=angles, columns=64, pixel=1.0), column)
        weights, distance = ray_weights(geometry)[0] / (2 * np.pi / 40), geometry.axis_distances(np.arange(64))
        for s, w in zip(distance, weights, strict=True):
            other = np.interp(-s, distance, weights, left=0.0, right=0.0)
            assert w + other == pytest.approx(1.0, abs=0.02) or abs(abs(s) - np.abs(distance[[0, -1]]).min()) <= 1.0
