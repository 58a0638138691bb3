from dataclasses import replace

import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.quantities import Box, Sphere
from ctuq.quantities.discrepancy import LEAKS
from ctuq.quantities.drawn import POSTERIOR
from ctuq.quantities.solids import shares_of_solid
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
    assert np.sqrt(found.budget[POSTERIOR]) == pytest.approx(values.std(ddof=1))
    assert found.standard_uncertainty**2 == pytest.approx(found.budget[POSTERIOR] + found.budget[LEAKS])
    share = found.budget[POSTERIOR] / found.standard_uncertainty**2
    assert (found.draws, found.monte_carlo_error) == (32, pytest.approx(share / np.sqrt(62)))
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
    assert "draws alone" in found.notes[0]
    assert hits / 600 == pytest.approx(0.88, abs=0.035)


def test_a_sphere_and_a_box_lie_where_they_are_said_to(volume):
    grid = VolumeGrid((12, 14, 16), 0.5, (1.0, -2.0, 3.0))
    pitches = (0.75, 0.5, 0.5)
    z, y, x = np.indices(grid.shape)
    places = (
        1.0 + (x - 7.5) * 0.5,
        -2.0 - (y - 6.5) * 0.5,
        3.0 + (z - 5.5) * 0.75,
    )
    voxel = 0.75 * 0.5 * 0.5
    ball = shares_of_solid(Sphere(1.3, -1.8, 3.4, 2.1), grid, pitches)
    assert ball.sum() * voxel == pytest.approx(4 / 3 * np.pi * 2.1**3, rel=0.002)
    for place, centre in zip(places, (1.3, -1.8, 3.4), strict=True):
        assert (ball * place).sum() / ball.sum() == pytest.approx(centre, abs=0.01)
    box = shares_of_solid(Box(2.1, -1.0, 1.0, -0.4, -3.3, 4.2), grid, pitches)
    assert box.sum() * voxel == pytest.approx(2.5 * 2.3 * 3.2)
    for place, centre in zip(places, (0.85, -2.15, 2.6), strict=True):
        assert (box * place).sum() / box.sum() == pytest.approx(centre, abs=0.05)


def test_a_region_of_a_volume_is_its_own_mean_with_the_spread_of_samples(volume):
    shifted = replace(volume, mean=volume.mean + np.float32(1e-3))
    box = Box(-1.5, -1, -0.5, 0.5, 1, 1.5)
    before, after = volume.region(box), shifted.region(box)
    assert after.value - before.value == pytest.approx(1e-3, rel=1e-3)
    assert after.standard_uncertainty == before.standard_uncertainty
    other = Sphere(0, 0, 0, 1.2)
    assert volume.contrast(box, other).value == pytest.approx(before.value - volume.region(other).value)


def test_a_mask_of_the_whole_volume_is_one_of_the_voxels_with_samples(volume):
    roi = ((0, 3), (1, 3), (1, 5))
    part = replace(volume, samples=volume.samples[:, :, 1:3, 1:5], roi=roi)
    mask = np.zeros(SHAPE)
    mask[1, 1, 2:4] = 1
    assert part.region(mask).value == pytest.approx(part.region(mask[:, 1:3, 1:5]).value)
    assert part.region(mask).value == pytest.approx(volume.region(mask).value)
    assert part.covariance(mask[None]) == pytest.approx(part.covariance(mask[None, :, 1:3, 1:5]))
    with pytest.raises(InputError, match="that have error bars"):
        part.region(np.ones(SHAPE))


def test_the_covariance_of_a_volume_is_that_of_its_samples_and_says_its_error(volume):
    weights = np.random.default_rng(3).uniform(size=(3, *SHAPE))
    values = np.einsum("kzyx,nzyx->nk", weights, volume.samples.astype(np.float64))
    assert volume.covariance(weights) == pytest.approx(np.cov(values.T))
    assert volume.covariance(weights[:1]).shape == (1, 1)
    # Of many sets of 32 samples, variances scatter as the error says.
    many = np.random.default_rng(4).standard_normal((4000, 32)).var(axis=1, ddof=1)
    assert volume.covariance_error == pytest.approx(many.std(), rel=0.05)
    for wrong in (weights[0], weights[:, 1:], np.full((1, *SHAPE), np.nan)):
        with pytest.raises(InputError, match="functionals"):
            volume.covariance(wrong)


def test_the_probability_of_a_part_of_a_volume_is_the_share_of_its_samples(volume):
    samples = np.full((32, *SHAPE), 0.02, np.float32)
    samples[:12, 1, 1:3, 1:3] = 0.05
    samples[12:20, 0, 0, 0], samples[12:20, 2, 3, 4] = 0.05, 0.05
    with_part = replace(volume, samples=samples)
    found = with_part.probability(np.ones(SHAPE), above=0.04, at_least=4.0)
    assert (found.value, found.draws) == (12 / 32, 32)
    assert found.monte_carlo_error == pytest.approx(np.sqrt(0.375 * 0.625 / 32), rel=0.1)
    assert with_part.probability(np.ones(SHAPE), above=0.04, at_least=1.0).value == 20 / 32
    assert with_part.probability(np.ones(SHAPE), above=0.04, at_least=5.0).value == 0
    for size in (0.5, 61, np.nan):
        with pytest.raises(InputError, match="part"):
            with_part.probability(np.ones(SHAPE), above=0.04, at_least=size)


def test_the_probability_of_a_mean_of_a_volume_is_one_half_at_it(volume):
    box = Box(-1, -1, -1, 1, 1, 1)
    mean = volume.region(box)
    assert volume.probability(box, above=mean.value).value == pytest.approx(0.5)
    high = mean.value + mean.standard_uncertainty
    above, below = volume.probability(box, above=high), volume.probability(box, below=high)
    assert above.value + below.value == pytest.approx(1) and above.value == pytest.approx(0.1625, abs=0.001)
    assert 0 < above.monte_carlo_error < 0.05


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


def test_a_function_that_writes_into_its_volume_spoils_nothing(volume):
    before = volume.samples.copy()
    volume.measure(lambda image: float(np.multiply(image, 0, out=image).sum()))
    assert (volume.samples == before).all()
    with pytest.raises(InputError, match="one finite number for each volume"):
        volume.measure(lambda image: "a")
