"""Scales of the image covariance and of the noise, learned on views that the network never saw.

The network was fitted to the same rays that the evidence sees, so its error bars are too short on real data, and no figure
computed from fitted rays can show it. Held-out views can.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

_IMAGE_PRIOR_SD = 1.0
_NOISE_PRIOR_SD = 1.0
_NODES, _REACH = 41, 6.0


@dataclass(frozen=True)
class Scales:
    """Factors on the image covariance and on the noise variance, and the sd of their logarithms."""

    image: float
    noise: float
    log_image_sd: float
    log_noise_sd: float


def learn_scales(residual: NDArray, image_variance: NDArray, noise_variance: NDArray) -> Scales:
    """Posterior medians of ``a >= 1`` and ``b`` in ``residual ~ N(0, a image_variance + b noise_variance)``.

    The likelihood of the rays is tempered by their correlation time along the detector (neighbouring rays err together), so
    that a handful of views counts as the few independent facts that it is. A log-normal prior of sd 1 around 1 keeps the noise
    scale from collapsing when no held-out ray passes through air alone. The prior of the image scale is the upper half of a
    log-normal: fitting the network to the rays that the evidence sees can only shorten the error bars, and rays average over
    the fine errors of an image, so that they cannot show that its pixels are better known than the model says.

    Parameters
    ----------
    residual, image_variance, noise_variance : array, shape (views, columns)
        Of the held-out rays.

    Returns
    -------
    Scales
        Medians, and standard deviations of the logarithms, by quadrature.
    """
    r2 = residual.astype(np.float64) ** 2
    p, s = image_variance.astype(np.float64), noise_variance.astype(np.float64)
    temper = 1 / correlation_time(residual / np.sqrt(p + s))

    def loss(x: NDArray) -> float:
        v = np.exp(x[0]) * p + np.exp(x[1]) * s
        prior = 0.5 * (x[0] / _IMAGE_PRIOR_SD) ** 2 + 0.5 * (x[1] / _NOISE_PRIOR_SD) ** 2
        return float(temper * 0.5 * np.sum(r2 / v + np.log(v)) + prior)

    best = _minimum(loss)
    sd = np.sqrt(np.diag(np.linalg.inv(_hessian(loss, best))))
    first, last = np.maximum(best - _REACH * sd, [0.0, -np.inf]), best + _REACH * sd
    axes = [np.linspace(low, high, _NODES) for low, high in zip(first, last, strict=True)]
    losses = np.array([[loss(np.array([log_a, log_b])) for log_b in axes[1]] for log_a in axes[0]])
    weights = np.exp(losses.min() - losses)
    (image, image_sd), (noise, noise_sd) = (_summary(x, weights.sum(1 - i)) for i, x in enumerate(axes))
    return Scales(float(np.exp(image)), float(np.exp(noise)), image_sd, noise_sd)


def _minimum(loss: Callable[[NDArray], float]) -> NDArray:
    """The smallest of several local minima with a non-negative log image scale."""
    starts = [np.array([a, 0.0]) for a in (0.5, 2.0, 4.0)]
    bounds = [(0.0, None), (None, None)]
    return min((scipy.optimize.minimize(loss, x, method="L-BFGS-B", bounds=bounds) for x in starts), key=lambda f: f.fun).x


def _summary(x: NDArray, density: NDArray) -> tuple[float, float]:
    """Median and standard deviation of a density on an even grid."""
    share = np.cumsum((density[1:] + density[:-1]) / 2)
    median = float(np.interp(0.5 * share[-1], np.insert(share, 0, 0.0), x))
    mean = np.average(x, weights=density)
    return median, float(np.sqrt(np.average((x - mean) ** 2, weights=density)))


def correlation_time(rows: NDArray) -> float:
    """How many correlated values along the last axis say as much of their variance as one independent value; at least 1.

    ``1 + 2 sum of squared autocorrelations``, up to the first that is negative: the variance of a mean square of n Gaussian
    values is that factor times 2 / n (Bartlett 1935).
    """
    n = rows.shape[1]
    centred = rows.astype(np.float64) / max(float(np.sqrt(np.mean(rows.astype(np.float64) ** 2))), 1e-300)
    total = 1.0
    for lag in range(1, n // 2):
        correlation = float(np.mean(centred[:, :-lag] * centred[:, lag:]))
        if correlation <= 0:
            break
        total += 2 * correlation**2
    return total


def _hessian(function, x: NDArray, step: float = 1e-2) -> NDArray:
    n = len(x)
    out = np.empty((n, n))
    eye = np.eye(n) * step
    for i in range(n):
        for j in range(n):
            corners = [function(x + a * eye[i] + b * eye[j]) * a * b for a in (-1, 1) for b in (-1, 1)]
            out[i, j] = sum(corners) / (4 * step**2)
    return out
