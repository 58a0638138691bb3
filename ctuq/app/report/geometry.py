"""A drawing of a scanning geometry: where the source goes, where the detector stands, what every view sees."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from numpy.typing import NDArray

from ctuq.tomo.geometry import FanBeam, Geometry, VolumeGrid

_SOURCE, _DETECTOR, _GRID, _VIEW = "#c2410c", "#1d4ed8", "#111827", "#047857"


def draw_geometry(geometry: Geometry, grid: VolumeGrid | None = None) -> Figure:
    """Source positions, detector and rays of the first view, image grid and the circle that every view sees.

    Parameters
    ----------
    geometry : ParallelBeam or FanBeam
    grid : VolumeGrid, optional
        The image grid; left out of the drawing where it is None.

    Returns
    -------
    Figure
        Both axes in mm, the rotation axis at the origin, angles counter-clockwise.
    """
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    axes = figure.add_subplot()
    sources, centres, steps = _positions(geometry, grid)
    half = (geometry.columns / 2) * steps
    ends = np.stack([centres - half, centres + half], axis=1)
    _draw_paths(axes, geometry, sources, ends)
    _draw_first_view(axes, geometry, sources[0], ends[0])
    axes.add_patch(
        Circle((0, 0), geometry.field_of_view / 2, fill=False, ls="--", color=_VIEW, label="seen by every view", zorder=3)
    )
    if grid is not None:
        left, right, bottom, top = grid.extent
        size = f"{grid.shape[-1]} × {grid.shape[-2]} pixels of {grid.voxel:.3g} mm"
        axes.add_patch(
            Rectangle((left, bottom), right - left, top - bottom, fill=False, lw=1.6, color=_GRID, label=size, zorder=3)
        )
    axes.plot(0, 0, "+", color=_GRID, ms=9, label="rotation axis")
    axes.set(xlabel="x (mm)", ylabel="y (mm)", aspect="equal", title=_title(geometry))
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _positions(geometry: Geometry, grid: VolumeGrid | None) -> tuple[NDArray, NDArray, NDArray]:
    """Sources, detector centres and column steps, each (angle, 2); parallel rays get a source well outside."""
    rows = geometry.vectors()
    first, centres, steps = rows[:, 0:2], rows[:, 3:5], rows[:, 6:8]
    if isinstance(geometry, FanBeam):
        return first, centres, steps
    reach = 0.75 * max(geometry.columns * geometry.pixel, 0.0 if grid is None else grid.extent[1] - grid.extent[0])
    return centres - reach * first, centres + reach * first, steps


def _draw_paths(axes: Axes, geometry: Geometry, sources: NDArray, ends: NDArray) -> None:
    what = "source of each view" if isinstance(geometry, FanBeam) else "where each view's central ray comes from"
    axes.plot(*sources.T, "o", ms=3, color=_SOURCE, alpha=0.6, label=f"{what} ({len(sources)})")
    for end in ends[:: max(1, len(ends) // 60)]:
        axes.plot(*end.T, color=_DETECTOR, alpha=0.12, lw=1)


def _draw_first_view(axes: Axes, geometry: Geometry, source: NDArray, ends: NDArray) -> None:
    degrees = np.rad2deg(geometry.angles[0])
    axes.plot(*ends.T, color=_DETECTOR, lw=3, label=f"detector of the first view ({degrees:.4g}°)")
    axes.plot(*source, "o", ms=8, color=_SOURCE)
    shifts = np.zeros((5, 2))
    if not isinstance(geometry, FanBeam):
        shifts = np.linspace(ends[0], ends[1], 5) - ends.mean(axis=0)
    for shift, target in zip(shifts, np.linspace(ends[0], ends[1], 5), strict=True):
        axes.plot(*np.stack([source + shift, target]).T, color=_SOURCE, lw=0.8, alpha=0.7)


def _title(geometry: Geometry) -> str:
    degrees = np.rad2deg(geometry.angles)
    kind = "fan beam" if isinstance(geometry, FanBeam) else "parallel beam"
    return f"{kind}: {len(degrees)} views from {degrees.min():.4g}° to {degrees.max():.4g}°, {geometry.columns} columns"
