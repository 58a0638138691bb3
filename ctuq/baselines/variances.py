"""The evidence of one prior variance and the noise, by one eigendecomposition."""

import math
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.errors import InputError

_RATIOS = np.linspace(-12, 25, 75)
_NONE, _LEAST = 1e-3, 0.25
"""Of the noise that neighbouring rays show: below the first it is none, and the second is taken for the least.

Neighbouring rays show more than noise where an image is rough: 466 times of a Matern process' draws on 16 pixels, 7 to 16 times
of rectangles. Of five views of these, on 24 and 48 pixels, the evidence of a Matern process had its maximum at 5e-8 of the
noise.
"""


@dataclass(frozen=True)
class Variances:
    """Prior variance, noise variance of a ray of weight 1, and the log evidence there, nats."""

    signal: float
    noise: float
    value: float


def learn_variance(K: Tensor, t: Tensor, noise: Tensor, *, shown: float = 0.0) -> Variances:
    """Maximise ``log N(t | 0, s K + sigma2 diag(noise))`` over s and sigma2.

    With the eigenvalues v of the whitened K and z the whitened t along its eigenvectors, sigma2 is ``mean(z^2 / (r v + 1))`` at
    a ratio ``r = s / sigma2``, and only r is searched for: a grid over its logarithm, then Brent's method. The maximum is that
    of `learn_variances`, which needs a Cholesky factor for every step.

    Parameters
    ----------
    K : Tensor, float64, shape (m, m)
        Covariance of the rays at variance 1.
    t, noise : Tensor, float64, shape (m,)
        Rays of prior mean 0, and their relative noise variances.
    shown : float
        Noise variance that neighbouring rays show at most (`ctuq.recon.noise.noise_std`). A rough prior may take all noise of
        few rays for signal: where next to nothing of it is left, sigma2 is a quarter of this, or more.
    """
    if not t.any():
        raise InputError(
            "The projections of all measured views are what air gives, so that nothing is learned; check the object."
        )
    root = noise.rsqrt()
    eigenvalues, vectors = torch.linalg.eigh(root[:, None] * K * root)
    scale = float(eigenvalues.mean())
    v = np.maximum(eigenvalues.cpu().numpy(), 0) / scale
    z2 = (vectors.T @ (root * t)).square().cpu().numpy()

    best, sigma2, value = _best(v, z2, 0.0)
    if sigma2 < _NONE * shown:
        best, sigma2, value = _best(v, z2, _LEAST * shown)
    value -= 0.5 * len(z2) * math.log(2 * math.pi) + 0.5 * float(noise.log().sum())
    return Variances(math.exp(best) * sigma2 / scale, sigma2, value)


def _best(v: NDArray[np.float64], z2: NDArray[np.float64], least: float) -> tuple[float, float, float]:
    """Logarithm of the best ratio, sigma2 of no less than ``least``, and what of the log evidence depends on them."""

    def noise_at(log_ratio: float) -> float:
        return max(least, float(np.mean(z2 / (np.exp(log_ratio) * v + 1))))

    def loss(log_ratio: float) -> float:
        spread, sigma2 = np.exp(log_ratio) * v + 1, noise_at(log_ratio)
        return 0.5 * float(np.log(spread).sum() + len(z2) * np.log(sigma2) + np.sum(z2 / spread) / sigma2)

    grid = np.array([loss(r) for r in _RATIOS])
    low = int(grid.argmin())
    bounds = _RATIOS[max(0, low - 1)], _RATIOS[min(len(grid) - 1, low + 1)]
    best = float(np.asarray(scipy.optimize.fminbound(loss, *bounds, xtol=1e-6)))
    return best, noise_at(best), -loss(best)
