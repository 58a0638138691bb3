"""Views that see far more or less of an object than the others: flats among the projections, shutters, another beam.

Every view sees all of an object that lies within the field of view. In a parallel beam the sum of the line integrals is then
the same in all of them, and in a fan nearly so: an exact law, so that a view by itself can be known to be wrong.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ctuq.scores.gaussian import STD_OF_MAD
from ctuq.tomo.field import outline_of
from ctuq.tomo.geometry import FanBeam
from ctuq.tomo.scan import Scan
from ctuq.tomo.shadow import edge_columns, noise_of

ODD = "times as much as the others"
"""What every sentence about such views holds."""
_ODD, _FEW, _FEWEST = 0.5, 0.2, 8
_ENORMOUS = 50
_STEP = 0.25
"""From one view to the next, over the others' mean, up to which an object may be seen to grow."""
_SIGMAS = 8.0
"""Robust standard deviations of all views' sums, which hold noise, and what a fan magnifies."""
_ALIKE = 0.1
"""What the air of a view may read at one edge of the detector more than at the other, over what it reads."""


@dataclass(frozen=True, eq=False)
class OddViews:
    """Views that differ from the others.

    Parameters
    ----------
    views : array of bool, shape (angle,)
    wrong : bool
        Whether no object can do so: the others see all of it, and these another sum. Else it reaches beyond the detector.
    told : str
    air : array, shape (angle,), optional
        What their air reads, alike at both edges of the detector, where they see the same object beside that.
    """

    views: NDArray[np.bool_]
    wrong: bool
    told: str
    air: NDArray[np.float64] | None = None

    def corrected(self, scan: Scan) -> Scan:
        """The scan with what its odd views' air reads taken off them.

        One view of 24 that read a third of the maximum too much lost 1.2 dB, and ended the fit at five times the maximum.
        """
        if self.air is None:
            return scan
        return replace(scan, projections=(scan.projections - self.air[:, None]).astype(scan.projections.dtype))


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
    off = np.abs(means - middle)
    # Of 12 drawn scans of 5 photons in 72 columns 8 had views, up to 7 of 60, that noise alone moved by half of the sum.
    noise = _SIGMAS * noise_of(y[:, np.isfinite(y).all(axis=0)]) / np.sqrt(y.shape[1])
    odd[seen] = off > max(_ODD * abs(middle), noise)
    if odd.sum() > _FEW * seen.sum():
        # Of a faint object half of the mean is less than what air reads from view to view.
        odd[seen] = off > max(_ODD * abs(middle), _SIGMAS * STD_OF_MAD * float(np.median(off)))
    if middle <= 0 or not 0 < odd.sum() <= _FEW * seen.sum():
        return None
    first = int(np.argmax(odd))
    times, degrees = means[np.argmax(odd[seen])] / middle, np.rad2deg(scan.geometry.angles[first])
    # Where the others see next to nothing a ratio says nothing.
    ratio = f"{times:.2g}" if abs(times) < _ENORMOUS else "many"
    what = f"{int(odd.sum())} of {len(odd)} views, first number {first} (at {degrees:.4g} degrees), attenuate {ratio} {ODD}"
    wrong, air = _compared(scan, y, odd[seen], np.flatnonzero(seen & ~odd))
    if wrong:
        return OddViews(odd, True, f"{what}, which see all of the object: flats, or of another object or beam, and left out.")
    if air is None:
        # A plate or a film is longer the nearer a view is to its plane: twice as long at 60 degrees. Views that see less and
        # less of it are no views of one object: of a picture whose rows are the columns they begin and end in air.
        if (means[odd[seen]] > middle).all() and _gradual(scan.geometry.angles[seen], means, odd[seen], _STEP * middle):
            return None
        return OddViews(odd, False, f"{what}: they may be flats, or of another object or beam.")
    offsets = np.zeros(len(odd))
    offsets[odd] = air
    return OddViews(odd, False, f"{what}, and so does their air: what it reads is taken off them.", offsets)


def _gradual(angles: NDArray[np.float64], means: NDArray[np.float64], odd: NDArray[np.bool_], step: float) -> bool:
    """Whether views go over into the odd ones by small steps, from angle to angle."""
    order = np.argsort(angles, kind="stable")
    means, odd = means[order], odd[order]
    return bool((np.abs(np.diff(means))[odd[1:] != odd[:-1]] < step).all())


def _compared(
    scan: Scan, y: NDArray[np.float64], odd: NDArray[np.bool_], others: NDArray[np.int64]
) -> tuple[bool, NDArray[np.float64] | None]:
    """Whether each odd view sees more or less of the object than a fan magnifies; if none does, what their air reads.

    What a view reads in air is taken off first, as a drift of the beam moves all of its rays.
    """
    rest = scan.select(others)
    # Of half acquisition each view sees a part of the object, and not the same.
    if any(rest.shadow.cut):
        return False, None
    most, n = 1.0, edge_columns(y.shape[1])
    if isinstance(scan.geometry, FanBeam):
        distance, reach = scan.geometry.source_to_axis, outline_of(rest).reach
        most = (distance + reach) / max(distance - reach, 1e-9)
    filled = np.nan_to_num(y, nan=0.0)
    edges = np.stack([filled[:, :n].mean(axis=1), filled[:, -n:].mean(axis=1)])
    sums = np.nanmean(y, axis=1) - edges.min(axis=0)
    middle = float(np.median(sums))
    spread = STD_OF_MAD * float(np.median(np.abs(sums - middle)))
    ratios = sums[odd] / middle if middle > 0 else np.ones(1)
    far = np.abs(sums[odd] - middle) > _SIGMAS * spread
    beyond = far & ((ratios > (1 + _ODD) * most) | (ratios < _ODD / most))
    if beyond.any():
        return bool(beyond.all()), None
    air = edges[:, odd].mean(axis=0)
    same = np.ptp(edges[:, odd], axis=0) < _ALIKE * np.abs(air)
    return False, air if bool(same.all()) and middle > 0 else None
