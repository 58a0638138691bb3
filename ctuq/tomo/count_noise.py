"""Noise of line integrals that grows with attenuation, as that of the counts behind them does, where a scan has no weights.

Counts of mean I vary by I, so their line integrals p vary by 1 / I, which is e^p times what they vary by in air. Of rays that
are all that noisy

    variance = a (1 + g (e^p - 1)),

with g = 1 where counts alone make noise, and g = 0 where nothing grows. Line integrals of ta, tb, the walnut and the tooth, as
they come, are 2.3, 2.1, 2.3 and 1.9 times as noisy through the thickest parts as in air (fourth differences along the
columns); e^(p / 2) is 2.6, 2.1, 2.0 and 2.1. There whatever else is wrong with rays is larger, and weights are worth less than
0.03 nats a ray. Of a torso with 57 counts in the open beam they are worth 0.2, and without them 95 % intervals hold 79 % of the
unseen rays through its thickest fifth, and all in air.
"""

import numpy as np
from numpy.typing import NDArray

GROWTHS = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""g that are tried."""
_STEPS, _WIDTH = 120, 16.0
_WORTH, _ALL = 0.04, 50.0
"""Nats a ray, and of all rays, from which on weights are taken. Where noise does not grow, scans gain up to 0.03."""
_THICK, _UNITS = 0.7, 12.0
"""Line integrals up to the one are at most twice as uncertain, in variance, as air: weights gain 0.03 nats then. No detector
sees through the other: such numbers have other units (in published scans of basalt and dendrites they are 100 and 1,200)."""
_LARGEST = 700.0
_TOLD = (
    "The noise of rays grows with attenuation as that of counts, {:.2g} times as large through the thickest parts as in air, "
    "and the scan has no weights: rays count as that says. If the counts are known, give them in place of line integrals."
)


def variance_of(line_integrals: NDArray, growth: float) -> NDArray[np.float64]:
    """Noise variances of rays over that of a ray in air.

    Parameters
    ----------
    line_integrals : array
        Without noise.
    growth : float
        g.
    """
    # Numbers of other units are beyond what an exponential holds: of rays up to 28,000 most were foretold with no variance.
    return 1 + growth * np.expm1(np.clip(np.asarray(line_integrals, np.float64), 0, _LARGEST))


def may_grow(line_integrals: NDArray) -> bool:
    """Whether rays are thick enough to show it, and in the units of line integrals."""
    return _THICK < _thick(line_integrals) < _UNITS


def told_of(line_integrals: NDArray, growth: float) -> str:
    """What the user should know of rays that count by this growth."""
    return _TOLD.format(float(np.sqrt(variance_of(np.asarray(_thick(line_integrals)), growth))))


def growth_of(residual: NDArray, line_integrals: NDArray, beside: NDArray) -> float:
    """The g of most likelihood, or 0 where it is not clearly worth more than none.

    Parameters
    ----------
    residual : array
        Of the rays that count, by an image.
    line_integrals : array
        Of that image.
    beside : array
        Variance that is no noise, as that of `ctuq.tomo.subpixel.subpixel_variance`.
    """
    squares, p, other = (np.asarray(v, np.float64).ravel() for v in (np.square(residual), line_integrals, beside))
    most = float(squares.mean()) if squares.size else 0.0
    if most <= 0 or not may_grow(p):
        return 0.0
    noises = most * np.exp(1 - np.linspace(0, _WIDTH, _STEPS))

    def loss(growth: float) -> float:
        grown = variance_of(p, growth)
        return min(float(np.mean(np.log(v) + squares / v)) / 2 for v in (noise * grown + other for noise in noises))

    found = {growth: loss(growth) for growth in GROWTHS}
    best = min(found, key=lambda growth: found[growth])
    gain = loss(0.0) - found[best]
    return best if gain > _WORTH and gain * squares.size > _ALL else 0.0


def _thick(line_integrals: NDArray) -> float:
    """Through the object's thickest parts."""
    return float(np.percentile(line_integrals, 99))
