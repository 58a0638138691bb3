import math

import numpy as np
import pytest
import scipy.integrate
from scipy.stats import multivariate_normal, norm

from ctuq.scores import gaussian as metrics


@pytest.fixture
def normal():
    return np.random.default_rng(0)


def covariance(n, normal):
    root = normal.standard_normal((n, 2 * n))
    return root @ root.T / n


@pytest.mark.parametrize(("residual", "sd"), [(0.0, 1.0), (1.3, 0.4), (-2.0, 2.5)])
def test_crps_is_the_integral_of_the_squared_difference_of_distributions(residual, sd):
    def squared(x):
        return (norm.cdf(x, scale=sd) - (x >= residual)) ** 2

    low, high = -12 * sd - abs(residual), 12 * sd + abs(residual)
    exact = scipy.integrate.quad(squared, low, residual)[0] + scipy.integrate.quad(squared, residual, high)[0]
    assert metrics.gaussian_scores([residual], [sd**2])["crps"] == pytest.approx(exact, rel=1e-6)


def test_log_likelihood_is_the_normal_density_a_value(normal):
    r, v = normal.standard_normal(50), normal.uniform(0.5, 2, 50)
    scores = metrics.gaussian_scores(r, v)
    assert scores["log_likelihood"] == pytest.approx(norm.logpdf(r, scale=np.sqrt(v)).mean())
    assert scores["rmse"] == pytest.approx(math.sqrt(np.mean(r**2)))
    assert scores["rms_z"] == pytest.approx(math.sqrt(np.mean(r**2 / v)))


def test_exact_normals_are_covered_as_stated(normal):
    n = 40_000
    v = normal.uniform(0.1, 10, n)
    r = np.sqrt(v) * normal.standard_normal(n)
    scores = metrics.gaussian_scores(r, v)
    for name, level in (("cover_68", norm.cdf(1) - norm.cdf(-1)), ("cover_95", 0.95)):
        assert abs(scores[name] - level) < 4 * math.sqrt(level * (1 - level) / n)
    assert abs(scores["rms_z"] - 1) < 4 / math.sqrt(2 * n)
    levels = np.array([0.1, 0.5, 0.9])
    curve = metrics.calibration_curve(r, v, levels)
    assert (np.abs(curve - levels) < 4 * np.sqrt(levels * (1 - levels) / n)).all()
    assert (metrics.calibration_curve(r, v / 9, levels) < levels - 0.05).all()


def test_image_scores_of_a_known_error(normal):
    truth = np.zeros((16, 16))
    truth[4:12, 4:12] = 2.0
    scores = metrics.image_scores(truth + 0.02, truth)
    assert scores["rmse"] == pytest.approx(0.02)
    assert scores["psnr"] == pytest.approx(40.0)
    assert metrics.image_scores(truth, truth)["ssim"] == pytest.approx(1.0)
    assert metrics.image_scores(truth + normal.standard_normal(truth.shape), truth)["ssim"] < 0.8


def test_a_flat_truth_has_neither_psnr_nor_ssim():
    for truth in (np.full((16, 16), 0.05), np.full((16, 16), 0.05) + 1e-10 * np.arange(16)):
        scores = metrics.image_scores(truth + 0.01, truth)
        assert math.isnan(scores["psnr"]) and math.isnan(scores["ssim"]) and scores["rmse"] == pytest.approx(0.01)


def test_values_of_infinite_variance_are_in_no_score(normal):
    r, v = normal.standard_normal(50), normal.uniform(0.5, 2, 50)
    unknown = np.isin(np.arange(50), [3, 17])
    assert metrics.gaussian_scores(r, np.where(unknown, np.inf, v)) == metrics.gaussian_scores(r[~unknown], v[~unknown])
    assert all(math.isnan(score) for score in metrics.gaussian_scores(r, np.full(50, np.inf)).values())


def test_patches_of_one_pixel_give_the_pixel_likelihood(normal):
    S, error = covariance(30, normal), normal.standard_normal((5, 6))
    pixels = metrics.gaussian_scores(error, S.diagonal())["log_likelihood"]
    assert metrics.patch_log_likelihood(error, S, 1) == pytest.approx(pixels, rel=1e-9)


def test_one_patch_over_all_gives_the_joint_density(normal):
    S, error = covariance(30, normal), normal.standard_normal((5, 6))
    joint = multivariate_normal.logpdf(error.ravel(), cov=S) / 30
    assert metrics.patch_log_likelihood(error, S, 6) == pytest.approx(joint, rel=1e-9)
    assert metrics.joint_log_likelihood(error.ravel(), S) / 30 == pytest.approx(joint, rel=1e-9)


def test_smaller_patches_at_the_border_are_counted_once(normal):
    S, error = covariance(30, normal), normal.standard_normal((5, 6))
    total, index = 0.0, np.arange(30).reshape(5, 6)
    for rows in (slice(0, 4), slice(4, 5)):
        for columns in (slice(0, 4), slice(4, 6)):
            chosen = index[rows, columns].ravel()
            total += multivariate_normal.logpdf(error[rows, columns].ravel(), cov=S[np.ix_(chosen, chosen)])
    assert metrics.patch_log_likelihood(error, S, 4) == pytest.approx(total / 30, rel=1e-9)


def test_sampled_patches_approach_the_exact_ones_with_more_samples(normal):
    S, error = covariance(16, normal), normal.standard_normal((4, 4))
    exact = metrics.patch_log_likelihood(error, S, 2)
    draws = (normal.standard_normal((20_000, 16)) @ np.linalg.cholesky(S).T).reshape(-1, 4, 4)
    few, many = (abs(metrics.sampled_patch_log_likelihood(error, draws[:n], 2) - exact) for n in (100, 20_000))
    assert many < 5e-3
    assert many < few


def test_sampled_patches_with_fewer_samples_than_pixels_stay_finite(normal):
    draws = normal.standard_normal((10, 7, 7))
    assert math.isfinite(metrics.sampled_patch_log_likelihood(normal.standard_normal((7, 7)), draws, 7))


def test_joint_likelihood_of_an_indefinite_covariance_is_minus_infinity():
    assert metrics.joint_log_likelihood(np.ones(2), np.diag([1.0, -1.0])) == -math.inf


def test_joint_likelihood_does_not_reward_directions_without_variance():
    S = np.ones((2, 2))
    assert math.isfinite(metrics.joint_log_likelihood(np.array([0.1, 0.1]), S))
    assert metrics.joint_log_likelihood(np.array([0.1, -0.1]), S) < -1e6


def test_truth_scores_have_their_names_and_the_object_alone(normal):
    truth = np.zeros((16, 16))
    truth[4:12, 4:12] = 1.0
    std = normal.uniform(0.01, 0.1, truth.shape)
    mean = truth + std * normal.standard_normal(truth.shape)
    scores = metrics.truth_scores(mean, std, truth)
    pixel = {"log_likelihood", "rms_z", "cover_68", "cover_95", "crps", "rmse"}
    assert set(scores) == pixel | {f"{name}_object" for name in pixel} | {"psnr", "ssim", "rank_correlation"}
    inside = truth > 0
    assert scores["rmse_object"] == pytest.approx(math.sqrt(np.mean((mean - truth)[inside] ** 2)))
    assert metrics.truth_scores(truth + std, std, truth)["rank_correlation"] == pytest.approx(1.0)


def test_truth_scores_stay_finite_where_the_std_is_zero():
    truth = np.zeros((16, 16))
    truth[4:12, 4:12] = 1.0
    std = np.full(truth.shape, 0.1)
    std[0] = 0
    scores = metrics.truth_scores(truth + 0.01 * np.arange(16), std, truth)
    assert all(math.isfinite(value) for value in scores.values())
