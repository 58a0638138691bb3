import numpy as np
import pytest
import scipy.signal
import scipy.stats

from ctuq.uncertainty.calibration.scales import FEWER, correlation_time, learn_scales, scale_posterior


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
    assert scales.log_image_sd < 0.15


def test_stated_sd_of_the_scales_is_their_spread(normal):
    """Of rays that are independent but for their correlation along the detector."""
    found = [scale_posterior(*draws(4.0, 1.0, 10, normal), fewer=1.0).summary()[0] for _ in range(60)]
    spread = np.std([median for median, _ in found])
    assert np.mean([sd for _, sd in found]) == pytest.approx(spread, rel=0.35)


def test_stated_sd_grows_as_the_root_of_how_few_facts_rays_are(normal):
    held = draws(4.0, 1.0, 60, normal)
    one, six = (scale_posterior(*held, fewer=fewer).summary()[0][1] for fewer in (1.0, 6.0))
    assert six == pytest.approx(6**0.5 * one, rel=0.15)
    assert learn_scales(*held).log_image_sd == pytest.approx(six, rel=1e-6)


def test_fewer_views_say_less(normal):
    residual, p, s = draws(4.0, 1.0, 60, normal)
    few, many = learn_scales(residual[:2], p[:2], s[:2]), learn_scales(residual, p, s)
    assert few.log_image_sd > 2.5 * many.log_image_sd


def test_range_of_coverage_holds_as_often_as_it_says(normal):
    """Scales drawn from their prior, and views whose variance scatters as that of real ones: ranges hold what is covered."""
    inside = []
    for _ in range(120):
        image, noise = np.exp(np.abs(normal.standard_normal())), np.exp(normal.standard_normal())
        residual, p, s = draws(image, noise, 104, normal)
        # A mean square of 40 rays has a variance of 2 / 40; with these factors of the views, six times that.
        residual *= np.sqrt(normal.gamma(4, 1 / 4, (104, 1)))
        found = learn_scales(residual[:4], p[:4], s[:4])
        z = residual[4:] / np.sqrt(found.image * p[4:] + found.noise * s[4:])
        for (low, high), half in ((found.cover_68, 1.0), (found.cover_95, 1.959964)):
            inside.append(low <= np.mean(np.abs(z) <= half) <= high)
    assert 0.85 < np.mean(inside) < 0.99


def test_a_single_view_tells_a_range_that_holds_where_the_error_bars_are_too_long(normal):
    """The scale of the image is never below 1; where it should be a quarter, one view's range knows that it may be."""
    inside, before = [], []
    for _ in range(60):
        residual, p, s = draws(0.25, 0.5, 101, normal)
        found = learn_scales(residual[:1], p[:1], s[:1])
        z = residual[1:] / np.sqrt(found.image * p[1:] + found.noise * s[1:])
        covered = np.mean(np.abs(z) <= 1)
        inside.append(found.cover_68[0] <= covered <= found.cover_68[1])
        low, high = scale_posterior(residual[:1], p[:1], s[:1]).coverage((found.image, found.noise), p[:1], s[:1], 1.0)
        before.append(low <= covered <= high)
        assert found.cover_68[0] <= low and high <= found.cover_68[1]
    assert np.mean(inside) > 0.85 and np.mean(inside) > np.mean(before)


def test_range_of_coverage_shrinks_to_the_nominal_one_with_many_views(normal):
    residual, p, s = draws(4.0, 1.0, 400, normal)
    few, many = learn_scales(residual[:2], p[:2], s[:2]), learn_scales(residual, p, s)
    for found, nominal in ((many.cover_68, 0.683), (many.cover_95, 0.95)):
        assert found[0] <= nominal <= found[1]
        assert found[1] - found[0] < 0.05
    assert few.cover_68[1] - few.cover_68[0] > 3 * (many.cover_68[1] - many.cover_68[0])


def test_posterior_of_the_scales_is_prior_times_tempered_likelihood(normal):
    residual, p, s = draws(3.0, 0.5, 3, normal)
    found = scale_posterior(residual, p, s)
    a, b = np.exp(found.log_image)[:, None, None], np.exp(found.log_noise)[None, :, None]
    v = a * p.ravel() + b * s.ravel()
    density = -0.5 * (residual.ravel() ** 2 / v + np.log(v)).sum(-1) / correlation_time(residual / np.sqrt(p + s))
    density = (
        density / FEWER + scipy.stats.t.logpdf(found.log_image, 2)[:, None] + scipy.stats.t.logpdf(found.log_noise + 0.5, 2)
    )
    inner = (slice(1, -1), slice(1, -1))
    expected = np.exp(density - density.max())[inner]
    np.testing.assert_allclose(found.weights[inner] / found.weights[inner].sum(), expected / expected.sum(), atol=1e-9)
    assert found.weights[-1].sum() + found.weights[:, [0, -1]].sum() < 1e-6


def test_noise_scale_does_not_collapse_where_the_image_explains_everything(normal):
    p, s = np.full((3, 40), 4.0), np.full((3, 40), 1e-3)
    scales = learn_scales(2 * normal.standard_normal((3, 40)), p, s)
    assert 0.3 < scales.noise < 3
    assert 0.5 < scales.image < 2


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_scales_have_no_unit(unit, normal):
    residual, p, s = draws(3.0, 0.5, 3, normal)
    found, same = learn_scales(unit * residual, unit**2 * p, unit**2 * s), learn_scales(residual, p, s)
    assert found.image == pytest.approx(same.image, rel=1e-6)
    assert found.cover_95 == pytest.approx(same.cover_95, rel=1e-6)


@pytest.mark.parametrize("miss", [0.0, 1e3])
def test_residuals_of_nothing_and_far_beyond_the_model_leave_finite_scales(miss, normal):
    scales = learn_scales(miss * normal.standard_normal((3, 40)), np.ones((3, 40)), np.full((3, 40), 1e-3))
    assert 1 <= scales.image < np.inf and 0 < scales.noise < np.inf
    assert miss == 0 or scales.image == pytest.approx(miss**2, rel=1.0)
    assert scales.cover_95[0] < scales.cover_95[1]


def test_views_far_off_the_model_are_believed(normal):
    """Residuals 30 times what the model says: a Gaussian prior of so few facts would leave the bars too short."""
    p, s = np.full((2, 40), 1e-4), np.full((2, 40), 1e-5)
    residual = 30 * normal.standard_normal(p.shape) * np.sqrt(p + s)
    found = learn_scales(residual, p, s)
    z = np.sqrt(np.mean(residual**2 / (found.image * p + found.noise * s)))
    assert 0.7 < z < 1.3
