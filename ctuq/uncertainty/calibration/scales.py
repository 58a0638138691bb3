"""Scales of the image covariance and of the noise, learned on views that the network never saw.

The network was fitted to the same rays that the evidence sees, so its error bars are too short on real data, and no figure
computed from fitted rays can show it. Held-out views can.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctuq.scores.gaussian import Z95
from ctuq.uncertainty.calibration.turns import Turns

_NODES, _PASSES, _NEGLIGIBLE = 41, 3, 18.0
_WIDEST = 24.0
_RAYS = 256
FEWER = 6.0
"""Views differ by more than their rays tell. Over the 27 scans of `experiments.calibration` the variance of a view's mean
square, relative to that of independent rays of the same correlation, is 5.7 at the median: 1 to 2 in clean simulations, 5 to 22
in real scans. So many times fewer facts are rays than they seem."""
# Of the posterior. What lies outside is 5 % if scales were all that is wrong; ranges held for 24 and 25 of the 27 scans.
_LOW, _HIGH = 0.025, 0.975
_UNKNOWN = (math.nan, math.nan)

Range = tuple[float, float]


@dataclass(frozen=True)
class ScalePrior:
    """Student's t of the logarithms of both scales, that of the image's cut off below ``lowest``.

    With ``freedom`` 2 held-out views that are far off the model are believed: Gaussians of sd 1 left the bars of a scan that no
    object explains at 1.69 times too short. Over 27 scans the two are as good. The noise's lies below 0, as scans have it: what
    the evidence takes for noise of the fitted rays is in part misfit to them.

    By 60 unseen views a scan, the 27 scans of `experiments.calibration` have 0.3 +- 0.8 and -0.3 (median) +- 1.4.
    """

    image_sd: float = 1.0
    noise_sd: float = 1.0
    lowest: float = 0.0
    image_mean: float = 0.0
    noise_mean: float = -0.5
    freedom: float = 2.0

    def energy(self, log_image: NDArray, log_noise: NDArray) -> NDArray:
        """Minus its log density at each pair, (i, j), but for a constant."""
        q = (((log_image - self.image_mean) / self.image_sd) ** 2, ((log_noise - self.noise_mean) / self.noise_sd) ** 2)
        if math.isinf(self.freedom):
            return 0.5 * (q[0][:, None] + q[1])
        first, second = (0.5 * (self.freedom + 1) * np.log1p(x / self.freedom) for x in q)
        return np.asarray(first[:, None] + second)


@dataclass(frozen=True)
class Scales:
    """Factors on the image covariance and on the noise variance, the sd of their logarithms, and what that leaves open.

    ``cover_68`` and ``cover_95`` are ranges, true with a probability of about 90 %, of the share of unseen rays that the
    nominal intervals hold; NaN where that was not computed.
    """

    image: float
    noise: float
    log_image_sd: float
    log_noise_sd: float
    cover_68: Range = _UNKNOWN
    cover_95: Range = _UNKNOWN


UNSCALED = Scales(1, 1, math.inf, math.inf)
"""Without held-out views: the model's own, of which nothing is known."""


@dataclass(frozen=True, eq=False)
class ScalePosterior:
    """What held-out rays say of both scales, on a grid of their logarithms.

    Parameters
    ----------
    log_image : array, shape (i,)
    log_noise : array, shape (j,)
    weights : array, shape (i, j)
        Sum to 1.
    log_mass : float
        Logarithm of the tempered likelihood times the prior, integrated over both, but for what all models of these rays share.
    """

    log_image: NDArray[np.float64]
    log_noise: NDArray[np.float64]
    weights: NDArray[np.float64]
    log_mass: float

    def summary(self) -> tuple[Range, Range]:
        """Median and standard deviation of the logarithm of each scale."""
        first, second = (_summary(x, self.weights.sum(1 - i)) for i, x in enumerate((self.log_image, self.log_noise)))
        return first, second

    def coverage(self, scales: Range, image_variance: NDArray, noise_variance: NDArray, half_width: float) -> Range:
        """Range of the share of rays inside ``half_width`` standard deviations by these two scales.

        If the scales are really (a, b), a ray whose variance is taken for v lies inside with the probability
        ``erf(half_width sqrt(v / 2 (a p + b s)))``; its mean over the rays has the posterior of (a, b).
        """
        from scipy.special import erf

        few = np.linspace(0, image_variance.size - 1, min(image_variance.size, _RAYS)).round().astype(int)
        p, s = image_variance.ravel()[few], noise_variance.ravel()[few]
        taken = half_width * np.sqrt((scales[0] * p + scales[1] * s) / 2)
        a, b = np.exp(self.log_image), np.exp(self.log_noise)[:, None]
        inside = np.array([erf(taken / np.sqrt(x * p + b * s)).mean(axis=1) for x in a])
        return _quantile(inside, self.weights, _LOW), _quantile(inside, self.weights, _HIGH)


def learn_scales(
    residual: NDArray,
    image_variance: NDArray,
    noise_variance: NDArray,
    turns: Turns | None = None,
    prior: ScalePrior | None = None,
) -> Scales:
    """Posterior medians of ``a >= 1`` and ``b`` in ``residual ~ N(0, a image_variance + b noise_variance)``.

    The likelihood of the rays is tempered by their correlation time along the detector (neighbouring rays err together) and by
    `FEWER` (views differ), so that a handful of views counts as the few independent facts that it is. A prior of the logarithm,
    Student's t of 2 degrees around -1/2, keeps the noise scale from collapsing. That of the image scale is the upper half of
    one: fitting the network to the rays that the evidence sees can only shorten the error bars, and rays average over the fine
    errors of an image, so that they cannot show that its pixels are better known than the model says. Without that bound the
    scale of ellipses seen over 60 degrees came out at 0.47, and 95 % intervals of its pixels covered 77 % in place of 92 %.

    Parameters
    ----------
    residual, image_variance, noise_variance : array, shape (views, columns) or (views, rows, columns)
        Of the held-out rays.
    turns : Turns, optional
        Each held-out view given the others: where there are several, the scales are learned from these predictions.
    prior : ScalePrior, optional
        By default that of error bars of our own, which held-out views only make longer.

    Returns
    -------
    Scales
        Medians, standard deviations of the logarithms, and what nominal intervals then cover, by quadrature.
    """
    p, s = image_variance.astype(np.float64), noise_variance.astype(np.float64)
    found = scale_posterior(residual, p, s, prior, turns=turns)
    (image, image_sd), (noise, noise_sd) = found.summary()
    scales = (math.exp(image), math.exp(noise))
    if turns is not None:
        ratio = noise - image
        p = np.maximum(turns.at(ratio)[1] - math.exp(ratio) * s, 0)
    cover_68, cover_95 = (told_coverage((residual, p, s), found, scales, half_width) for half_width in (1.0, Z95))
    return Scales(*scales, image_sd, noise_sd, cover_68, cover_95)


def told_coverage(held: tuple[NDArray, NDArray, NDArray], found: ScalePosterior, scales: Range, half_width: float) -> Range:
    """Range of the share of unseen rays that intervals by ``scales`` hold, true with a probability of about 90 %.

    That an image scale is at least 1 is caution, not knowledge: of eleven fits with a single held-out view three had intervals
    that were longer than such a range allows, and none shorter. There the range also holds what follows without that bound.

    Parameters
    ----------
    held : tuple of arrays, shape (views, columns)
        Residuals and variances, as of `learn_scales`.
    found : ScalePosterior
        From these.
    scales : tuple of float
    half_width : float
        In standard deviations.
    """
    residual, p, s = held
    posteriors = [found] if len(residual) > 1 else [found, scale_posterior(residual, p, s, ScalePrior(lowest=-math.inf))]
    low, high = zip(*(each.coverage(scales, p, s, half_width) for each in posteriors), strict=True)
    return min(low), max(high)


def scale_posterior(
    residual: NDArray,
    image_variance: NDArray,
    noise_variance: NDArray,
    prior: ScalePrior | None = None,
    *,
    fewer: float = FEWER,
    turns: Turns | None = None,
    temper: float | None = None,
) -> ScalePosterior:
    """The posterior of both scales, on a grid that closes in on it.

    Parameters
    ----------
    residual, image_variance, noise_variance : array, shape (views, columns) or (views, rows, columns)
        Of the held-out rays.
    prior : ScalePrior, optional
    fewer : float
        Tempers the likelihood: how many times fewer facts the rays are than their correlation along the detector says.
    turns : Turns, optional
        As of `learn_scales`.
    temper : float, optional
        By default `temper_of` these predictions; models that are compared share one.
    """
    prior = ScalePrior() if prior is None else prior
    r2 = residual.astype(np.float64).ravel() ** 2
    p, s = (v.astype(np.float64) for v in (image_variance, noise_variance))
    temper = temper_of(residual, p, s, fewer=fewer, turns=turns) if temper is None else temper
    p, s = p.ravel(), s.ravel()

    def losses(log_image: NDArray, log_noise: NDArray) -> NDArray:
        rows = []
        for first in log_image:
            if turns is not None:
                squares, logs = turns.sums(log_noise - first)
                rows.append(0.5 * temper * (squares * math.exp(-first) + logs + p.size * first))
                continue
            v = math.exp(first) * p + np.exp(log_noise)[:, None] * s
            rows.append(0.5 * temper * np.sum(r2 / v + np.log(v), axis=1))
        return np.array(rows) + prior.energy(log_image, log_noise)

    edges = ((max(prior.lowest, -_WIDEST), _WIDEST), (-_WIDEST, _WIDEST))
    for _ in range(_PASSES - 1):
        edges = _narrowed(edges, losses)
    axes = _nodes(edges)
    height = losses(*axes)
    weights = np.exp(height.min() - height)
    # Trapezoidal rule: a cut-off prior's first node counts half.
    weights[[0, -1]] /= 2
    weights[:, [0, -1]] /= 2
    area = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    return ScalePosterior(*axes, weights / weights.sum(), math.log(weights.sum() * area) - float(height.min()))


def temper_of(
    residual: NDArray,
    image_variance: NDArray,
    noise_variance: NDArray,
    *,
    fewer: float = FEWER,
    turns: Turns | None = None,
) -> float:
    """By what the likelihood of correlated rays of views that differ is tempered; parameters as of `scale_posterior`."""
    off, variance = (residual, image_variance + noise_variance) if turns is None else turns.at(0.0)
    z = off / np.sqrt(variance)
    # As if correlations along a detector's two axes were independent of one another.
    return 1 / (fewer * math.prod(correlation_time(z, axis) for axis in range(1, z.ndim)))


def _nodes(edges: tuple[Range, Range]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.linspace(*edges[0], _NODES), np.linspace(*edges[1], _NODES)


def _narrowed(edges: tuple[Range, Range], losses: Callable[[NDArray, NDArray], NDArray]) -> tuple[Range, Range]:
    """Edges of the part where a density is not negligible, a node more on each side."""
    axes = _nodes(edges)
    height = losses(*axes)
    near = height - height.min() < _NEGLIGIBLE

    def part(x: NDArray, kept: NDArray) -> Range:
        found = np.flatnonzero(kept)
        return float(x[max(found[0] - 1, 0)]), float(x[min(found[-1] + 1, _NODES - 1)])

    return part(axes[0], near.any(axis=1)), part(axes[1], near.any(axis=0))


def _summary(values: NDArray, weights: NDArray) -> Range:
    """Median and standard deviation."""
    mean = np.average(values, weights=weights)
    return median_of(values, weights), float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))


def median_of(values: NDArray, weights: NDArray) -> float:
    """Of weighted values."""
    return _quantile(values, weights, 0.5)


def _quantile(values: NDArray, weights: NDArray, level: float) -> float:
    """Of weighted values."""
    order = np.argsort(values, axis=None)
    share = np.cumsum(weights.ravel()[order])
    return float(np.interp(level * share[-1], share - weights.ravel()[order] / 2, values.ravel()[order]))


def correlation_time(values: NDArray, axis: int = -1) -> float:
    """How many correlated values along an axis say as much of their variance as one independent value; at least 1.

    ``1 + 2 sum of squared autocorrelations``, up to the first that is negative: the variance of a mean square of n Gaussian
    values is that factor times 2 / n (Bartlett 1935).
    """
    rows = np.moveaxis(values, axis, -1)
    n = rows.shape[-1]
    centred = rows.astype(np.float64) / max(float(np.sqrt(np.mean(rows.astype(np.float64) ** 2))), 1e-300)
    total = 1.0
    for lag in range(1, n // 2):
        correlation = float(np.mean(centred[..., :-lag] * centred[..., lag:]))
        if correlation <= 0:
            break
        total += 2 * correlation**2
    return total
