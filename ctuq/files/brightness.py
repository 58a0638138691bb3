"""How bright the rays are beside the open beam, and how steady the beam is, as far as the noise of counts lets it be told."""

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.formats.raw import Raw
from ctuq.tomo.shadow import noise_of

_BRIGHTER, _FAR_BRIGHTER, _DARK = 1.2, 2.0, 0.1
_SIGMAS = 3.0
"""Standard deviations of a column's brightness: of air, 5 photons and 8 flats the brightest tenth of 72 columns had up to 1.38
times the open beam (200 draws), one column's deviation being 0.17."""
_DRIFT, _BEYOND = 0.02, 2.5
"""Of steady beams of 20 photons in 72 columns eight flats differ by 4 to 11 % (of 200 draws the 5th to 95th percentile), and by
16 % at most: the range that so many normal draws have is allowed for, and 2.5 of their standard deviations, of 2.6 %, more."""
_PER_CENT = 200


def doubts_of_brightness(raw: Raw, projections: NDArray, good: NDArray[np.bool_]) -> tuple[str, ...]:
    """Warnings about the brightest columns beside the open beam.

    Parameters
    ----------
    raw : Raw
    projections : array, shape (angle, column)
        Line integrals.
    good : array of bool, same shape

    Raises
    ------
    InputError
        If they are far brighter than the open beam.
    """
    times, noise = _brightness(projections, good)
    if times > _FAR_BRIGHTER + _SIGMAS * noise:
        raise InputError(_too_bright(raw, times))
    if times > _BRIGHTER + _SIGMAS * noise:
        return (f"The brightest columns have {times:.2g} times the open beam; the flats may be of another exposure.",)
    if times < _DARK and not raw.one_of_many:
        return (
            f"Even the brightest columns hold {times:.2g} of the open beam: unless the object covers all of the detector, the "
            "values are not what 'values' says or the open beam is of another exposure; check 'values' and 'flat'.",
        )
    return ()


def doubt_of_flats(raw: Raw) -> str:
    """How much the flats differ, by their means over the columns, if by more than their noise; else empty."""
    if raw.flats is None or len(raw.flats) < 2:
        return ""
    flats = np.asarray(raw.flats, np.float64)
    flats = flats[:, np.isfinite(flats).all(axis=0)]
    if not flats.size:
        return ""
    how = "their mean is taken, so a beam that drifts leaves errors"
    if raw.flats_after is not None and np.unique(raw.flats_after).size > 1:
        flats = np.array([flats[raw.flats_after == time].mean(axis=0) for time in np.unique(raw.flats_after)])
        how = "they are interpolated between their times"
    levels = flats.mean(axis=1)
    least, most = flats[levels.argmin()], flats[levels.argmax()]
    # Of one level: two flats differ by the noise of both.
    noise = float(np.std(most - least) / np.sqrt(2 * flats.shape[1]))
    by_chance = (2 * np.sqrt(2 * np.log(len(flats))) + _BEYOND) * noise
    apart, level = float(np.ptp(levels)), max(float(np.median(levels)), 1e-30)
    if apart <= max(_DRIFT * level, by_chance):
        return ""
    return f"The flats differ by {100 * apart / level:.2g} % among themselves; {how}."


def _brightness(projections: NDArray, good: NDArray[np.bool_]) -> tuple[float, float]:
    """Intensity over the open beam in the brightest columns, and its standard deviation of one of them.

    The columns' means over the views count, which noise hardly moves; but what a column's open beam is off stays in them.
    """
    bright = np.where(good, np.exp(np.minimum(-projections, 700)), 0)
    used = good.any(axis=0)
    means = bright.sum(axis=0)[used] / good.sum(axis=0)[used]
    return float(np.percentile(means, 90)), noise_of(means[None])


def _too_bright(raw: Raw, times: float) -> str:
    if raw.kind_of_values == "transmission":
        per_cent = "; if it is in per cent, N is 100" if times < _PER_CENT else ""
        return (
            f"the transmission goes up to {times:.4g}, and more than 1 cannot be: these are counts; give the open beam as "
            f"'flat: N' or 'flat: FILE' with 'values: counts' in a geometry file{per_cent}."
        )
    return f"the rays have up to {times:.4g} times the open beam; check the flats, and which images are which."
