from dataclasses import replace

import numpy as np
import pytest
import torch

from ctuq.errors import InputError
from ctuq.scores.gaussian import gaussian_scores
from ctuq.tomo import ParallelBeam, Scan, VolumeGrid, radians, ray_transform
from ctuq.tomo.scan import Provenance
from ctuq.uncertainty.calibration.foreign import calibrate
from ctuq.uncertainty.calibration.likeness import doubts_of_samples
from ctuq.uncertainty.calibration.spread import Spread
from ctuq.uncertainty.results.image import Result

N, VOXEL, NOISE = 12, 2.0, 0.02
GRID = VolumeGrid((N, N), VOXEL)
REGION = np.zeros((N, N))
REGION[2:8, 3:9] = 1 / 36


def smooth(normal, count):
    """Images whose pixels go together over a few pixels, of standard deviation 0.01."""
    x = np.arange(N)
    along = np.linalg.cholesky(np.exp(-0.5 * ((x[:, None] - x) / 1.5) ** 2) + 1e-6 * np.eye(N))
    return 0.01 * np.einsum("ab,nbc,dc->nad", along, normal.standard_normal((count, N, N)), along)


@pytest.fixture(scope="module")
def world():
    """A truth drawn about an image, scanned with known noise: the image's covariance is known exactly."""
    normal = np.random.default_rng(3)
    image = 0.05 * (np.hypot(*np.mgrid[-1:1:12j, -1:1:12j]) < 0.8)
    geometry = ParallelBeam(angles=radians(np.arange(30) * 6.0), columns=18, pixel=VOXEL)
    A = ray_transform(GRID, geometry)
    truth = image + smooth(normal, 1)[0]
    clean = A(torch.tensor(truth, dtype=torch.float32)).numpy()
    given = {"truth": truth, "grid": GRID, "provenance": Provenance(facts={"beam": "monochromatic"})}
    scan = Scan(clean + NOISE * normal.standard_normal(clean.shape), geometry, **given)
    return image, scan, smooth(normal, 400)


HELD = np.arange(1, 30)


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_error_bars_that_are_too_long_or_too_short_by_a_factor_come_back_to_the_truth(world, factor):
    image, scan, draws = world
    result = calibrate(image, image + factor * draws, scan, HELD, sigma2=NOISE**2)
    assert result.calibration.image_scale * factor**2 == pytest.approx(1, abs=0.6)
    assert result.std.mean() == pytest.approx(0.01, rel=0.35)
    assert result.scores["truth"]["rms_z"] == pytest.approx(1, abs=0.4)
    assert result.calibration.calibrated["rms_z"] == pytest.approx(1, abs=0.12)


def test_a_cautious_scale_is_never_below_one(world):
    image, scan, draws = world
    wide = image + 5 * draws
    assert calibrate(image, wide, scan, HELD, sigma2=NOISE**2, cautious=True).calibration.image_scale >= 1
    assert calibrate(image, wide, scan, HELD, sigma2=NOISE**2).calibration.image_scale < 0.1


def test_samples_their_covariance_and_cuqipys_samples_give_the_same_error_bars(world):
    image, scan, draws = world
    flat = (draws - draws.mean(0)).reshape(len(draws), -1)

    class Samples:
        samples = draws.reshape(len(draws), -1).T

    by_samples, by_covariance, by_object = (
        calibrate(image, given, scan, [3, 9]) for given in (draws, flat.T @ flat / (len(flat) - 1), Samples())
    )
    np.testing.assert_array_equal(by_object.std, by_samples.std)
    np.testing.assert_allclose(by_covariance.std, by_samples.std, rtol=1e-5)
    regions = np.stack([REGION, np.eye(N) / N])
    np.testing.assert_allclose(by_covariance.covariance(regions), by_samples.covariance(regions), rtol=1e-4)


def test_the_covariance_of_a_region_is_that_of_the_samples_and_so_are_further_draws(world):
    image, scan, draws = world
    result = calibrate(image, draws, scan, [3, 9])
    of_samples = (result.samples * REGION).sum((1, 2)).var(ddof=1)
    assert result.covariance(REGION[None])[0, 0] == pytest.approx(of_samples, rel=1e-3)
    assert (result.draw(3000) * REGION).sum((1, 2)).var() == pytest.approx(of_samples, rel=0.1)
    few = calibrate(image, draws[:20], scan, [3, 9])
    of_few = (few.samples * REGION).sum((1, 2)).var(ddof=1)
    assert few.covariance(REGION[None])[0, 0] == pytest.approx(of_few, rel=1e-3)


def test_a_constant_standard_deviation_is_scaled_to_what_held_out_rays_miss(world):
    image, scan, _ = world
    results = [calibrate(image, std, scan, HELD, sigma2=NOISE**2) for std in (1e-4, 1.0)]
    assert results[0].std.mean() == pytest.approx(results[1].std.mean(), rel=0.1)
    assert np.ptp(results[0].std) == 0
    assert any("pixels count as independent" in text for text in results[0].warnings)
    assert results[0].covariance(REGION[None])[0, 0] == pytest.approx(results[0].std[0, 0] ** 2 / 36, rel=1e-4)


def test_a_result_reads_back_and_its_scores_are_those_of_the_rays(world, tmp_path):
    image, scan, draws = world
    result = calibrate(image, draws, scan, np.isin(np.arange(30), [2, 20]), method="CUQIpy")
    measured, predicted, raw, calibrated = result.calibration.predictions
    assert result.calibration.views == (2, 20)
    np.testing.assert_allclose(measured, scan.projections[[2, 20]], rtol=1e-6)
    for std, scores in ((raw, result.calibration.raw), (calibrated, result.calibration.calibrated)):
        expected = gaussian_scores(measured - predicted, std**2)
        assert scores["log_likelihood"] == pytest.approx(expected["log_likelihood"], rel=1e-3)
    for kept in (result, calibrate(image, 0.01, scan, [4])):
        kept.save(tmp_path / "results.h5")
        again = Result.load(tmp_path / "results.h5")
        np.testing.assert_array_equal(again.std, kept.std)
        np.testing.assert_array_equal(again.draw(2), kept.draw(2))
        assert again.method == kept.method


def test_rays_without_weight_say_nothing(world):
    image, scan, draws = world
    weights, spoilt = np.ones(scan.projections.shape, np.float32), scan.projections.copy()
    weights[:, :3], spoilt[:, :3] = 0, 7.0
    weights[12] = 0
    bad = Scan(spoilt, scan.geometry, weights=weights)
    result = calibrate(image, draws, bad, [5, 12, 20], grid=GRID, sigma2=NOISE**2)
    assert result.calibration.views == (5, 20)
    assert result.calibration.calibrated["rmse"] < 0.3
    with pytest.raises(InputError, match="weight 0"):
        calibrate(image, draws, bad, [12], grid=GRID)


@pytest.mark.parametrize(
    ("turned", "told"),
    [(lambda x: x[::-1], "upside down"), (lambda x: x.T, "transposed"), (lambda x: 10 * x, "times those of the image")],
    ids=["flipped", "transposed", "unit"],
)
def test_an_image_the_wrong_way_round_or_in_another_unit_is_told(turned, told):
    image = np.zeros((N, N))
    image[1:4, 2:10], image[6:10, 2:4] = 0.05, 0.08
    geometry = ParallelBeam(angles=radians(np.arange(6) * 30.0), columns=18, pixel=VOXEL)
    rays = ray_transform(GRID, geometry)(torch.tensor(image, dtype=torch.float32)).numpy()
    scan = Scan(rays + 0.01 * np.random.default_rng(0).standard_normal(rays.shape), geometry, grid=GRID)
    assert not any(told in text for text in calibrate(image, 0.01, scan, [1, 4]).warnings)
    assert any(told in text for text in calibrate(turned(image), 0.01, scan, [1, 4]).warnings)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image": np.zeros((3, N, N))}, "one slice"),
        ({"image": np.full((N, N), np.nan)}, "NaN"),
        ({"image": np.zeros((N, N + 1))}, "pixel_in_mm"),
        ({"samples_or_covariance": np.zeros((5, 3))}, "no account of an image"),
        ({"samples_or_covariance": np.ones((5, N, N))}, "the same image"),
        ({"samples_or_covariance": np.ones((1, N, N))}, "cannot tell a spread"),
        ({"samples_or_covariance": np.triu(np.ones((N * N, N * N)))}, "no covariance"),
        ({"samples_or_covariance": -0.1}, "positive"),
        ({"held_out": []}, "at least one"),
        ({"held_out": [30]}, "0 to 29"),
        ({"held_out": [0.5]}, "indices"),
        ({"held_out": np.ones(4, bool)}, "mask"),
        ({"held_out": np.isin(np.arange(30), [4, 14]).astype(np.uint8)}, "mask of bool"),
        ({"held_out": (np.arange(30) == 4).astype(int).tolist()}, "mask of bool"),
        ({"held_out": np.arange(30)}, "All 30 views"),
        ({"held_out": np.ones(30, bool)}, "All 30 views"),
        ({"sigma2": 0.0}, "positive"),
        ({"sigma2": "a"}, "positive"),
        ({"scan": "scan.h5"}, "Scan of one slice"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_in_one_sentence(world, change, told):
    image, scan, draws = world
    given = {"image": image, "samples_or_covariance": draws, "scan": scan, "held_out": [3], **change}
    with pytest.raises(InputError, match=told):
        calibrate(**given)


def told_of(samples, image):
    return doubts_of_samples(Spread.of(samples, image.shape), image)


def test_samples_that_are_not_of_the_image_are_told(world):
    draws, image = world[2], np.zeros((N, N))
    image[1:4, 2:10], image[6:10, 2:4] = 0.05, 0.08
    right = image + 0.3 * draws[:40]
    for fine in (right, right - image, right.reshape(40, -1), right[:8], image + 3 * draws[:8], right[:N]):
        assert told_of(fine, image) == ()
    for wrong, words in (
        (right[:, ::-1], "upside down"),
        (right.transpose(0, 2, 1), "transposed"),
        (np.moveaxis(right[:N], 0, -1), "along the last axis"),
        (np.moveaxis(right[:N], 0, 1), "along the second axis"),
        (3 * right[:, ::-1, ::-1] + 0.1, "another object"),
        (10 * right, "differs from the image by 90"),
    ):
        (sentence,) = told_of(wrong, image)
        assert words in sentence


def test_a_calibrated_result_warns_of_samples_that_are_not_of_its_image(world):
    image, scan, draws = world
    assert any("differs from the image" in text for text in calibrate(image, 3 * image + draws, scan, [3, 9]).warnings)


def test_what_no_ray_tells_is_held_beside_what_held_out_rays_scale(world):
    """Of a beam that may harden, unless it is said that it cannot: no held-out ray shows that an image is too dark inside."""
    image, scan, draws = world
    scan = replace(scan, provenance=Provenance())
    held, none = (calibrate(image, image + draws, scan, HELD, systematics=asked) for asked in ("default", "none"))
    assert held.calibration.image_scale == none.calibration.image_scale and not none.systematics
    effect = held.systematics["hardening"].effect
    np.testing.assert_allclose(held.std**2, none.std**2 + effect**2, rtol=1e-4)
    region = [result.region(REGION > 0).standard_uncertainty for result in (held, none)]
    assert region[0] ** 2 == pytest.approx(region[1] ** 2 + effect[REGION > 0].mean() ** 2, rel=1e-3)
    spread = np.cov(held.samples.reshape(len(draws), -1), rowvar=False)
    expected = np.cov(none.samples.reshape(len(draws), -1), rowvar=False) + np.outer(effect, effect)
    assert np.abs(spread - expected).max() < 0.2 * expected.max()
    with pytest.raises(InputError, match="other programs' images"):
        calibrate(image, image + draws, scan, HELD, systematics="axis")
