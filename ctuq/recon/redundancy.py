"""How much each measured ray counts in filtered back-projection: quadrature over angles and rays that were measured twice."""

import numpy as np
from numpy.typing import NDArray

from ctuq.tomo.geometry import FanBeam, Geometry

_TURN = 2 * np.pi
_TAPER = np.deg2rad(10)
_SMALLEST_HOLE = np.deg2rad(20)


def ray_weights(geometry: Geometry) -> NDArray:
    """Weight of each ray in the integral over angles, in radians, for any list of angles.

    The integral over half a turn of lines becomes a sum over views. A view counts for the angles nearer to it than to its
    neighbours; a hole in the angles (wider than five median steps and 20 degrees) counts for nobody. A line that was measured
    from both sides shares its weight c / (c + c'), where c falls smoothly to 0 towards holes and, on a shifted detector,
    towards its short side (Noo, Defrise, Clackdoyle and Kudo 2002; Wang 2002). For a short scan this takes Parker's place.

    Returns
    -------
    array, shape (angle, column)
    """
    angles = geometry.angles
    fan = fan_angles(geometry)
    if not isinstance(geometry, FanBeam) and abs(fan[0] + fan[-1]) < geometry.pixel:
        step, _ = _cells(angles, np.pi)
        return np.repeat(step[:, None], geometry.columns, axis=1)
    step, holes = _cells(angles, _TURN)
    own = np.broadcast_to(_towards_holes(angles, holes)[:, None], geometry.shape) * _towards_side(fan, fan)
    turn = 2 * fan if isinstance(geometry, FanBeam) else 0 * fan
    opposite = _towards_holes(angles[:, None] + np.pi - turn, holes) * _towards_side(-fan, fan)
    total = own + opposite
    share = np.divide(own, total, out=np.ones(geometry.shape), where=total > 0)
    return step[:, None] * share


def fan_angles(geometry: Geometry) -> NDArray:
    """Where each column's ray passes the rotation axis: the angle from the ray through it, or mm for a parallel beam."""
    columns = geometry.positions()
    if isinstance(geometry, FanBeam):
        axis = np.arctan(geometry.axis_offset / geometry.source_to_axis)
        return np.arctan(columns / geometry.source_to_detector) - axis
    return columns - geometry.axis_offset


def _cells(angles: NDArray, period: float) -> tuple[NDArray, NDArray]:
    """Half the way to both neighbours for each angle, and the holes as rows (start, width)."""
    places, which, times = np.unique(np.round(np.mod(angles, period), 9) % period, return_inverse=True, return_counts=True)
    gaps = np.diff(places, append=places[0] + period)
    hole = gaps > max(5 * np.median(gaps), _SMALLEST_HOLE) if len(places) > 2 else np.zeros(len(places), bool)
    usual = np.median(gaps)
    after = np.where(hole, usual, gaps) / 2
    cells = (after + np.roll(after, 1)) / times
    return cells[which], np.stack([places + usual / 2, gaps - usual], axis=1)[hole]


def _towards_holes(angles: NDArray, holes: NDArray) -> NDArray:
    """1 away from holes, 0 inside them, smooth between."""
    kept = np.ones(np.shape(angles))
    if not len(holes):
        return kept
    width = min(_TAPER, (_TURN - holes[:, 1].sum()) / 4)
    for start, size in holes:
        after = np.mod(angles - start, _TURN)
        distance = np.where(after < size, 0.0, np.minimum(after - size, _TURN - after))
        kept = kept * np.sin(np.pi / 2 * np.clip(distance / width, 0, 1)) ** 2
    return kept


def _side(fan: NDArray) -> float | None:
    """Half-width of the part that both sides of a shifted detector see, signed by its longer side; None if it is centred."""
    left, right = -fan[0], fan[-1]
    if abs(right - left) < 0.05 * (right + left):
        return None
    return float(np.copysign(max(min(left, right), 1e-12), right - left))


def _towards_side(at: NDArray, fan: NDArray) -> NDArray:
    """1 on the long side of a shifted detector, falling to 0 at its short end; 0 outside any detector."""
    half_column = abs(fan[1] - fan[0]) / 2 if len(fan) > 1 else np.inf
    measured = ((at >= fan[0] - half_column) & (at <= fan[-1] + half_column)).astype(float)
    side = _side(fan)
    if side is None:
        return measured
    return measured * np.sin(np.pi / 4 * (1 + np.clip(at / side, -1, 1))) ** 2
