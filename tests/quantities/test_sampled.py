from dataclasses import replace

import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.tomo import ConeBeam, VolumeGrid
from ctuq.uncertainty.results.volume import VolumeResult

SHAPE = (3, 4, 5)


@pytest.fixture
def volume():
    rng = np.random.default_rng(0)
    beam = ConeBeam(angles=np.array([0.0, 1.0]), columns=6, pixel=1.0, rows=4, source_to_axis=50.0, source_to_detector=90.0)
    samples = (0.02 + 0.001 * rng.standard_normal((32, *SHAPE))).astype(np.float32)
    return VolumeResult(samples.mean(0), VolumeGrid(SHAPE, 1.0), beam, "dip", samples=samples)


def test_a_mean_of_a_volume_is_that_of_its_samples(volume):
    mask = np.zeros(SHAPE)
    mask[1, 1:3], mask[0, 0, 0] = 1, 0.5
    found = volume.region(mask)
    values = np.array([(mask * sample).sum() / mask.sum() for sample in volume.samples])
    assert found.value == pytest.approx(values.mean())
    assert found.standard_uncertainty == pytest.approx(values.std(ddof=1))
    assert (found.draws, found.monte_carlo_error) == (32, pytest.approx(1 / np.sqrt(62)))
    assert found.coverage_factor == pytest.approx(2.0395, rel=1e-4)


def test_intervals_of_few_samples_hold_a_further_value_as_often_as_they_say():
    """Student's t of the mean's spread: a further draw lies within the factor times its own sqrt(1 + 1/n)."""
    rng, hits = np.random.default_rng(1), 0
    beam = ConeBeam(angles=np.array([0.0, 1.0]), columns=6, pixel=1.0, rows=4, source_to_axis=50.0, source_to_detector=90.0)
    for _ in range(600):
        samples = rng.standard_normal((8, 1, 1, 1)).astype(np.float32)
        result = VolumeResult(samples.mean(0), VolumeGrid((1, 1, 1), 1.0), beam, "dip", samples=samples)
        found = result.measure(lambda image: float(image[0, 0, 0]), level=0.9)
        hits += abs(rng.standard_normal() - found.value) <= found.coverage_factor * found.standard_uncertainty
    assert hits / 600 == pytest.approx(0.88, abs=0.035)


def test_volumes_that_cannot_be_measured_are_refused(volume):
    with pytest.raises(InputError, match="0 samples"):
        replace(volume, samples=None).region(np.ones(SHAPE))
    with pytest.raises(InputError, match="7 samples"):
        replace(volume, samples=volume.samples[:7]).measure(np.mean)
    for mask in (np.zeros(SHAPE), np.ones((2, 2, 2)), np.full(SHAPE, np.nan), np.full(SHAPE, 3)):
        with pytest.raises(InputError, match="mask"):
            volume.region(mask)
    with pytest.raises(InputError, match="finite"):
        volume.measure(lambda image: np.nan)


def test_samples_in_a_file_are_measured_one_by_one(volume, tmp_path):
    volume.save(tmp_path / "v.h5")
    with VolumeResult.open(tmp_path / "v.h5") as opened:
        assert opened.region(np.ones(SHAPE)).value == pytest.approx(volume.region(np.ones(SHAPE)).value)
