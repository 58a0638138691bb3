"""Views that repeat the one before to the last digit, at other angles: a frame that was stored again and not measured."""

import numpy as np
from numpy.typing import NDArray

from ctuq.files.formats.raw import Raw
from ctuq.tomo.scan import Scan

_FEWEST, _SAME_ANGLE = 4, 1e-6
_CHANGING, _MOST_CHANGING = 0.5, 0.9
"""Least share of the columns that change from a view to the next where none is repeated, and the largest that counts: noise
changes nearly all. Of objects that turn in small steps, without noise or in few levels, views are alike without a fault."""
_CHANCE = 1e-6
"""Of how many views so few columns, of so few counts, would repeat the view before by chance."""


def without_frozen_views(scan: Scan, raw: Raw) -> Scan:
    """The scan without views that repeat the one before as it was stored, and how many they are.

    Parameters
    ----------
    scan : Scan
        Of the first of the raw views; those at the end may have been left out.
    raw : Raw
    """
    frozen = frozen_views(raw, scan.geometry.angles)
    if not frozen.any():
        return scan
    first, count = int(frozen.argmax()), int(frozen.sum())
    degrees = np.rad2deg(scan.geometry.angles[first])
    many = f"{count} of {scan.n_angles} views, first number {first} (at {degrees:.4g} degrees), repeat"
    which = many if count > 1 else f"View {first} of {scan.n_angles} (at {degrees:.4g} degrees) repeats"
    return scan.select(np.flatnonzero(~frozen)).warned(
        f"{which} the view before to the last digit though the angle is another: a frame was stored again and not measured; "
        "the first of each such run is kept, the others are left out."
    )


def frozen_views(raw: Raw, angles: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which views (angle,) repeat the one before as it was stored; none of a scan that ctuq wrote.

    Parameters
    ----------
    raw : Raw
    angles : array, shape (angle,)
        In radians, of the first of the raw views.
    """
    values, frozen = np.asarray(raw.values)[: len(angles)], np.zeros(len(angles), bool)
    if raw.whole is not None or len(values) <= _FEWEST or values.shape[1] < 2:
        return frozen
    turned = np.abs(np.angle(np.exp(1j * np.diff(angles)))) > _SAME_ANGLE
    changed = values[1:] != values[:-1]  # NaN differs from NaN: a lost view repeats none
    same = ~changed.any(axis=1) & turned & (values[1:].max(axis=1) > values[1:].min(axis=1))
    others = changed[~same & turned]
    alive = others.any(axis=0)
    if not same.any() or len(others) < _FEWEST or not alive.any():
        return frozen
    usual = float(np.median(others[:, alive].mean(axis=1)))
    by_chance = len(values) * (1 - min(usual, _MOST_CHANGING)) ** int(alive.sum())
    frozen[1:] = same & (usual > _CHANGING and by_chance < _CHANCE)
    return frozen
