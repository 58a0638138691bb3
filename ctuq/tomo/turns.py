"""Whether a scan's angles run too far, not far enough or the wrong way round, by what a reconstruction cannot explain."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ctuq.tomo.air import levelled
from ctuq.tomo.axis import axis_column, misfits_at
from ctuq.tomo.geometry import FanBeam
from ctuq.tomo.scan import Scan

_FEWEST, _ARC, _HALF = 12, np.pi / 2, 1.05 * np.pi
# Told right, every other turn explained the shipped scans and simulated ones (12 to 60 views, up to 30 % of noise) worse: by
# 1.02 times and more, and by 3 to 50 times where noise is small.
_TIMES = 2.0
_CLEARER, _MOST = 1.15, 200
"""Times that the end of a turn left out or added must explain rays better to be told, and views up to which it matters.

Told right, phantoms of 16 to 180 views with 1 and 5 % of noise and nine real scans were explained by it at
most 1.03 times as well. Told wrong, phantoms of 16 and 30 views were explained 1.02 to 10 times as well by the right angles.
"""
_HALF_AS_FAR, _NO_WORSE = "half as far", 1.2
"""Times that the first half of the views, as they are told, is to be explained worse than all are over half of the arc.

Views that are told twice too far have 1.4 to 27, an axis beside its place, flux that falls and half acquisition 0.2 to 1.01.
"""
_OPPOSITE = 0.6
"""How much less opposite views, one mirrored, differ than views a quarter of a turn apart, if the angles run as far as told.

Of a real scan whose sample moves (catalyst, point by point) they differ by 0.16 of the rays and by 0.46, and half as far
explained it 2.1 times as well: half a turn has no two views of the same rays that could contradict one another. Told twice
too far, they differ alike.
"""


def better_turn(scan: Scan) -> tuple[str, float, float] | None:
    """What else the angles may be, if the projections are explained much better then.

    That is twice as well; where even angles end with a turn or a step before it, and should end the other way, 1.15 times. Of
    30 views over half a turn that is 6 degrees at the end: ``np.linspace(0, 180, 30)`` counts the end in, scanners do not.

    An object that is nearly round has its centre of mass on the axis whatever the angles, so that `ctuq.tomo.moments` sees
    nothing; the inside does not fit all the same. A parallel beam that turns the other way sees the mirrored object, and that
    nothing can tell.

    Returns
    -------
    str, float, float
        In words, after "the angles should run"; the relative misfit then and as they are. None if nothing is better.
    """
    if _too_little(scan):
        return None
    column, shadow = axis_column(scan.geometry), scan.shadow
    others, clear = _others(scan, column)
    if not others:
        return None

    def misfit(views: Scan, turned: NDArray[np.float64] | None = None) -> float:
        geometry = views.geometry if turned is None else replace(views.geometry, angles=turned)
        return float(misfits_at(replace(views, geometry=geometry), [column], shadow)[0])

    now = misfit(scan)
    tried = {name: misfit(scan, other) for name, other in others.items()}
    better = [name for name, then in tried.items() if then * clear[name] < now]
    best = min(better, key=lambda name: tried[name], default=None)
    if best is None:
        return None
    # Beams that drift, and flats of another exposure, are explained better by fewer opposite views, too.
    level = levelled(scan)
    if level is not scan and misfit(level, others[best]) * clear[best] > misfit(level):
        return None
    # Over half of the arc so is anything: the first half of the views, as they are told, must not be explained as well.
    if best == _HALF_AS_FAR and misfit(scan.select(np.arange(scan.n_angles // 2))) < _NO_WORSE * tried[best]:
        return None
    return best, tried[best], now


def _others(scan: Scan, column: float) -> tuple[dict[str, NDArray[np.float64]], dict[str, float]]:
    """What the angles may be in words and numbers, and how many times better the projections are to be explained then."""
    angles = scan.geometry.angles
    arc, numbered = float(np.ptp(angles)), _by_number(angles)
    others: dict[str, NDArray[np.float64]] = {}
    # With the step after the last view: 60 views in steps of 1.5 degrees cover a quarter turn, if no more.
    if arc * scan.n_angles / (scan.n_angles - 1) >= _ARC:
        if not _opposite_views_agree(scan, column):
            others[_HALF_AS_FAR] = angles / 2
        if arc < _HALF:
            others["twice as far"] = 2 * angles
        if isinstance(scan.geometry, FanBeam):
            others["the other way round"] = -angles
        if scan.n_angles <= _MOST and (end := _with_other_end(angles)) is not None:
            numbered[end[0]] = end[1]
    return others | numbered, dict.fromkeys(others, _TIMES) | dict.fromkeys(numbered, _CLEARER)


def _by_number(angles: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """What views may cover whose angles are told as their numbers, in degrees."""
    n, degrees = len(angles), np.rad2deg(angles)
    if not any(np.allclose(degrees, np.arange(first, first + n), rtol=0, atol=1e-6) for first in (0, 1)):
        return {}
    steps = {f"over {arc} degrees, as these are the views' numbers": arc / n for arc in (180, 360)}
    return {words: angles * step for words, step in steps.items() if abs(step - 1) > 1e-6}


def _too_little(scan: Scan) -> bool:
    return scan.n_angles < _FEWEST or scan.geometry.columns < 8 or not np.any(scan.projections)


def to_and_fro(scan: Scan) -> tuple[float, float] | None:
    """Relative misfit with every second view mirrored, and as they are, if the former is less than half.

    So it is where a scanner goes to and fro, and each row is saved as it was measured.
    """
    if _too_little(scan):
        return None
    column, columns, rays = axis_column(scan.geometry), np.arange(scan.geometry.columns), scan.projections.copy()
    for view in rays[1::2]:
        view[:] = np.interp(2 * column - columns, columns, view)
    return _first_better(scan, [replace(scan, projections=rays)])


def sorted_as_text(scan: Scan) -> tuple[float, float] | None:
    """Relative misfit in the order of the views' numbers, and as they are, if the former is less than half.

    So it is where files 1 to 12 are read as 1, 10, 11, 12, 2 and so on, and the angles are those of 1, 2, 3.
    """
    if _too_little(scan):
        return None
    orders = [np.argsort(sorted(range(first, first + scan.n_angles), key=str)) for first in (0, 1)]
    weights = [None if scan.weights is None else scan.weights[order] for order in orders]
    others = [replace(scan, projections=scan.projections[o], weights=w) for o, w in zip(orders, weights, strict=True)]
    return _first_better(scan, others)


def _first_better(scan: Scan, others: Sequence[Scan]) -> tuple[float, float] | None:
    """Relative misfit of the first of other scans that is explained twice as well about the same axis, and the scan's."""
    column, shadow = axis_column(scan.geometry), scan.shadow
    now, *tried = (float(misfits_at(each, [column], shadow)[0]) for each in (scan, *others))
    return next(((then, now) for then in tried if then * _TIMES < now), None)


def _with_other_end(angles: NDArray[np.float64]) -> tuple[str, NDArray[np.float64]] | None:
    """In words and numbers; None of angles that are uneven, or end nowhere near a quarter turn."""
    n, steps = len(angles), np.diff(angles)
    step = float(angles[-1] - angles[0]) / (n - 1)
    if step == 0 or not np.allclose(steps, step, rtol=0, atol=0.02 * abs(step)):
        return None
    for arc, other, words in (
        ((n - 1) * step, (n - 1) / n, "a step before the end of the turn"),
        (n * step, n / (n - 1), "the end of the turn itself"),
    ):
        quarters = abs(arc) / (np.pi / 2)
        if round(quarters) >= 2 and abs(quarters - round(quarters)) * np.pi / 2 < 0.1 * abs(step):
            changed = angles[0] + (angles - angles[0]) * other
            return f"to {np.rad2deg(changed[-1]):.4g} degrees, {words}", changed
    return None


def _opposite_views_agree(scan: Scan, column: float) -> bool:
    """Whether views of parallel rays half a turn apart are one another's mirror images, as nearly as if the sample moves."""
    if isinstance(scan.geometry, FanBeam):
        return False
    opposite, quarter = (_unlike(scan, column, turn) for turn in (np.pi, np.pi / 2))
    return opposite < _OPPOSITE * quarter


def _unlike(scan: Scan, column: float, turn: float) -> float:
    """Root mean square of rays less those of the views that are nearest to a turn on, mirrored at a column; NaN without any."""
    angles, rays = scan.geometry.angles, scan.projections
    apart = np.abs(np.angle(np.exp(1j * (angles[:, None] + turn - angles[None]))))
    views = np.flatnonzero(apart.min(axis=1) < np.ptp(angles) / len(angles))
    if not len(views):
        return np.nan
    columns = np.arange(rays.shape[1])
    shown = [
        np.interp(2 * column - columns, columns, rays[at], left=np.nan, right=np.nan) for at in apart.argmin(axis=1)[views]
    ]
    gaps = np.square(rays[views] - np.stack(shown))
    return float(np.sqrt(np.nanmean(gaps))) if np.isfinite(gaps).any() else np.nan
