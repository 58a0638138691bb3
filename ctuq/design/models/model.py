"""What a designer knows: the views measured so far, and a Gaussian model of image and noise learned from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.design.algebra.covariance import Covariance
from ctuq.errors import InputError
from ctuq.recon.dip import Data
from ctuq.recon.noise import noise_std
from ctuq.tomo.rays.matrix import MatrixRayTransform
from ctuq.uncertainty.model.route import some_of

# A Matern process on 48 x 48 pixels from 24 views takes 3.4 s to learn from 800 of 1,680 rays and 14 s from all; its variance
# moves by 3 %, its lengthscale by up to 12 % and the noise by up to 9 %. From 200 rays the noise of one object was 24 % off.
_EVIDENCE_RAYS = 800


@dataclass(frozen=True, eq=False)
class Measurements:
    """Projections of some of the views that there are.

    Parameters
    ----------
    A : MatrixRayTransform
        Of all views, measured or not.
    views : array of int, shape (k,)
        The views measured, in the order they were.
    y, weights : Tensor, float32, shape (k, n)
        Line integrals, and the relative precision of each ray: its variance is ``sigma2 / weight``.
    """

    A: MatrixRayTransform
    views: NDArray[np.int64]
    y: Tensor
    weights: Tensor

    @property
    def data(self) -> Data:
        """The measured views alone, to reconstruct."""
        return Data(self.A.subset(self.views), self.y, self.weights)

    @property
    def used(self) -> NDArray[np.int64]:
        """The rays of positive weight among the k * n, in order."""
        return np.flatnonzero(self.weights.cpu().numpy().reshape(-1) > 0)

    def thinned(self, rays: int = _EVIDENCE_RAYS) -> "Measurements":
        """The same with ``rays`` of the used rays, over views and columns: enough to learn a few hyperparameters from."""
        used = self.used
        if len(used) <= rays:
            return self
        weights = torch.zeros_like(self.weights).reshape(-1)
        kept = torch.from_numpy(used[some_of(len(used), rays).numpy()]).to(weights.device)
        weights[kept] = self.weights.reshape(-1)[kept]
        return replace(self, weights=weights.reshape(self.weights.shape))

    def shown_noise(self) -> float:
        """Variance of a ray of weight 1 that neighbouring rays show, of all views."""
        return float(noise_std(self.y, self.weights).square())

    def matrix(self) -> sp.csr_array:
        """The rows of the used rays, (m, d), float64."""
        rays = self.A.geometry.columns
        rows = (self.views[:, None] * rays + np.arange(rays)).reshape(-1)
        return sp.csr_array(self.A.matrix[rows[self.used]], dtype=np.float64)

    def target(self) -> Tensor:
        """The used rays, (m,), float64."""
        return self.y.cpu().reshape(-1)[torch.from_numpy(self.used)].double()

    def noise(self) -> Tensor:
        """Relative noise variance of each used ray, (m,), float64."""
        return 1 / self.weights.cpu().reshape(-1)[torch.from_numpy(self.used)].double()


@dataclass(frozen=True, eq=False)
class GaussianModel:
    """The image's covariance before any view is measured, and the noise; design is algebra in float64 on the CPU.

    Parameters
    ----------
    covariance : Covariance
        Of the image's pixels.
    sigma2 : float
        Noise variance of a ray of weight 1.
    image : Tensor, shape (y, x), optional
        A reconstruction in 1/mm, where there is one: it predicts how many photons pass.
    mean : Tensor, shape (y, x), optional
        The image's prior mean, 0 if None. The design does not depend on it; a sum of models does.
    hyperparameters : mapping of str to float
    note : str
        One sentence: how the covariance is held, and why.
    """

    covariance: Covariance
    sigma2: float
    image: Tensor | None = None
    mean: Tensor | None = None
    hyperparameters: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


Learn = Callable[[Measurements], GaussianModel]
"""How a model is learned from the views measured so far, and learned again."""


class Every:
    """Learns again only after every ``step`` further views, and gives the same model in between.

    Parameters
    ----------
    learn : callable
    step : int
        0 learns once and never again.
    """

    def __init__(self, learn: Learn, step: int):
        if step < 0:
            raise InputError(f"A model can be learned again every 1 or more views, or never with 0; got {step}.")
        self.learn, self.step = learn, step
        self._model: GaussianModel | None = None
        self._learned = 0

    def __call__(self, measured: Measurements) -> GaussianModel:
        count = len(measured.views)
        if self._model is None or (self.step and count - self._learned >= self.step):
            self._model, self._learned = self.learn(measured), count
        return self._model
