"""An off-centre object as scanners see it: exact line integrals of discs, so that a wrong sign or unit shows in every ray."""

import numpy as np

from ctuq.tomo.geometry import Geometry, ParallelBeam
from ctuq.tomo.scan import Scan

# x, y, radius in mm, attenuation in 1/mm
DISCS = np.array([(0.5, -0.3, 7.0, 0.05), (3.0, 3.2, 1.5, 0.06), (-4.0, 1.0, 1.2, -0.04), (1.5, -4.2, 1.2, 0.10)])


def mirrored(discs=DISCS):
    """The object seen from below: x turned over."""
    return discs * np.array([-1, 1, 1, 1])


def chords(discs, start, direction):
    """Line integrals along rays (..., 2) that begin at ``start`` and run on for ever."""
    direction = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    total = np.zeros(np.broadcast_shapes(start.shape, direction.shape)[:-1])
    for x, y, radius, attenuation in discs:
        away = np.array([x, y]) - start
        beside = away[..., 0] * direction[..., 1] - away[..., 1] * direction[..., 0]
        total += attenuation * 2 * np.sqrt(np.clip(radius**2 - beside**2, 0, None))
    return total


def turned_sample(discs, degrees, source, pixels):
    """What a scanner that turns its sample counter-clockwise measures: (view, column).

    ``source`` is a point (2,), or None for parallel rays along +y; ``pixels`` are points (column, 2), in the scanner's frame.
    """
    views = []
    for angle in np.deg2rad(degrees):
        cos, sin = np.cos(angle), np.sin(angle)
        moved = discs.copy()
        moved[:, 0], moved[:, 1] = cos * discs[:, 0] - sin * discs[:, 1], sin * discs[:, 0] + cos * discs[:, 1]
        start = pixels if source is None else np.asarray(source, dtype=float)[None]
        views.append(chords(moved, start, np.array([[0.0, 1.0]]) if source is None else pixels - start))
    return np.array(views)


def predicted(geometry: Geometry, discs=DISCS):
    """What a geometry of ours says that its rays measure: (view, column)."""
    rows = geometry.vectors()
    columns = (np.arange(geometry.columns) - (geometry.columns - 1) / 2)[None, :, None]
    pixels = rows[:, None, 3:5] + columns * rows[:, None, 6:8]
    first = rows[:, None, 0:2]
    return (
        chords(discs, pixels, first + 0 * pixels)
        if isinstance(geometry, ParallelBeam)
        else chords(discs, first, pixels - first)
    )


def misfit(scan: Scan, discs=DISCS) -> float:
    """Relative distance of a scan's projections from what its geometry says of the object."""
    wanted = predicted(scan.geometry, discs)
    return float(np.linalg.norm(scan.projections - wanted) / np.linalg.norm(wanted))
