import numpy as np
import pytest
import scipy.signal

from ctuq.uncertainty.calibration import correlation_time, learn_scales


@pytest.fixture
def normal():
    return np.random.default_rng(0)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_correlation_time_of_an_autoregression(rho, normal):
    steps = normal.standard_normal((3000, 300))
    rows = scipy.signal.lfilter([1], [1, -rho], steps, axis=1)[:, 50:]
    assert correlation_time(rows) == pytest.approx((1 + rho**2) / (1 - rho**2), rel=0.1)
    spread = np.mean(rows**2, axis=1).std() / np.mean(rows**2)
    assert np.sqrt(2 * correlation_time(rows) / rows.shape[1]) == pytest.approx(spread, rel=0.1)


def test_correlation_time_is_at_least_one(normal):
    assert correlation_time(np.tile([1.0, -1.0], (3, 10))) == 1.0
    assert correlation_time(1e-9 * normal.standard_normal((3, 40))) < 2


def draws(image, noise, views, normal):
    p = normal.uniform(0.1, 4, (views, 40)) * (normal.uniform(size=(views, 40)) < 0.7)
    s = normal.uniform(0.5, 1.5, (views, 40))
    return np.sqrt(image * p + noise * s) * normal.standard_normal(p.shape), p, s


@pytest.mark.parametrize(("image", "noise"), [(1.0, 1.0), (9.0, 0.5), (40.0, 2.0)])
def test_known_scales_are_recovered_from_many_views(image, noise, normal):
    scales = learn_scales(*draws(image, noise, 400, normal))
    assert abs(np.log(scales.image / image)) < max(4 * scales.log_image_sd, 0.02)
    assert abs(np.log(scales.noise / noise)) < max(4 * scales.log_noise_sd, 0.02)
    assert scales.log_image_sd < 0.1


def test_stated_sd_of_the_scales_is_their_spread(normal):
    found = [learn_scales(*draws(4.0, 1.0, 10, normal)) for _ in range(60)]
    spread = np.std([np.log(f.image) for f in found])
    assert np.mean([f.log_image_sd for f in found]) == pytest.approx(spread, rel=0.35)


def test_fewer_views_say_less(normal):
    residual, p, s = draws(4.0, 1.0, 60, normal)
    few, many = learn_scales(residual[:2], p[:2], s[:2]), learn_scales(residual, p, s)
    assert few.log_image_sd > 3 * many.log_image_sd


def test_noise_scale_does_not_collapse_where_the_image_explains_everything(normal):
    p, s = np.full((3, 40), 4.0), np.full((3, 40), 1e-3)
    scales = learn_scales(2 * normal.standard_normal((3, 40)), p, s)
    assert 0.3 < scales.noise < 3
    assert 0.5 < scales.image < 2
