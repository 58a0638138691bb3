import numpy as np
import pytest
import torch

from ctuq.errors import InputError
from ctuq.recon import CLASSICAL, fbp
from ctuq.recon.redundancy import fan_angles, ray_weights
from ctuq.tomo import FanBeam, ParallelBeam, VolumeGrid, radians, ray_transform

CENTRE, RADIUS, ATTENUATION = (3.1, -2.2), 8.0, 0.05
GRID = VolumeGrid((64, 64), 0.5)
_LINE = dict(columns=96, pixel=0.4)
_FLAT = dict(columns=110, pixel=0.8, source_to_axis=60.0, source_to_detector=120.0)
RANDOM = np.random.default_rng(0)

GEOMETRIES = {
    "half turn": ParallelBeam(angles=radians(np.arange(0, 180, 3)), **_LINE),
    "half turn, both ends": ParallelBeam(angles=radians(np.linspace(0, 180, 61)), **_LINE),
    "full turn": ParallelBeam(angles=radians(np.arange(0, 360, 3)), **_LINE),
    "clockwise": ParallelBeam(angles=-radians(np.arange(0, 180, 3)), **_LINE),
    "random angles": ParallelBeam(angles=RANDOM.uniform(0, np.pi, 120), **_LINE),
    "20 views": ParallelBeam(angles=radians(np.arange(0, 180, 9)), **_LINE),
    "repeated views": ParallelBeam(angles=radians([*range(0, 180, 3), *range(0, 60, 3)]), **_LINE),
    "shifted detector": ParallelBeam(angles=radians(np.arange(0, 360, 3)), columns=70, pixel=0.4, detector_offset=6.0),
    "shifted axis": ParallelBeam(angles=radians(np.arange(0, 180, 3)), columns=110, pixel=0.4, axis_offset=2.0),
    "fan": FanBeam(angles=radians(np.arange(0, 360, 4)), **_FLAT),
    "fan, 30 views": FanBeam(angles=radians(np.arange(0, 360, 12)), **_FLAT),
    "fan, random angles": FanBeam(angles=RANDOM.uniform(0, 2 * np.pi, 200), **_FLAT),
    "fan, short scan": FanBeam(angles=radians(np.arange(10, 226, 3)), **_FLAT),
    "fan, long short scan": FanBeam(angles=radians(np.arange(10, 290, 3)), **_FLAT),
    "fan, shifted detector": FanBeam(angles=radians(np.arange(0, 360, 3)), **{**_FLAT, "columns": 72}, detector_offset=10.0),
    "fan, shifted axis": FanBeam(angles=radians(np.arange(0, 360, 3)), **_FLAT, axis_offset=2.0),
    "fan, short scan, shifts": FanBeam(angles=-radians(np.arange(0, 222, 3)), **_FLAT, axis_offset=2.0, detector_offset=3.0),
}


def chords(geometry, finer=16):
    """Line integrals of the disc, averaged over each pixel, from the scanner turned back to angle 0."""
    places = (np.arange(geometry.columns * finer) + 0.5) / finer - geometry.columns / 2
    u = places * geometry.pixel + geometry.detector_offset
    middle = np.exp(-1j * geometry.angles)[:, None] * complex(*CENTRE) + geometry.axis_offset
    if isinstance(geometry, FanBeam):
        slope = u / geometry.source_to_detector
        distance = (middle.real - slope * (geometry.source_to_axis + middle.imag)) / np.hypot(1, slope)
    else:
        distance = middle.real - u
    lengths = 2 * np.sqrt(np.maximum(RADIUS**2 - distance**2, 0))
    return torch.from_numpy(ATTENUATION * lengths.reshape(*geometry.shape, finer).mean(2)).float()


def noisy(scan):
    noise = torch.randn(scan.geometry.shape, generator=torch.Generator().manual_seed(0))
    return torch.from_numpy(scan.projections.copy()) + 0.02 * noise


def regions():
    x = (np.arange(64) - 31.5) * 0.5
    distance = np.hypot(x[None] - CENTRE[0], -x[:, None] - CENTRE[1])
    seen = np.hypot(x[None], x[:, None]) < 14
    return distance < RADIUS - 1.5, (distance > RADIUS + 1.5) & seen


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_disc_comes_back_with_its_attenuation_where_it_was(name):
    geometry = GEOMETRIES[name]
    image = fbp(ray_transform(GRID, geometry), chords(geometry)).numpy() / ATTENUATION
    inside, outside = regions()
    assert abs(image[inside].mean() - 1) < 0.01
    assert image[inside].std() < 0.01
    assert abs(image[outside].mean()) < 0.005


@pytest.mark.parametrize("window", ["ram-lak", "shepp-logan", "cosine", "hamming", "hann"])
def test_every_window_keeps_the_amplitude(window):
    geometry = GEOMETRIES["fan"]
    image = fbp(ray_transform(GRID, geometry), chords(geometry), window=window).numpy()
    assert image[regions()[0]].mean() == pytest.approx(ATTENUATION, rel=0.005)


def test_windows_smooth_in_their_known_order():
    geometry = GEOMETRIES["half turn"]
    A = ray_transform(GRID, geometry)
    noise = A.range.randn(rng=torch.Generator().manual_seed(0))
    stds = [float(fbp(A, noise, window=w).std()) for w in ["ram-lak", "shepp-logan", "cosine", "hann"]]
    assert stds == sorted(stds, reverse=True)


def test_a_coarse_image_is_not_aliased_by_a_fine_detector():
    """White noise: a grid of twice the voxel has half the bandwidth, so about 1/8 of the variance of a ramp."""
    fine, coarse = VolumeGrid((32, 32), 0.4), VolumeGrid((16, 16), 0.8)
    geometry = GEOMETRIES["half turn"]
    noise = torch.randn(64, *geometry.shape, generator=torch.Generator().manual_seed(0))
    ratio = fbp(ray_transform(coarse, geometry), noise).var() / fbp(ray_transform(fine, geometry), noise).var()
    assert 0.08 < ratio < 0.22


@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name.startswith("fan") and "random" not in name])
def test_each_line_counts_once(name):
    """The weights of the views of each pair of opposite columns cover half a turn of lines for either side."""
    geometry = GEOMETRIES[name]
    weights, fan = ray_weights(geometry), fan_angles(geometry)
    both = np.abs(fan) < 0.95 * min(-fan[0], fan[-1])
    total = np.interp(fan[both], fan, weights.sum(0)) + np.interp(-fan[both], fan, weights.sum(0))
    np.testing.assert_allclose(total, 2 * np.pi, rtol=0.03)


def test_quadrature_of_a_parallel_beam_covers_half_a_turn_whatever_the_angles():
    for name in ["half turn", "full turn", "clockwise", "random angles", "repeated views"]:
        np.testing.assert_allclose(ray_weights(GEOMETRIES[name]).sum(0), np.pi, rtol=1e-6)


def test_a_hole_in_the_angles_is_not_filled_by_its_neighbours():
    limited = ParallelBeam(angles=radians(np.arange(0, 60, 2)), **_LINE)
    np.testing.assert_allclose(ray_weights(limited), radians(2), rtol=1e-6)


@pytest.mark.parametrize("method", CLASSICAL)
def test_batches_and_units_pass_through_every_method(method, disc_scan):
    A = ray_transform(disc_scan.grid, disc_scan.geometry)
    y = noisy(disc_scan)
    one = CLASSICAL[method](A, y)
    batch = CLASSICAL[method](A, torch.stack([y, 1000 * y, y])[None])
    assert batch.shape == (1, 3, 24, 24)
    torch.testing.assert_close(batch[0, 2], one, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(batch[0, 1] / 1000, one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", CLASSICAL)
def test_micrometres_for_millimetres_scale_every_method(method, disc_scan):
    geometry = disc_scan.geometry
    tiny = ParallelBeam(angles=geometry.angles, columns=geometry.columns, pixel=geometry.pixel / 1000)
    y = noisy(disc_scan)
    found = CLASSICAL[method](ray_transform(VolumeGrid((24, 24), 0.001), tiny), y) / 1000
    expected = CLASSICAL[method](ray_transform(disc_scan.grid, geometry), y)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_unknown_windows_and_wrong_shapes_are_refused(disc_scan):
    A = ray_transform(disc_scan.grid, disc_scan.geometry)
    with pytest.raises(InputError, match="choose one of"):
        fbp(A, torch.zeros(30, 36), window="box")
    with pytest.raises(InputError, match="geometry says"):
        fbp(A, torch.zeros(36, 30))
