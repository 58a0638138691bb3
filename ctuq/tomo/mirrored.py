"""The rotation axis of a whole turn of parallel views of which each sees a part of the object, by views half a turn apart."""

import numpy as np

from ctuq.tomo.geometry import FanBeam, full_turn
from ctuq.tomo.scan import Scan

_PAIRS, _LEAST, _SHARE = 48, 6, 0.12
"""Pairs of views that are compared, and columns that they must share: a few, or so much of the detector."""
_CLEARLY, _BESIDE = 1.5, 0.05


def mirrored_axis(scan: Scan) -> float | None:
    """The column about which views half a turn apart are each other's mirror images; None where none is clear.

    What they share is compared about every half column: rays of half acquisition are seen twice near the axis alone. A short
    reconstruction (`ctuq.tomo.axis`) fails there for objects that are much the same all around: 6 of 18 drawn ones.
    """
    angles, n = scan.geometry.angles, scan.geometry.columns
    if isinstance(scan.geometry, FanBeam) or not full_turn(angles):
        return None
    apart = np.abs(np.angle(np.exp(1j * (angles[:, None] + np.pi - angles[None]))))
    step = 2 * np.pi / len(angles)
    views = np.flatnonzero(apart.min(axis=1) < 0.75 * step)
    views = views[np.unique(np.linspace(0, len(views) - 1, min(len(views), _PAIRS)).astype(int))] if len(views) else views
    if len(views) < 3:
        return None
    first, second = scan.projections[views].astype(np.float64), scan.projections[apart.argmin(axis=1)[views], ::-1]
    shared = max(_LEAST, int(_SHARE * n))
    # Twice the axis' column is the sum of the columns of a ray and of its mirror image.
    sums = np.arange(shared - 1, 2 * n - 1 - shared)
    unlike = np.array([_unlike(first, second, int(each)) for each in sums])
    best = int(unlike.argmin())
    if not 0 < best < len(sums) - 1:
        return None
    far = np.abs(sums - sums[best]) > max(4, 2 * _BESIDE * n)
    if not far.any() or unlike[far].min() < _CLEARLY * unlike[best]:
        return None
    left, middle, right = unlike[best - 1 : best + 2] ** 2
    bend = left - 2 * middle + right
    return float(sums[best] + (0.5 * (left - right) / bend if bend > 0 else 0)) / 2


def _unlike(first: np.ndarray, second: np.ndarray, total: int) -> float:
    """Root mean square difference of rays whose columns add up to ``total``, over that of both from their columns' means."""
    n = first.shape[1]
    low, high = max(0, total - n + 1), min(n - 1, total) + 1
    a, b = first[:, low:high], second[:, n - 1 - total + low : n - 1 - total + high]
    scatter = np.square(a - a.mean()).mean() + np.square(b - b.mean()).mean()
    return float(np.sqrt(np.square(a - b).mean() / max(scatter, 1e-300)))
