"""Distances between edges along a line: walls, gaps, diameters, found between pixels by interpolation."""

from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.quantities import discrepancy
from ctuq.quantities.drawn import TOLERANCE, square_about, values_at_draws
from ctuq.quantities.lines import Line, Point, line
from ctuq.quantities.quantity import LEVEL, Quantity, checked_level, gaussian_quantity
from ctuq.tomo.arrays import is_finite
from ctuq.tomo.geometry import VolumeGrid

EDGE = 0.35
"""Standard deviation of each edge, in pixels, beside what moves all of them."""
_MIDDLE = (0.25, 0.75)
"""Shares of a step between which a level must lie: near its foot or its top, blur decides where the edge is."""
_FAINT = 0.5
THIN = 2.5
"""Pixels: below, an image shows its own blur rather than the wall's width."""
_PER_PIXEL = 4
DRAWN = "posterior"


class _Edged(Protocol):
    @property
    def mean(self) -> NDArray[np.float32]: ...
    @property
    def grid(self) -> VolumeGrid: ...
    def draw(self, n: int, *, seed: int = 0) -> NDArray[np.float32]: ...


def thickness(
    result: _Edged,
    p: Point,
    q: Point,
    at: float | None = None,
    *,
    name: str = "thickness",
    level: float = LEVEL,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Quantity:
    """Distance between the two points where the image crosses the attenuation ``at`` on the line from p to q, mm.

    By default that is half way between what lies between the edges and the ends of the line.

    Raises
    ------
    InputError
        If the line does not cross it exactly twice, what it crosses is thinner than 2.5 pixels, or ``at`` is not near half way
        of both steps.
    """
    level, grid = checked_level(level), result.grid
    along = line(grid, p, q, step=grid.voxel / _PER_PIXEL)
    values = along.values(result.mean.astype(np.float64))
    at = _half_way(values) if at is None else at
    if not is_finite(at):
        raise InputError(f"The level of an edge is a finite attenuation in 1/mm, got {at!r}.")
    found = _crossings(along, result.mean.astype(np.float64), at)
    if len(found) != 2:
        raise InputError(
            f"The line from ({p[0]:g}, {p[1]:g}) to ({q[0]:g}, {q[1]:g}) mm crosses {at:g} 1/mm {len(found)} times, and a wall "
            "or a gap has two edges; choose a line through just one, or another level."
        )
    value = float(found[1] - found[0])
    if value < THIN * grid.voxel:
        raise InputError(
            f"What the line crosses is {value / grid.voxel:.1f} pixels thick, and below {THIN} an image shows its blur "
            "and not the thickness; reconstruct with more pixels (--size) if the scan has the resolution."
        )
    _require_resolved(along.values(discrepancy.thin_contrast(result.mean)), values)
    _require_half_way(values, (along.positions > found[0]) & (along.positions < found[1]), at)

    def distance(image: NDArray[np.float64], limit: float) -> float:
        places = _crossings(along, image, limit)
        # An image without such edges has the distance that the others have: how many do is told.
        return float(np.ptp([places[np.abs(places - edge).argmin()] for edge in found])) if len(places) > 1 else value

    def distances(images: NDArray) -> NDArray[np.float64]:
        return np.array([distance(image.astype(np.float64), at) for image in images])

    values, error = values_at_draws(result, distances, tolerance, seed)
    budget = {DRAWN: square_about(value, values), discrepancy.ALONE: 2 * (EDGE * grid.voxel) ** 2}
    for source, *both in discrepancy.alternatives(result.mean, at):
        ends = [distance(x + shift * discrepancy.slope(x), limit) for x, limit, shift in both]
        width = sum(abs(end - value) for end in ends) / (1 if source == discrepancy.FADES else 2)
        budget[source] = (discrepancy.SHARED[source] * width) ** 2
    told = gaussian_quantity(name, value, sum(budget.values()), level=level, unit="mm", budget=budget)
    share = budget[DRAWN] / max(sum(budget.values()), 1e-300)
    return replace(told, draws=len(values), monte_carlo_error=error * share)


def _half_way(values: NDArray[np.float64]) -> float:
    """Between the mean of the line's ends and the value that is furthest from it."""
    outside = float(values[[0, -1]].mean())
    return (outside + float(values[np.abs(values - outside).argmax()])) / 2


def _require_resolved(thin: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    """Refuse lines that meet something thinner than three pixels: its height, and so the level's place, is anybody's guess."""
    share = float(thin.max()) / max(float(np.ptp(values)), 1e-300)
    if share > _FAINT:
        raise InputError(
            f"The line meets structures thinner than three pixels, of {100 * share:.0f} % of its contrast, whose edges the "
            "image does not resolve; choose another line, or reconstruct with more pixels (--size)."
        )


def _require_half_way(values: NDArray[np.float64], inside: NDArray[np.bool_], at: float) -> None:
    middle = float(np.median(values[inside]))
    for end in values[[0, -1]]:
        share = (at - end) / (middle - end) if middle != end else np.inf
        if not _MIDDLE[0] <= share <= _MIDDLE[1]:
            raise InputError(
                f"The level {at:.4g} 1/mm lies at {100 * share:.0f} % of a step from {end:.4g} to {middle:.4g} 1/mm, and edges "
                f"are only told near half way; take {(end + middle) / 2:.4g}, or move the line's ends."
            )


def _crossings(along: Line, image: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """Places, mm from the line's start, where an image crosses a level, by linear interpolation."""
    s = along.values(image) - level
    at = np.flatnonzero((s[1:] > 0) != (s[:-1] > 0))
    share = s[at] / (s[at] - s[at + 1])
    return along.positions[at] + share * np.diff(along.positions)[at]
