"""Which files and views of a scan the command line asks for."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ctuq.app.typed import degrees
from ctuq.errors import InputError
from ctuq.tomo.geometry import Geometry
from ctuq.tomo.scan import Scan
from ctuq.tomo.space import VolumeGeometry
from ctuq.tomo.volume_scan import VolumeScan

_TURN = 360.0
_Scan = TypeVar("_Scan", Scan, VolumeScan)


def selected(scan: _Scan, every: int | None, angles: str | None) -> _Scan:
    """The scan of every ``every``-th view, or of the views at the given angles in degrees; all of it if neither is given.

    Raises
    ------
    InputError
        If both are given, ``angles`` is not a list of numbers, or no view is near one of them.
    """
    views = chosen_views(scan.geometry, every, angles)
    return scan if views is None else scan.select(views)


def chosen_views(geometry: Geometry | VolumeGeometry, every: int | None, angles: str | None) -> NDArray[np.int64] | None:
    """Numbers of every ``every``-th view, or of those near some angles in degrees; None for all.

    Raises
    ------
    InputError
        As `selected`.
    """
    if every is not None and angles is not None:
        raise InputError("--every and --angles exclude each other; give one of them.")
    if every is not None and every < 1:
        raise InputError(f"'every' takes a positive whole number, got {every}.")
    if every is not None:
        return np.arange(0, len(geometry.angles), every)
    return None if angles is None else views_at(geometry, degrees(angles, "--angles"))


def views_at(geometry: Geometry | VolumeGeometry, wanted: NDArray) -> NDArray[np.int64]:
    """Index of the view nearest to each angle, each view once, in the order asked for.

    A view is near if it is at most half the median step between neighbouring views away; whole turns do not count.

    Raises
    ------
    InputError
        Naming the first angle that no view is near, and the nearest one measured.
    """
    measured = np.rad2deg(geometry.angles)
    within = _half_step(measured)
    chosen = []
    for angle in wanted:
        distance = np.abs((measured - angle + _TURN / 2) % _TURN - _TURN / 2)
        nearest = int(distance.argmin())
        if distance[nearest] > within + 1e-9:
            raise InputError(
                f"No view was measured at {angle:g}°; the nearest of the {len(measured)} views is at "
                f"{measured[nearest]:.4g}°, and up to {within:.3g}° away would do."
            )
        chosen.append(nearest)
    return np.array(list(dict.fromkeys(chosen)), dtype=np.int64)


def _half_step(measured: NDArray) -> float:
    steps = np.diff(np.unique(np.round(measured % _TURN, 9)))
    return float(np.median(steps)) / 2 if steps.size else 0.5
