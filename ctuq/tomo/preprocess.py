"""From what a detector counted to line integrals and what each is worth: flat field, -log, bad pixels."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.scores.gaussian import STD_OF_MAD, robust_std
from ctuq.tomo.noise_law import NoiseLaw

_SPIKE = 10.0
_SMALLEST_SPIKE = 0.3
_SMALLEST_BUMP = 0.15
_SAMPLE, _STORED = 2**16, 64
_SMOOTH_COLUMNS = 2.0
_FEWEST_VIEWS = 10
_FEW_COUNTS = 5.0
# Of white noise smoothed by a Gaussian of 2 columns, (4 pi)^(-1/4) / 2^(1/2).
_SMOOTHED = 0.376
_MANY_SPIKES = 0.005
_NEIGHBOURS = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0))


@dataclass(frozen=True)
class Corrected:
    """Line integrals with their weights.

    Parameters
    ----------
    projections : array of float64, shape (angle, column)
        Finite everywhere; bad rays are interpolated.
    weights : array of float64, shape (angle, column)
        Mean 1 over the good rays, 0 on the bad ones.
    bad : int
        Number of rays that were repaired.
    unit : float
        What a weight of 1 stands for, in the weights or counts above the dark level that these were made from.
    suspects : tuple of int
        Columns that stand out in all views, and were kept as an object on the rotation axis does the same.
    """

    projections: NDArray[np.float64]
    weights: NDArray[np.float64]
    bad: int
    unit: float = 1.0
    suspects: tuple[int, ...] = ()


def projections_from_counts(
    counts: NDArray,
    flats: NDArray,
    darks: NDArray | None = None,
    flats_after: NDArray | None = None,
    *,
    full: float | None = None,
    law: NoiseLaw | None = None,
) -> Corrected:
    """Flat and dark correction and -log, with weights by the expected counts.

    The variance of ``-log(I / I0)`` is about one over the expected counts, or as `_worth` has it by a known law; these are the
    dark-corrected counts smoothed along the columns, because noisy ones would favour rays that happened to count much. A ray
    that counted nothing where hardly anything is expected is worth what is expected; one amid others that counted is bad.

    Parameters
    ----------
    counts : array, shape (angle, column)
    flats : array, shape (frame, column)
        Open-beam frames.
    darks : array, shape (frame, column), optional
        Frames without beam.
    flats_after : array, shape (frame,), optional
        How many views had been taken before each flat: the open beam is interpolated between them in the order of the views,
        as it drifts. Without it all flats are averaged.
    full : float, optional
        The detector's largest count. A ray that reaches it counted so much or more, so its integral lies between 0 and what
        this count stands for, where the open beam is brighter: it is taken in the middle, with the variance of the interval.
    law : NoiseLaw, optional
        What these counts vary by, from `ctuq.tomo.noise_law.learned_law`; by default each is a quantum and nothing else varies.

    Raises
    ------
    InputError
        If shapes disagree or no ray counted anything above the dark level.
    """
    from scipy.ndimage import gaussian_filter1d

    counts, flats = np.asarray(counts, np.float64), np.atleast_2d(np.asarray(flats, np.float64))
    darks_taken = 0 if darks is None else len(np.atleast_2d(darks))
    darks = np.zeros((1, counts.shape[-1])) if darks is None else np.atleast_2d(np.asarray(darks, np.float64))
    if counts.ndim != 2 or {flats.shape[1], darks.shape[1]} != {counts.shape[1]}:
        raise InputError(
            f"Counts {counts.shape}, flats {flats.shape} and darks {darks.shape} do not have the same number of columns."
        )
    with np.errstate(invalid="ignore"):
        dark = _level(darks)
        open_beam, signal = open_beams(flats, flats_after, len(counts)) - dark, counts - dark
    open_beam = np.broadcast_to(open_beam, counts.shape)
    good = np.isfinite(signal) & np.isfinite(open_beam) & (signal > 0) & (open_beam > 0)
    if not good.any():
        raise InputError("No ray counted anything above the dark level; check the flats, darks and which images are which.")
    with np.errstate(divide="ignore", invalid="ignore"):
        projections = np.where(good, -np.log(signal / open_beam), np.nan)
    # A ray that was lost says nothing of its neighbours, one that counted nothing does: they stand in the same shadow.
    lost = ~np.isfinite(signal) | ~(np.isfinite(open_beam) & (open_beam > 0))
    expected = gaussian_filter1d(np.maximum(_interpolated(signal, lost), 0), _SMOOTH_COLUMNS, axis=1)
    least = signal[good].min()
    expected = np.maximum(expected, least if law is None else max(least, _SMOOTHED * law.electronic))
    # Below so much a ray may well have counted nothing.
    enough = _FEW_COUNTS * least if law is None else max(_FEW_COUNTS * least, law.least(_FEW_COUNTS))
    starved = _starved(signal, expected, good, enough) & (open_beam > 0)
    projections[starved], good = np.log(open_beam[starved] / expected[starved]), good | starved
    if law is None:
        worth, unit = expected, 1.0
    else:
        flat, unit = _noise_of_mean(flats, flats_after, len(counts))[:, None], law.gain
        worth = _worth(expected, np.where(open_beam > 0, open_beam, 1.0), law, flat, darks_taken)
    if full is not None:
        # As they stand these rays are too dark and weigh most. Where half of an object's rays were so, by a factor of 2, the
        # image's error was 0.028 1/mm; it is 0.019 by their middle and its variance, and 0.019 without them.
        saturated = good & (counts >= full) & (projections > 0)
        worth[saturated] = np.minimum(worth[saturated], unit * 12 / projections[saturated] ** 2)
        projections[saturated] /= 2
    return _masked(projections, np.where(good, worth, 0))


def _worth(signal: NDArray, open_beam: NDArray, law: NoiseLaw, flat: NDArray, darks: int) -> NDArray[np.float64]:
    """The precision of ``-log((I - D) / (F - D))`` times the gain, so that it is the counts where only quanta make noise.

    By first derivatives ``variance = (e^2 + g S) / S^2 + k (e^2 + g O) / O^2 + (1 / S - 1 / O)^2 e^2 / d``, of a signal S, an
    open beam O that is a mean of 1 / k flats, and d darks. The last two are one error for all views of a column, and count here
    as each ray's own.
    """
    own = (signal + law.ratio) / signal**2 + flat * (open_beam + law.ratio) / open_beam**2
    return 1 / (own + (law.ratio / darks * (1 / signal - 1 / open_beam) ** 2 if darks else 0.0))


def _starved(signal: NDArray, expected: NDArray, good: NDArray[np.bool_], enough: float) -> NDArray[np.bool_]:
    """Rays that counted nothing where few counts are expected, in views and columns where others count.

    Without them only the rays that happened to count something tell of the densest parts. In scans of 100 counts a ray with a
    dense disc (3 % of the rays counted nothing) the image's error fell from 0.041 and 0.040 to 0.034 1/mm.
    """
    seen = np.median(np.where(good, signal, 0), axis=1) > enough
    counting = np.any(good, axis=0)
    return np.isfinite(signal) & ~good & (expected < enough) & seen[:, None] & counting


def open_beams(flats: NDArray, after: NDArray | None, views: int) -> NDArray[np.float64]:
    """The open beam (1, column), or that of each view (angle, column) where the flats were taken at several times.

    Parameters
    ----------
    flats : array, shape (frame, column)
    after : array, shape (frame,), optional
        How many views had been taken before each.
    views : int
    """
    times = np.zeros(1) if after is None else np.unique(after)
    if times.size < 2:
        return _level(flats)[None]
    levels = np.stack([_level(flats[np.asarray(after) == time]) for time in times])
    low, share = _between(times, views)
    return (1 - share)[:, None] * levels[low] + share[:, None] * levels[low + 1]


def _between(times: NDArray, views: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of each view the last time before it, and how far it is on the way to the next: after k views is before view k."""
    place = np.interp(np.arange(views), times - 0.5, np.arange(times.size))
    low = np.minimum(place.astype(int), times.size - 2)
    return low, place - low


def _noise_of_mean(flats: NDArray, after: NDArray | None, views: int) -> NDArray[np.float64]:
    """The variance of each view's open beam (angle,), of `open_beams`, in that of one flat."""
    times, counts = (np.zeros(1), np.array([len(flats)])) if after is None else np.unique(after, return_counts=True)
    if times.size < 2:
        return np.full(views, 1 / counts[0])
    low, share = _between(times, views)
    return (1 - share) ** 2 / counts[low] + share**2 / counts[low + 1]


def repaired(
    projections: NDArray,
    weights: NDArray | None = None,
    keep: NDArray[np.bool_] | None = None,
    axis: float | None = None,
) -> Corrected:
    """Interpolate rays that are NaN or infinite or belong to a dead or hot column.

    A bad column differs from its neighbours in the same way in the median over all views, or never changes while its neighbours
    do. Bad rays get weight 0, so that what replaces them can leave no ring.

    Parameters
    ----------
    projections : array, shape (angle, column)
    weights : array, same shape, optional
    keep : array of bool, shape (column,), optional
        Columns that are kept even so, as an object may do the same: a wire on the rotation axis stays in one column. But where
        all others change, if only by noise, one that never does is dead wherever it lies.
    axis : float, optional
        Column of the rotation axis: a column is also kept if the one as far beyond the axis stands out too, as the wall of a
        tube about the axis does.

    Raises
    ------
    InputError
        If no ray is left.
    """
    values = np.asarray(projections, np.float64)
    weights = np.ones(values.shape) if weights is None else np.array(weights, np.float64)
    bad = ~np.isfinite(values)
    if bad.all():
        raise InputError("All projections are NaN or infinite; the data cannot be repaired.")
    odd, dead = _bad_columns(_interpolated(values, bad))
    kept = np.zeros(odd.shape, bool) if keep is None else odd & keep & ~dead
    kept |= np.zeros(odd.shape, bool) if axis is None else _on_both_sides(odd & ~dead, axis)
    bad |= (odd & ~kept)[None, :]
    if bad.all() or not np.any(weights[~bad] > 0):
        raise InputError("No ray is left after taking out dead and hot pixels; check the data.")
    made = _masked(np.where(bad, np.nan, values), np.where(bad, 0, weights))
    return replace(made, suspects=tuple(np.flatnonzero(kept).tolist()))


def suspicion(columns: tuple[int, ...]) -> str:
    """What to tell of columns that stand out and are kept."""
    names = ", ".join(map(str, columns))
    which = (
        f"Column {names} stands out in all views and is"
        if len(columns) == 1
        else f"Columns {names} stand out in all views and are"
    )
    return (
        f"{which} kept, as an object on the rotation axis looks the same; if the "
        f"detector is at fault there, give 'bad_columns: [{names}]' in a geometry file."
    )


def where_an_object_can_stay(angles: NDArray, columns: int, axis: float) -> NDArray[np.bool_]:
    """Detector columns (column,) in which an object can stay for half of the views: those near the axis.

    What lies at a distance r of the axis moves by r (1 - cos a) while the beam turns by an angle a to both sides.

    Parameters
    ----------
    angles : array, radians
    columns : int
    axis : float
        Column of the rotation axis.
    """
    arc = np.clip(np.ptp(angles) / 2, 1e-6, np.pi)
    reach = 1.5 + 1 / (1 - np.cos(arc / 2))
    return np.abs(np.arange(columns) - axis) <= reach


def spikes(projections: NDArray) -> NDArray[np.bool_]:
    """Rays that stand alone and are too bright, as those that a cosmic ray hit in a raw scan.

    A spike is brighter than all of its eight neighbours by more than 10 robust standard deviations of the local residual and
    30 % of the sinogram's range. What is darker is none: a wire or a bead that moves by more than a column from view to view
    stands alone as well. Where many rays within the shadow are so bright, they are gaps in the object, and only those brighter
    than the open beam are spikes; so in one or two views, where the neighbours are those of the same view.

    Parameters
    ----------
    projections : array, shape (angle, column)
        May hold NaN, which are no spikes.
    """
    values = np.asarray(projections, np.float64)
    lost = ~np.isfinite(values)
    if values.shape[1] < 3 or lost.all():
        return np.zeros(values.shape, bool)
    bright, _, least = alone(values)
    above = bright & (values < -least)
    # Where many rays within the shadow are so bright, they are gaps in the object.
    gaps = len(values) < 3 or np.sum(bright & ~above) > max(1, _MANY_SPIKES * np.sum(values > least))
    return above if gaps else bright


def alone(projections: NDArray) -> tuple[NDArray[np.bool_], NDArray[np.bool_], float]:
    """Rays that are brighter than all of their eight neighbours, and darker, by a least difference; and that difference.

    It is ten robust standard deviations of the local residual, 30 % of the sinogram's range and two steps between stored values
    at least: of air that reads two numbers alone, one here and there is a robust standard deviation of nothing away. In one or
    two views the neighbours are those of the same view.

    Parameters
    ----------
    projections : array, shape (angle, column)
        Three columns or more; may hold NaN, which do not stand alone.
    """
    from scipy.ndimage import median_filter

    lost = ~np.isfinite(projections)
    values = _interpolated(projections, lost)
    few = len(values) < 3
    padded = np.pad(values, 1, mode="edge" if few else "reflect")
    steps = [step for step in _NEIGHBOURS if not few or step[0] == 0]
    ring = np.stack([np.roll(padded, step, (0, 1))[1:-1, 1:-1] for step in steps])
    noise = _spread(values - median_filter(values, (1 if few else 3, 3)))
    least = max(_SPIKE * noise, _SMALLEST_SPIKE * _range(values), 2 * _step_of(projections[~lost]))
    return (ring.min(axis=0) - values > least) & ~lost, (values - ring.max(axis=0) > least) & ~lost, least


def _step_of(values: NDArray) -> float:
    """Between the few numbers that values are stored as, the smallest step; 0 where they are many."""
    numbers = np.unique(values.reshape(-1)[:: max(1, values.size // _SAMPLE)])
    return float(np.diff(numbers).min()) if 1 < len(numbers) <= _STORED else 0.0


def filled(projections: NDArray, bad: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Bad rays (angle, column) from the good ones of their view, and views without any from their neighbours."""
    return _interpolated(np.asarray(projections, np.float64), bad)


def _level(frames: NDArray) -> NDArray[np.float64]:
    """The mean over frames of flats or darks; a cosmic ray in one of three or more would darken its column in every view."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns that are NaN in every frame: they are repaired
        if len(frames) >= 3:
            middle = np.nanmedian(frames, axis=0)
            off = np.abs(frames - middle)
            least = np.maximum(_SPIKE * STD_OF_MAD * np.nanmedian(off), _SMALLEST_SPIKE * np.abs(middle))
            frames = np.where(off > least, np.nan, frames)
        return np.nanmean(frames, axis=0)


def _masked(projections: NDArray, weights: NDArray) -> Corrected:
    bad = ~np.isfinite(projections)
    used = weights > 0
    unit = float(weights[used].mean())
    return Corrected(_interpolated(projections, bad), weights / unit, int(bad.sum()), unit)


def _interpolated(values: NDArray, bad: NDArray) -> NDArray[np.float64]:
    """Bad rays from the good ones of their view; views with none from the same column of the nearest good views."""
    filled = np.where(bad, np.nan, values)
    columns = np.arange(values.shape[1])
    for row, wrong in zip(filled, bad, strict=True):
        if wrong.any() and not wrong.all():
            row[wrong] = np.interp(columns[wrong], columns[~wrong], row[~wrong])
    lost = bad.all(axis=1)
    if lost.any() and not lost.all():
        views = np.arange(len(values))
        filled[lost] = np.stack([np.interp(views[lost], views[~lost], c) for c in filled[~lost].T], axis=1)
    return filled


def _spread(residual: NDArray) -> float:
    return robust_std(residual)


def _range(values: NDArray) -> float:
    low, high = np.percentile(values, [1, 99])
    return float(high - low)


def _on_both_sides(odd: NDArray[np.bool_], axis: float) -> NDArray[np.bool_]:
    """Which of these columns have one of them as far beyond the axis, to a column."""
    there = np.flatnonzero(odd)
    partner = [bool((np.abs(2 * axis - column - there) <= 1).any()) for column in there]
    out = np.zeros(odd.shape, bool)
    out[there] = partner
    return out


def _bad_columns(values: NDArray) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Columns that differ from their neighbours as no part of an object off the axis does; and those that are dead."""
    from scipy.ndimage import median_filter

    views, columns = values.shape
    if columns < 5 or views < _FEWEST_VIEWS:
        return np.zeros(columns, bool), np.zeros(columns, bool)
    residual = values - median_filter(values, (1, 5))
    profile = np.median(residual, axis=0)
    least = max(_SPIKE * _spread(profile), _SMALLEST_BUMP * _range(values))
    odd = np.abs(profile) > least
    # The median about an edge misses where an object rises steeply there; what goes on as the columns before is no fault.
    for edge, second, third in ((0, 1, 2), (-1, -2, -3)):
        odd[edge] &= abs(np.median(values[:, edge] - 2 * values[:, second] + values[:, third])) > least
    # A column that no small part of the object ever crosses is constant too, without noise, but then it agrees with its
    # neighbours in most views.
    change, strays = values.std(axis=0), np.median(np.abs(residual), axis=0) > 1e-2 * _range(values)
    still = change < 1e-6 * _range(values)
    stuck = still & (median_filter(change, 5) > 1e-2 * _range(values)) & strays
    dead = _dead_columns(values, still)
    return odd | stuck | dead, dead


def _dead_columns(values: NDArray, still: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Columns that never change while all others do from view to view, by their noise; there may be many side by side.

    Without noise, or where negative values were clipped, the columns of air at the detector's edges are as still as a wire on
    the axis is.
    """
    step = np.median(np.abs(np.diff(values, axis=0)), axis=0)
    noisy = not (still[0] or still[-1]) and bool((step[~still] > 1e-6 * _range(values)).all())
    return still if noisy else np.zeros(still.shape, bool)
