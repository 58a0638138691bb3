"""How good a prediction with error bars is: likelihood, calibration, sharpness, and where the errors are."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

_PATCHES = (1, 2, 4, 7, 14)
_FLAT = 1e-6
"""Of its largest value: a truth that varies less is the same everywhere but for rounding."""
Z95 = 1.959963984540054
"""Half the central 95 % interval of a Gaussian, in standard deviations."""
NORMAL_QUARTILE = 0.6745
"""Median of |z| of a standard Gaussian z: what a median absolute deviation is divided by to be a standard deviation."""
STD_OF_MAD = 1.4826
"""One over it."""

_SCORES = ("log_likelihood", "rms_z", "cover_68", "cover_95", "crps", "rmse")


def robust_std(values: NDArray) -> float:
    """Standard deviation of values, by their median absolute deviation from their median."""
    return STD_OF_MAD * float(np.median(np.abs(values - np.median(values))))


def gaussian_scores(residual: ArrayLike, variance: ArrayLike) -> dict[str, float]:
    """Scores of independent Gaussian predictions.

    Parameters
    ----------
    residual, variance : array of float
        Truth minus prediction, and the predicted variance, of each value.

    Returns
    -------
    dict of str to float
        "log_likelihood" (nats a value), "rms_z", "cover_68", "cover_95", "crps" (Gneiting and Raftery 2007, in the unit of the
        residual), "rmse". Values of infinite variance, of which nothing is foretold, as of rays of weight 0, are left out of
        every score; where no value is left, all are NaN.
    """
    # SciPy's parts are imported where they are used: together they take half a second.
    from scipy.special import ndtr

    r, v = np.asarray(residual, np.float64).ravel(), np.asarray(variance, np.float64).ravel()
    told = v != np.inf
    if not told.any():
        return dict.fromkeys(_SCORES, math.nan)
    r, v = r[told], v[told]
    s = np.sqrt(v)
    z = r / s
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    crps = s * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))
    return {
        "log_likelihood": float(np.mean(-0.5 * (z**2 + np.log(2 * math.pi * v)))),
        "rms_z": float(np.sqrt(np.mean(z**2))),
        "cover_68": float(np.mean(np.abs(z) <= 1)),
        "cover_95": float(np.mean(np.abs(z) <= Z95)),
        "crps": float(crps.mean()),
        "rmse": float(np.sqrt(np.mean(r**2))),
    }


def calibration_curve(residual: ArrayLike, variance: ArrayLike, levels: ArrayLike) -> NDArray[np.float64]:
    """Share of values inside their central Gaussian interval of each nominal level.

    Parameters
    ----------
    residual, variance : array of float
        As in `gaussian_scores`.
    levels : array of float, shape (p,)
        Probabilities in (0, 1).

    Returns
    -------
    array, shape (p,)
    """
    z = np.abs(np.asarray(residual, np.float64).ravel()) / np.sqrt(np.asarray(variance, np.float64).ravel())
    from scipy.special import ndtri

    half = ndtri(0.5 + np.asarray(levels) / 2)
    return (z[:, None] <= half).mean(0)


def image_scores(mean: NDArray, truth: NDArray) -> dict[str, float]:
    """PSNR (dB, peak = range of the truth), SSIM (NaN where it is below 4 pixels wide) and RMSE of an image or a volume.

    Of a truth that is the same everywhere, which has no peak, PSNR and SSIM are NaN.
    """
    from skimage.metrics import structural_similarity

    peak = float(truth.max() - truth.min())
    peak = peak if peak > _FLAT * float(np.abs(truth).max()) else 0.0
    mse = float(np.mean((np.asarray(mean, np.float64) - truth) ** 2))
    a, b = (np.squeeze(np.asarray(values, np.float64)) for values in (truth, mean))
    window = min(7, min(a.shape, default=0) // 2 * 2 - 1)
    ssim = structural_similarity(a, b, data_range=peak, win_size=window) if window > 1 and peak > 0 else math.nan
    return {
        "psnr": 10 * math.log10(peak**2 / max(mse, 1e-300)) if peak > 0 else math.nan,
        "ssim": float(np.asarray(ssim)),
        "rmse": math.sqrt(mse),
    }


def truth_scores(mean: NDArray, std: NDArray, truth: NDArray) -> dict[str, float]:
    """Image and pixel scores against a truth; those that end in "_object" are over the pixels of the object.

    The object is where the truth exceeds 5 % of its largest value. Also "rank_correlation" of |error| and std (Spearman).
    """
    error, variance = truth - mean, np.maximum(np.asarray(std, np.float64), 1e-12 * float(np.ptp(truth))) ** 2
    scores = image_scores(mean, truth) | gaussian_scores(error, variance)
    inside = truth > 0.05 * truth.max()
    if inside.any():
        scores |= {f"{name}_object": value for name, value in gaussian_scores(error[inside], variance[inside]).items()}
    from scipy.stats import rankdata

    ranks = [rankdata(values).ravel() for values in (np.abs(error), np.asarray(std))]
    # Of a region of one voxel, and of equal values, there is none.
    known = min(float(np.ptp(r)) for r in ranks) > 0
    scores["rank_correlation"] = float(np.corrcoef(*ranks)[0, 1]) if known else math.nan
    return scores


def patch_log_likelihood(error: NDArray, covariance: NDArray, patch: int) -> float:
    """Log-likelihood in nats a pixel of the error on square patches, jointly Gaussian inside a patch.

    Parameters
    ----------
    error : array, shape (y, x)
        Truth minus mean.
    covariance : array, shape (y * x, y * x)
        Posterior covariance, C order.
    patch : int
        Edge of a patch; the last row and column of patches are smaller where it does not divide the image.
    """
    index = np.arange(error.size).reshape(error.shape)
    total = 0.0
    for top in range(0, error.shape[0], patch):
        for left in range(0, error.shape[1], patch):
            pixels = index[top : top + patch, left : left + patch].ravel()
            total += joint_log_likelihood(error.ravel()[pixels], covariance[np.ix_(pixels, pixels)])
    return total / error.size


def sampled_patch_log_likelihood(error: NDArray, deviations: NDArray, patch: int) -> float:
    """As `patch_log_likelihood` with the covariance of each patch from samples ``(sample, y, x)`` of mean zero.

    A patch of p pixels needs clearly more than p samples; its sample covariance is shrunk to its diagonal by the share
    p / samples, which keeps it positive definite.
    """
    n = len(deviations)
    total = 0.0
    for top in range(0, error.shape[0], patch):
        for left in range(0, error.shape[1], patch):
            window = np.s_[top : top + patch, left : left + patch]
            draws = np.asarray(deviations[(slice(None), *window)], np.float64).reshape(n, -1)
            covariance = draws.T @ draws / n
            share = min(1.0, covariance.shape[0] / n)
            covariance = (1 - share) * covariance + share * np.diag(np.diag(covariance))
            total += joint_log_likelihood(error[window].ravel(), covariance)
    return total / error.size


def patch_scores(error: NDArray, covariance: NDArray | None, deviations: NDArray) -> dict[str, float]:
    """Log-likelihoods in nats a pixel on patches of all `_PATCHES`, by the whole covariance or, without it, by samples."""
    if covariance is None:
        return {f"log_likelihood_patch_{p}": sampled_patch_log_likelihood(error, deviations, p) for p in _PATCHES}
    scores = {f"log_likelihood_patch_{p}": patch_log_likelihood(error, covariance, p) for p in _PATCHES}
    return scores | {"log_likelihood_full": joint_log_likelihood(error.ravel(), covariance) / error.size}


def joint_log_likelihood(error: NDArray, covariance: NDArray) -> float:
    """Log density in nats of ``error`` under N(0, covariance); rounding directions get float64's rounding error."""
    from scipy.linalg import solve_triangular

    covariance = np.asarray(covariance, np.float64)
    diagonal = np.diag(covariance)
    rounding = np.finfo(np.float64).eps * len(error) * max(float(diagonal.max()), 1e-300)
    for factor in (1.0, 1e3, 1e6):
        try:
            lower = np.linalg.cholesky(covariance + factor * rounding * np.eye(len(error)))
            break
        except np.linalg.LinAlgError:
            continue
    else:
        return -math.inf
    z = solve_triangular(lower, np.asarray(error, np.float64), lower=True)
    return float(-0.5 * z @ z - np.log(np.diag(lower)).sum() - 0.5 * len(error) * math.log(2 * math.pi))
