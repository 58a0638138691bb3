"""Classical Gaussian priors of an image, with their hyperparameters learned by evidence from the measured views."""

from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.sparse as sp
import torch
from torch import Tensor

from ctuq.baselines.pixels import PixelMatern
from ctuq.baselines.variances import Variances, learn_variance
from ctuq.design.algebra.covariance import FactorCovariance, Hold
from ctuq.design.models.model import GaussianModel, Measurements
from ctuq.linops.local import LocalCovariance

_SHORTEST = 0.3
_HOLD = Hold(2000, 16384)


@dataclass(frozen=True)
class Isotropic:
    """Every pixel alone: ``S = s I``; s and the noise by evidence."""

    def __call__(self, measured: Measurements) -> GaussianModel:
        shown, measured = measured.shown_noise(), measured.thinned()
        M = measured.matrix()
        found = learn_variance(dense(M @ M.T), measured.target(), measured.noise(), shown=shown)
        d = measured.A.grid.size
        own = LocalCovariance(torch.full((d,), found.signal, dtype=torch.float64))
        covariance = FactorCovariance(torch.zeros(0, d, dtype=torch.float64), own)
        values = {"variance": found.signal, "sigma2": found.noise}
        return GaussianModel(covariance, found.noise, hyperparameters=values, note="white: exact")


@dataclass(frozen=True)
class Matern:
    """A Matern-1/2 process over the pixels, ``s exp(-r / l)``; s, l and the noise by evidence.

    Parameters
    ----------
    hold : Hold
        Whole up to 128 x 128 pixels: its matrix is filled from a table, which costs no more than writing it.
    """

    hold: Hold = _HOLD

    def __call__(self, measured: Measurements) -> GaussianModel:
        shown, measured, shape = measured.shown_noise(), measured.thinned(), measured.A.grid.shape
        M = measured.matrix()
        rows = dense(M)
        found: dict[float, Variances] = {}

        def loss(log_lengthscale: float) -> float:
            kernel = PixelMatern(shape, float(np.exp(log_lengthscale)))
            K = project(M, kernel.times(rows))
            found[log_lengthscale] = learn_variance(K, measured.target(), measured.noise(), shown=shown)
            return -found[log_lengthscale].value

        bounds = (np.log(_SHORTEST), np.log(2 * max(shape)))
        scipy.optimize.fminbound(loss, *bounds, xtol=0.02, maxfun=30)
        best = max(found, key=lambda value: found[value].value)
        kernel, s, sigma2 = PixelMatern(shape, float(np.exp(best))), found[best].signal, found[best].noise
        covariance, note = self.hold(measured.A.grid.size, lambda x: s * kernel.times(x), lambda: s * kernel.dense())
        values = {"variance": s, "lengthscale (pixels)": kernel.lengthscale, "sigma2": sigma2}
        return GaussianModel(covariance, sigma2, hyperparameters=values, note=note)


def project(M: sp.csr_array, half: Tensor) -> Tensor:
    """``M h^T`` for dense rows ``h`` (m, d), made symmetric: float64 (m, m)."""
    K = torch.from_numpy(M @ np.ascontiguousarray(half.cpu().numpy().T))
    return (K + K.T) / 2


def dense(matrix: sp.csr_array) -> Tensor:
    """A sparse matrix as a tensor, float64."""
    return torch.from_numpy(np.asarray(matrix.toarray(), dtype=np.float64))
