"""The evidence of one prior variance and the noise, by one eigendecomposition."""

import math
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

from ctuq.errors import InputError

_RATIOS = np.linspace(-12, 25, 75)


@dataclass(frozen=True)
class Variances:
    """Prior variance, noise variance of a ray of weight 1, and the log evidence there, nats."""

    signal: float
    noise: float
    value: float


def learn_variance(K: Tensor, t: Tensor, noise: Tensor) -> Variances:
    """Maximise ``log N(t | 0, s K + sigma2 diag(noise))`` over s and sigma2.

    With the eigenvalues v of the whitened K and z the whitened t along its eigenvectors, sigma2 is ``mean(z^2 / (r v + 1))`` at
    a ratio ``r = s / sigma2``, and only r is searched for: a grid over its logarithm, then Brent's method. The maximum is
    that of `learn_variances`, which needs a Cholesky factor for every step.

    Parameters
    ----------
    K : Tensor, float64, shape (m, m)
        Covariance of the rays at variance 1.
    t, noise : Tensor, float64, shape (m,)
        Rays of prior mean 0, and their relative noise variances.
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

    def loss(log_ratio: float) -> float:
        spread = np.exp(log_ratio) * v + 1
        return 0.5 * float(np.log(spread).sum() + len(z2) * np.log(np.mean(z2 / spread)))

    grid = np.array([loss(r) for r in _RATIOS])
    low = int(grid.argmin())
    bounds = _RATIOS[max(0, low - 1)], _RATIOS[min(len(grid) - 1, low + 1)]
    best = float(np.asarray(scipy.optimize.fminbound(loss, *bounds, xtol=1e-6)))
    sigma2 = float(np.mean(z2 / (math.exp(best) * v + 1)))
    value = -loss(best) - 0.5 * len(z2) * (1 + math.log(2 * math.pi)) - 0.5 * float(noise.log().sum())
    return Variances(math.exp(best) * sigma2 / scale, sigma2, value)
