"""The displacement prior: the edges of a reconstruction are there, but not quite where it shows them.

``x(u) = x^(u + delta(u))`` about a reconstruction x^, linearised: ``x ~ x^ + grad x^ . delta`` with two independent fields of
exponential correlation, ``S = t^2 (G_y K G_y + G_x K G_x) + a^2 K``, G the derivatives of x^ on the diagonal. A ray along an
edge meets displacements that agree, so it asks for rays along the edges that few views have shown; the smooth part stands for
what x^ does not show at all.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ctuq.baselines.pixels import PixelMatern
from ctuq.design.algebra.covariance import Hold
from ctuq.design.models.model import GaussianModel, Measurements
from ctuq.recon import tv
from ctuq.recon.noise import noise_std

_QUIETEST = 1e-3
_HOLD = Hold(1500, 4096)


@dataclass(frozen=True)
class DisplacedEdges:
    """The displacement prior about a TV reconstruction of the views so far; made again whenever it is learned again.

    Nothing is learned by evidence: the reconstruction fits the views that it was made from, which would let its displacements
    vanish. The noise is read from the sinogram.

    Parameters
    ----------
    strength : float
        Of the TV reconstruction, as in `ctuq.recon.tv`.
    displacement : float
        t, pixels.
    length : float
        Over which displacements agree, as a share of the image's side.
    smooth : float
        a, over the reconstruction's largest value.
    hold : Hold
    """

    strength: float = 0.5
    displacement: float = 3.0
    length: float = 0.19
    smooth: float = 0.1
    hold: Hold = _HOLD

    def __call__(self, measured: Measurements) -> GaussianModel:
        A, y, weights = measured.A.subset(measured.views), measured.y, measured.weights
        image = tv(A, y, weights=weights, strength=self.strength)
        slopes = [torch.from_numpy(slope.ravel()) for slope in central_differences(image.double().cpu().numpy())]
        kernel = PixelMatern(tuple(image.shape), self.length * max(image.shape))
        smooth, variance = (self.smooth * float(image.max())) ** 2, self.displacement**2

        def times(x: torch.Tensor) -> torch.Tensor:
            return variance * sum((kernel.times(x * g) * g for g in slopes), torch.zeros_like(x)) + smooth * kernel.times(x)

        def matrix() -> torch.Tensor:
            K = kernel.dense()
            return K * (variance * sum((torch.outer(g, g) for g in slopes), torch.zeros_like(K)) + smooth)

        covariance, note = self.hold(image.numel(), times, matrix)
        quietest = _QUIETEST * float(y[weights > 0].square().mean().sqrt())
        sigma2 = max(float(noise_std(y, weights)), quietest) ** 2
        values = {"displacement (pixels)": self.displacement, "length (pixels)": kernel.lengthscale, "sigma2": sigma2}
        return GaussianModel(covariance, sigma2, image=image, mean=image, hyperparameters=values, note=note)


def central_differences(image: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Derivatives along y and x per pixel, (y, x) each; outside the image is air."""
    padded = np.pad(image, 1)
    return (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2, (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2
