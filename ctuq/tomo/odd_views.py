"""Views that see far more or less of an object than the others: flats among the projections, shutters, another beam.

Every view sees all of an object that lies within the field of view. In a parallel beam the sum of the line integrals is then
the same in all of them, and in a fan nearly so: an exact law, so that a view by itself can be known to be wrong.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctuq.scores.gaussian import STD_OF_MAD
from ctuq.tomo.field import outline_of
from ctuq.tomo.geometry import FanBeam
from ctuq.tomo.scan import Scan
from ctuq.tomo.shadow import edge_columns, shadow_of

ODD = "times as much as the others"
"""What every sentence about such views holds."""
_ODD, _FEW, _FEWEST = 0.5, 0.2, 8
_SIGMAS = 8.0
"""Robust standard deviations of all views' sums, which hold noise, and what a fan magnifies."""


@dataclass(frozen=True, eq=False)
class OddViews:
    """Views that differ from the others.

    Parameters
    ----------
    views : array of bool, shape (angle,)
    wrong : bool
        Whether no object can do so: the others see all of it, and these another sum. Else it reaches beyond the detector.
    told : str
    """

    views: NDArray[np.bool_]
    wrong: bool
    told: str


def odd_views(scan: Scan) -> OddViews | None:
    """Views whose mean line integral is off the others' by more than a half, if they are few.

    Parameters
    ----------
    scan : Scan
        Views without a ray that counts are none of these.
    """
    counts = np.ones(scan.projections.shape, bool) if scan.weights is None else scan.weights > 0
    seen = counts.any(axis=1)
    if seen.sum() < _FEWEST:
        return None
    y = np.where(counts, scan.projections, np.nan).astype(np.float64)[seen]
    means, odd = np.nanmean(y, axis=1), np.zeros(len(counts), bool)
    middle = float(np.median(means))
    odd[seen] = np.abs(means - middle) > _ODD * abs(middle)
    if middle <= 0 or not 0 < odd.sum() <= _FEW * seen.sum():
        return None
    first = int(np.argmax(odd))
    times, degrees = means[np.argmax(odd[seen])] / middle, np.rad2deg(scan.geometry.angles[first])
    what = f"{int(odd.sum())} of {len(odd)} views, first number {first} (at {degrees:.4g} degrees), attenuate {times:.2g} {ODD}"
    if not _wrong(scan, y, odd[seen], np.flatnonzero(seen & ~odd)):
        return OddViews(odd, False, f"{what}: they may be flats, or of another object or beam.")
    return OddViews(odd, True, f"{what}, which see all of the object: flats, or of another object or beam, and left out.")


def _wrong(scan: Scan, y: NDArray[np.float64], odd: NDArray[np.bool_], others: NDArray[np.int64]) -> bool:
    """Whether the other views see all of the object, and each odd one more or less of it than any view of a fan magnifies.

    What a view reads in air is taken off first, as a drift of the beam moves all of its rays.
    """
    rest = scan.select(others)
    # Of half acquisition each view sees a part of the object, and not the same.
    if any(shadow_of(rest.projections, rest.weights).cut):
        return False
    most, n = 1.0, edge_columns(y.shape[1])
    if isinstance(scan.geometry, FanBeam):
        distance, reach = scan.geometry.source_to_axis, outline_of(rest).reach
        most = (distance + reach) / max(distance - reach, 1e-9)
    filled = np.nan_to_num(y, nan=0.0)
    sums = np.nanmean(y, axis=1) - np.minimum(filled[:, :n].mean(axis=1), filled[:, -n:].mean(axis=1))
    middle = float(np.median(sums))
    spread = STD_OF_MAD * float(np.median(np.abs(sums - middle)))
    ratios = sums[odd] / middle if middle > 0 else np.ones(1)
    far = np.abs(sums[odd] - middle) > _SIGMAS * spread
    return bool((far & ((ratios > (1 + _ODD) * most) | (ratios < _ODD / most))).all())
