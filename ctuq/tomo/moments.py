"""Whether projections are of one object at one place, by their centres of mass: wrong angles and moved samples show there."""

import numpy as np
from numpy.typing import NDArray

from ctuq.tomo.geometry import FanBeam
from ctuq.tomo.scan import Scan

_FEWEST = 6
_OF_WIDTH, _SIGMAS = 0.01, 6.0
# A sinusoid between views so far apart is off by 0.5 % of its amplitude at most; an arc of so much tells a shift from a turn.
_GAP, _ARC = np.pi / 15, np.pi / 3


def stray_of_centre(scan: Scan) -> float | None:
    """How far the projections' centres of mass stray from what one object's do, rms in columns; None if it means nothing.

    The first moment of a parallel projection over its total is ``x cos t + y sin t`` plus the axis' column (Helgason-Ludwig
    consistency of the first order), whatever the object. It is fitted in these three numbers; the rays of a fan beam are sorted
    into parallel ones before. Strays below 1 % of the shadow's width, or below what noise does, mean nothing, nor does any
    where the object leaves the detector.
    """
    y = scan.projections.astype(np.float64)
    if scan.n_angles < _FEWEST or y.shape[1] < 8:
        return None
    shadow = scan.shadow
    if any(shadow.cut):
        return None
    found = _as_parallel(scan, y)
    if found is None:
        return None
    values, angles, place = found
    cells = np.gradient(place)
    totals = values @ cells
    if totals.min() <= 0.5 * np.median(totals):
        return None
    centres = (values @ (cells * place)) / totals
    basis = np.stack([np.cos(angles), np.sin(angles), np.ones_like(angles)], axis=1)
    stray = centres - basis @ np.linalg.lstsq(basis, centres, rcond=None)[0]
    rms = float(np.sqrt(np.sum(stray**2) / max(1, stray.size - 3)))
    # Noise of the edges, where the object's own structure is not; its lever is the column's distance from the centre.
    air = np.concatenate([y[:, : max(3, shadow.first)], y[:, min(shadow.last + 1, y.shape[1] - 3) :]], axis=1)
    noise = float(np.std(air) * np.linalg.norm(place - place.mean()) / np.median(totals))
    least = max(_OF_WIDTH * (shadow.last - shadow.first + 1), _SIGMAS * noise)
    return rms if rms > least else None


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
