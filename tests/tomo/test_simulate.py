from functools import partial

import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.tomo.geometry import FanBeam, ParallelBeam, VolumeGrid, radians
from ctuq.tomo.phantoms import shepp_logan
from ctuq.tomo.rays.entries import build_matrix
from ctuq.tomo.simulate import PhotonNoise, RelativeNoise, phantom_scan, simulate

GRID = VolumeGrid((32, 32), 1.0)
BEAM = ParallelBeam(angles=np.linspace(0, np.pi, 24, endpoint=False), columns=46, pixel=1.0)


def _rng():
    return np.random.default_rng(5)


def _disc(radius, size):
    line = (np.arange(size) + 0.5) / size * 32 - 16
    return (np.hypot(line[:, None], line[None, :]) < radius).astype(float)


@pytest.mark.parametrize(
    "beam",
    [
        BEAM,
        FanBeam(
            angles=np.linspace(0, 2 * np.pi, 12, endpoint=False),
            columns=60,
            pixel=2.0,
            source_to_axis=90,
            source_to_detector=200,
        ),
    ],
)
def test_projections_of_a_disc_are_its_chords(beam):
    scan = simulate(partial(_disc, 10.0), beam, GRID, RelativeNoise(0), rng=_rng(), finer=8, attenuation=0.1)
    row = beam.vectors()[0]
    centres = row[3:5] + (np.arange(beam.columns) - (beam.columns - 1) / 2)[:, None] * row[6:8]
    along = centres - row[:2] if beam.magnification > 1 else np.broadcast_to(row[:2], centres.shape)
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    distance = np.abs(centres[:, 0] * along[:, 1] - centres[:, 1] * along[:, 0])
    chords = 0.1 * 2 * np.sqrt(np.maximum(100 - distance**2, 0))
    inside = distance < 9
    assert np.allclose(scan.projections[:, inside], chords[inside], rtol=0.02)
    assert np.allclose(scan.projections[:, distance > 11], 0)


def test_the_truth_is_the_area_average_of_the_fine_phantom():
    scan = simulate(shepp_logan, BEAM, GRID, RelativeNoise(0.05), rng=_rng(), finer=4, attenuation=0.02)
    assert np.allclose(scan.truth, 0.02 * shepp_logan(128).reshape(32, 4, 32, 4).mean(axis=(1, 3)), atol=1e-7)


def test_the_data_are_not_projections_of_the_truth():
    scan = simulate(shepp_logan, BEAM, GRID, RelativeNoise(0), rng=_rng())
    own = (build_matrix(GRID, BEAM) @ scan.truth.ravel()).reshape(BEAM.shape)
    assert 0.005 < np.linalg.norm(own - scan.projections) / np.linalg.norm(scan.projections) < 0.1


def test_relative_noise_has_the_level_asked_for():
    clean, noisy = (simulate(shepp_logan, BEAM, GRID, RelativeNoise(level), rng=_rng()).projections for level in (0, 0.05))
    assert np.std(noisy - clean) / np.abs(clean).mean() == pytest.approx(0.05, rel=0.05)


def test_photon_noise_has_the_variance_that_the_weights_say():
    scans = [
        simulate(shepp_logan, BEAM, GRID, PhotonNoise(2000), rng=np.random.default_rng(seed), attenuation=0.1)
        for seed in range(25)
    ]
    spread = np.std([scan.projections for scan in scans], axis=0)
    weights = np.mean([scan.weights for scan in scans], axis=0)
    assert weights.mean() == pytest.approx(1, abs=1e-4)
    scaled = spread**2 * weights
    few, many = weights < np.quantile(weights, 0.2), weights > np.quantile(weights, 0.8)
    assert scaled[few].mean() / scaled[many].mean() == pytest.approx(1, abs=0.2)
    assert (spread[few] ** 2).mean() / (spread[many] ** 2).mean() > 1.5


def test_a_seed_gives_one_scan():
    first, again = (simulate(shepp_logan, BEAM, GRID, PhotonNoise(100), rng=_rng(), attenuation=0.05) for _ in range(2))
    assert np.array_equal(first.projections, again.projections)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"finer": 1}, "at least 2 times"),
        ({"phantom": np.ones((32, 32))}, "64, 64"),
        ({"phantom": np.full((64, 64), np.nan)}, "NaN"),
        ({"grid": VolumeGrid((32, 16), 1.0)}, "square"),
        (
            {"noise": PhotonNoise(10), "attenuation": 30.0, "phantom": np.ones((64, 64)), "geometry": BEAM.cropped(20, 26)},
            "none passes",
        ),
    ],
)
def test_what_cannot_be_simulated_is_refused(change, words):
    given = {"phantom": shepp_logan, "geometry": BEAM, "grid": GRID, "noise": RelativeNoise(0.05)} | change
    with pytest.raises(InputError, match=words):
        simulate(**given, rng=_rng())


@pytest.mark.parametrize("bad", [lambda: RelativeNoise(-0.1), lambda: RelativeNoise(np.nan), lambda: PhotonNoise(0)])
def test_impossible_noise_is_refused(bad):
    with pytest.raises(InputError):
        bad()


def test_a_phantoms_scan_is_the_same_for_the_same_seed_and_covers_the_phantom():
    angles = radians(np.arange(4) * 45.0)
    first, again, other = (phantom_scan("ellipses", 16, angles, noise=0.05, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.projections, again.projections)
    np.testing.assert_array_equal(first.truth, again.truth)
    assert not np.array_equal(first.truth, other.truth)
    assert first.grid.shape == (16, 16)
    assert first.geometry.columns * first.geometry.pixel >= np.sqrt(2) * 16 * first.grid.voxel
    clean = phantom_scan("ellipses", 16, angles, noise=0.0, seed=1).projections
    spread = (first.projections - clean).std() / np.abs(clean).mean()
    assert spread == pytest.approx(0.05, rel=0.3)
