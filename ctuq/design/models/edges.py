"""The Gaussian edge prior: total variation made quadratic about a reconstruction (lagged diffusivity, Vogel and Oman 1996).

``TV(x) ~ 1/2 sum_p (|grad x|_p^2 / sqrt(|grad x^|_p^2 + e^2)) + const`` about the reconstruction x^: a Gaussian whose precision
is ``D^T W D / s``. It is stiff where the image is flat and soft across its edges, so it asks for rays along edges. Outside the
image is air.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.baselines.markov import lagged_slopes
from ctuq.baselines.variances import Variances, learn_variance
from ctuq.design.algebra.covariance import Hold
from ctuq.design.models.classical import dense, project
from ctuq.design.models.model import GaussianModel, Measurements
from ctuq.recon import tv

_SOFTNESS = (0.01, 0.03, 0.1, 0.3)
_HOLD = Hold(1500, 4096)


class EdgePrecision:
    """``Q = D^T W D`` about an image, factored; its inverse is the covariance at s = 1.

    Parameters
    ----------
    image : array of float64, shape (y, x) or (z, y, x)
        The reconstruction x^.
    softness : float
        e, in the unit of the image.
    """

    def __init__(self, image: NDArray[np.float64], softness: float):
        slopes, weights = lagged_slopes(image, softness)
        W = sp.diags_array(weights)
        self.matrix = sp.csc_array(sum((D.T @ W @ D for D in slopes), sp.csr_array((image.size, image.size))))
        self._factor = scipy.sparse.linalg.splu(self.matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})

    def times(self, x: Tensor) -> Tensor:
        """``x Q^-1`` for rows (k, d), float64."""
        return torch.from_numpy(np.ascontiguousarray(self._factor.solve(np.ascontiguousarray(x.cpu().numpy().T)).T)).to(x)

    def inverse(self) -> Tensor:
        """``Q^-1``, (d, d), float64."""
        return torch.cholesky_inverse(torch.linalg.cholesky(torch.from_numpy(self.matrix.toarray())))


@dataclass(frozen=True)
class Edges:
    """The edge prior about a TV reconstruction of the views so far; made again whenever it is learned again.

    Parameters
    ----------
    strength : float
        Of the TV reconstruction, as in `ctuq.recon.tv`.
    softness : tuple of float
        Candidates for e, over the reconstruction's largest value; the evidence chooses.
    hold : Hold
        Whole up to 64 x 64 pixels: its matrix is an inverse, whose cost is the cube of that.
    """

    strength: float = 1.0
    softness: tuple[float, ...] = _SOFTNESS
    hold: Hold = _HOLD

    def __call__(self, measured: Measurements) -> GaussianModel:
        image, precision, softness, found = self.fit(measured)
        s = found.signal
        covariance, note = self.hold(image.numel(), lambda x: s * precision.times(x), lambda: s * precision.inverse())
        values = {"variance": s, "softness (1/mm)": softness, "sigma2": found.noise}
        return GaussianModel(covariance, found.noise, image=image, hyperparameters=values, note=note)

    def fit(self, measured: Measurements) -> tuple[Tensor, EdgePrecision, float, Variances]:
        """The TV reconstruction, and the precision about it whose evidence is largest, its softness and that evidence."""
        image = tv(measured.A.subset(measured.views), measured.y, weights=measured.weights, strength=self.strength)
        thin = measured.thinned()
        M, t, noise, shown = thin.matrix(), thin.target(), thin.noise(), measured.shown_noise()
        fits = []
        for share in self.softness:
            softness = share * max(float(image.max()), 1e-12)
            precision = EdgePrecision(image.double().cpu().numpy(), softness)
            K = project(M, precision.times(dense(M)))
            fits.append((precision, softness, learn_variance(K, t, noise, shown=shown)))
        return image, *max(fits, key=lambda fit: fit[2].value)
