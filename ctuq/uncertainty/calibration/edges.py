"""Error bars that are longer at the edges of an image than in its flat parts, as far as held-out views ask for it.

With one scale for the whole image, edges of scans of little noise are too sure and flat parts too cautious. So the posterior's
covariance P becomes ``T P T`` with ``T = flat + (edge - flat) M``, M a smooth map of the image's edges, 0 to 1. Of ``edge`` and
``flat``, roots of variances, held-out views teach the ratio; their product is 1, so that the image's scale stays what it is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.uncertainty.calibration.held_out import Unseen
from ctuq.uncertainty.calibration.scales import ScalePrior, median_of, scale_posterior, temper_of
from ctuq.uncertainty.calibration.turns import Turns
from ctuq.uncertainty.model.covariance import ImageCovariance, Stretched

RATIOS = np.arange(-2.25, 2.3, 0.75)
"""Logarithms of the variance at edges over that in flat parts, at which held-out views are asked."""
SLOPE, _SOFT = 0.1, 1.5
"""Of the image's range a pixel's slope that is an edge; pixels by which the map is blurred."""
_FREEDOM = 2.0
"""Of Student's t of the ratio's logarithm, of width 1: that of both scales."""

_LEAST = 0.02
"""Share of the pixels at edges, and of those in flat parts, below which one scale serves both."""

Facts = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], Turns | None]


@dataclass(frozen=True, eq=False)
class EdgeScale:
    """T.

    Parameters
    ----------
    map : Tensor, float64, shape (y, x)
        M.
    log_ratio : float
        Of the variance at edges over that in flat parts.
    """

    map: Tensor
    log_ratio: float

    @property
    def flat(self) -> float:
        """T in flat parts."""
        return math.exp(-self.log_ratio / 4)

    @property
    def more(self) -> float:
        """T at edges, less that in flat parts."""
        return math.exp(self.log_ratio / 4) - self.flat

    @property
    def root(self) -> Tensor:
        """T of each pixel, (y, x)."""
        return self.flat + self.more * self.map


def edge_map(image: Tensor) -> Tensor:
    """M of an image (y, x), float64: 1 at edges, 0 in flat parts."""
    from scipy.ndimage import binary_dilation, gaussian_filter

    values = image.double().cpu().numpy()
    slopes = np.hypot(
        *(np.gradient(values, axis=axis) if n > 1 else np.zeros_like(values) for axis, n in enumerate(values.shape))
    )
    edges = binary_dilation(slopes > SLOPE * max(np.ptp(values), 1e-300))
    return torch.from_numpy(gaussian_filter(edges.astype(np.float64), _SOFT)).to(image.device)


def has_both(edges: Tensor) -> bool:
    """Whether an image of this map has edges and flat parts: else a ratio is a scale of all, by another name."""
    return _LEAST < float(edges.mean()) < 1 - _LEAST


def learn_ratio(facts_at: Callable[[float], Facts]) -> float:
    """Posterior median of the ratio's logarithm, both scales integrated out.

    Parameters
    ----------
    facts_at : callable
        What the held-out rays are by a ratio's logarithm: what `ctuq.uncertainty.calibration.scales.learn_scales` takes.
    """
    from scipy.interpolate import CubicSpline

    known = {float(r): facts_at(float(r)) for r in RATIOS}
    *rays, turns = known[0.0]
    prior, temper = ScalePrior(), temper_of(*rays, turns=turns)
    heights = [_height(f, prior, temper) - 0.5 * (_FREEDOM + 1) * math.log1p(r**2 / _FREEDOM) for r, f in known.items()]
    fine = np.linspace(RATIOS[0], RATIOS[-1], 181)
    density = CubicSpline(RATIOS, heights)(fine)
    return median_of(fine, np.exp(density - density.max()))


def _height(facts: Facts, prior: ScalePrior, temper: float) -> float:
    residual, signal, noise, turns = facts
    return scale_posterior(residual, signal, noise, prior, turns=turns, temper=temper).log_mass


@dataclass(frozen=True, eq=False)
class WidenedRays:
    """Left-out rays given all others where the image varies by ``T P T``; what they add to the image is by P alone.

    Parameters
    ----------
    plain : Unseen
    covariance : Tensor, float64, shape (k, k)
        Of some left-out rays by ``T P T``, noise included, in units of the noise.
    rows : Tensor of int, shape (k,)
        Which of them these are, in order; no others may be asked for.
    """

    plain: Unseen
    covariance: Tensor
    rows: Tensor

    def variances(self, index: Tensor) -> Tensor:
        """As of `Unseen`."""
        return self.covariance.diagonal()[self._at(index)]

    def innovations(self, index: Tensor) -> Tensor:
        """As of `Unseen`."""
        return self.plain.innovations(index)

    def joint(self, index: Tensor) -> Tensor:
        """As of `Unseen`."""
        at = self._at(index)
        return self.covariance[at][:, at]

    def systematic(self) -> tuple[Tensor, Tensor] | None:
        """As of `Unseen`."""
        return self.plain.systematic()

    def own(self) -> Tensor:
        """As `Unseen.own`."""
        return self.plain.own()

    def correction(self, residual: Tensor, image_scale: float, noise_scale: float) -> Tensor:
        """As of `Unseen`."""
        return self.plain.correction(residual, image_scale, noise_scale)

    def _at(self, index: Tensor) -> Tensor:
        return torch.searchsorted(self.rows, index)


class EdgePosterior(Stretched):
    """``N(mean, T P T)`` with the P of a slice."""

    def __init__(self, plain: ImageCovariance, scale: EdgeScale):
        super().__init__(plain)
        self._root = scale.root

    def std(self) -> Tensor:
        return self._root * self._plain.std()

    @property
    def error(self) -> float:
        return self._plain.error

    def _of_rows(self, rows: Tensor) -> Tensor:
        return self._root.flatten() * rows
