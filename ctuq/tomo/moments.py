"""Whether projections are of one object at one place, by their centres of mass: wrong angles and moved samples show there."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctuq.tomo.geometry import FanBeam
from ctuq.tomo.scan import Scan

_FEWEST = 6
_OF_WIDTH, _SIGMAS = 0.01, 6.0
_MANY, _IS_JUMP, _LEAST_JUMP = 24, 0.6, 0.005
"""Views from which a jump is looked for, what it leaves of the strays' squares at most, and its least over the shadow's width.

In 17 real scans the best jump left 0.70 of the squares or more, and was 0.0006 to 0.007 of the width, but for one of a sample
that moved: 0.28, 0.04. Of drawn samples that moved by a half and a whole of 72 columns half-way it left 0.52 and 0.18.
"""
_NEAR, _SEEN_NEAR = 8, 0.5
"""So many views at most on each side of a jump, and the share of it by which their means differ at least.

Scans of a grain and of a head strayed smoothly, and the best jump was 15 and 7 columns: there the centre itself moved by 1.6
and -0.1 between eight views and the next eight.
"""
# A sinusoid between views so far apart is off by 0.5 % of its amplitude at most; an arc of so much tells a shift from a turn.
_GAP, _ARC = np.pi / 15, np.pi / 3


def stray_of_centre(scan: Scan) -> float | None:
    """How far the projections' centres of mass stray from what one object's do, rms in columns; None if it means nothing.

    The first moment of a parallel projection over its total is ``x cos t + y sin t`` plus the axis' column (Helgason-Ludwig
    consistency of the first order), whatever the object. It is fitted in these three numbers; the rays of a fan beam are sorted
    into parallel ones before. Strays below 1 % of the shadow's width, or below what noise does, mean nothing, nor does any
    where the object leaves the detector.
    """
    found = _centres(scan)
    if found is None:
        return None
    stray = found.places - found.basis @ np.linalg.lstsq(found.basis, found.places, rcond=None)[0]
    rms = float(np.sqrt(np.sum(stray**2) / max(1, stray.size - 3)))
    return rms if rms > max(_OF_WIDTH * found.width, _SIGMAS * found.noise) else None


def jump_of_centre(scan: Scan) -> tuple[float, int] | None:
    """By how many columns the centre of mass jumps, and at which view, where one jump is most of what it strays; else None."""
    found = _centres(scan)
    if found is None or len(found.places) < _MANY:
        return None
    n, end = len(found.places), max(3, len(found.places) // 12)
    near = min(end, _NEAR)
    smooth = float(np.sum((found.places - found.basis @ np.linalg.lstsq(found.basis, found.places, rcond=None)[0]) ** 2))
    tried = []
    for view in range(end, n - end):
        basis = np.c_[found.basis, np.arange(n) >= view]
        values = np.linalg.lstsq(basis, found.places, rcond=None)[0]
        left = float(np.sum((found.places - basis @ values) ** 2))
        tried.append((left, view, *map(float, values), float(np.linalg.inv(basis.T @ basis)[3, 3])))
    left, view, *sinusoid, jump, variance = min(tried)
    clear = jump**2 > _SIGMAS**2 * variance * left / (n - 5) and left < _IS_JUMP * smooth
    # What smooth misfits of a whole scan make of one jump is not seen from one view to the next.
    stray = found.places - found.basis @ sinusoid
    beside = stray[view : view + near].mean() - stray[view - near : view].mean()
    return (jump, view) if clear and beside / jump > _SEEN_NEAR and abs(jump) > _LEAST_JUMP * found.width else None


@dataclass(frozen=True, eq=False)
class _Centres:
    """Centres of mass (view,) in columns, what one object's may be (view, 3), the shadow's width, and the centres' noise."""

    places: NDArray[np.float64]
    basis: NDArray[np.float64]
    width: int
    noise: float


def _centres(scan: Scan) -> _Centres | None:
    y, shadow = scan.projections.astype(np.float64), scan.shadow
    if scan.n_angles < _FEWEST or y.shape[1] < 8 or any(shadow.cut):
        return None
    found = _as_parallel(scan, y)
    if found is None:
        return None
    values, angles, place = found
    cells = np.gradient(place)
    totals = values @ cells
    if totals.min() <= 0.5 * np.median(totals):
        return None
    basis = np.stack([np.cos(angles), np.sin(angles), np.ones_like(angles)], axis=1)
    # Noise of the edges, where the object's own structure is not; its lever is the column's distance from the centre.
    air = np.concatenate([y[:, : max(3, shadow.first)], y[:, min(shadow.last + 1, y.shape[1] - 3) :]], axis=1)
    noise = float(np.std(air) * np.linalg.norm(place - place.mean()) / np.median(totals))
    return _Centres((values @ (cells * place)) / totals, basis, shadow.last - shadow.first + 1, noise)


def _as_parallel(scan: Scan, y: NDArray) -> tuple[NDArray, NDArray, NDArray] | None:
    """Parallel projections (angle, column), their angles, and the places of their rays in columns; None if they cannot be made.

    A ray of a fan at the angle ``a``, slanted by ``d``, is one of a parallel beam at ``a - d``: each column is interpolated
    between the views.
    """
    geometry, columns = scan.geometry, np.arange(y.shape[1])
    place = geometry.axis_distances(columns) / geometry.pixel_at_axis
    if not isinstance(geometry, FanBeam):
        return y, geometry.angles, place
    order, slants = np.argsort(geometry.angles, kind="stable"), geometry.slants(columns)
    angles = geometry.angles[order]
    first, last = angles[0] - slants.min(), angles[-1] - slants.max()
    if last - first < _ARC or np.diff(angles).max() > _GAP:
        return None
    turned = np.linspace(first, last, len(angles))
    values = np.stack([np.interp(turned + d, angles, column) for d, column in zip(slants, y[order].T, strict=True)], axis=1)
    return values, turned, place
